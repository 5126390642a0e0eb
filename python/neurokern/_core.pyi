from typing import Any

class BinSpikes:
    def __init__(
        self,
        *,
        times: int,
        units: int,
        starts: int,
        edges: int,
        unit_map: int,
        counts: int,
        n_spikes: int,
        n_windows: int,
        n_bins: int,
        n_units: int,
        n_ids: int,
        start: float,
        step: float,
        tolerance: float,
        first_sample: int,
        width_numerator: int,
        width_denominator: int,
        largest_exact: int,
        count_type: int,
        order: int,
        integer_times: bool,
        wide_units: bool,
        step_is_rate: bool,
        closed_last: bool,
        train_ends: int,
        n_trains: int,
        smoothing: int,
        weights: int,
        n_weights: int,
    ) -> None: ...

def advise_huge_pages(address: int, bytes: int) -> None: ...
def best_isa() -> str: ...
def bin_spikes(problem: BinSpikes, n_threads: int) -> tuple[int, int, int, int]: ...
def count_targets(arguments: dict[str, Any], n_threads: int) -> None: ...
def isa() -> str: ...
def mask_regions(arguments: dict[str, Any], n_threads: int) -> None: ...
def write_targets(arguments: dict[str, Any], n_threads: int) -> None: ...
