from typing import Any

max_cuda_ridge_pairs: int
max_cuda_ridge_side: int
max_ridge_side: int

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

class DecodeVolumes:
    def __init__(
        self,
        *,
        mapped: int,
        descriptor: int,
        offset: int,
        volume_values: int,
        n_volumes: int,
        type: int,
        swapped: bool,
        slope: float,
        inter: float,
        run_starts: int,
        run_lengths: int,
        n_runs: int,
        n_voxels: int,
        order: int,
        out: int,
        out_stride: int,
        decoded: int,
    ) -> None: ...

class GzipStream:
    n_points: int
    n_saved: int
    is_complete: bool
    is_saved: bool
    n_inflated: int
    def __init__(self, *, descriptor: int, file_bytes: int, base: int, spacing: int) -> None: ...
    def load_index(self, path: str, key: str) -> bool: ...
    def write_index(self, descriptor: int, key: str) -> bool: ...
    def adopt_index(self, path: str) -> None: ...
    def spool_index(self, folder: str) -> None: ...
    def decode(
        self,
        volumes: DecodeVolumes,
        parcels: ParcelRuns | None,
        first: int,
        all_volumes: int,
        n_threads: int,
    ) -> None: ...

class ParcelRuns:
    def __init__(
        self, *, lengths: int, parcels: int, sizes: int, n_runs: int, n_parcels: int, voxels: int = 0
    ) -> None: ...

class MappedFile:
    address: int
    descriptor: int
    size: int
    state: tuple[int, int, int, int]
    def __init__(self, path: str | bytes, map: bool) -> None: ...
    def is_unchanged(self) -> bool: ...

class StoredRun:
    def __init__(
        self,
        *,
        raw: int,
        raw_stride: int,
        n_rows: int,
        n_columns: int,
        columns: int,
        type: int,
        slope: float,
        inter: float,
        origin: int,
        factor: int,
        coefficients: int,
        basis: int,
        n_basis: int,
        files: list[MappedFile],
    ) -> None: ...

class NiftiHeader:
    version: int
    swapped: bool
    is_pair: bool
    n_dims: int
    item_size: int
    offset: int
    n_bytes: int
    slope: float
    inter: float
    spatial_unit: int
    time_unit: int
    affine_source: int
    sform_code: int
    qform_code: int
    description: str
    dtype: str
    affine: tuple[tuple[float, float, float, float], ...]
    shape: tuple[int, int, int, int]
    zooms: tuple[float, float, float, float]
    @staticmethod
    def parse(bytes: bytes, has_image_file: bool) -> NiftiHeader: ...
    def check_size(self, file_bytes: int) -> None: ...

def advise_huge_pages(address: int, bytes: int) -> None: ...
def best_isa() -> str: ...
def bin_spikes(problem: BinSpikes, n_threads: int) -> tuple[int, int, int, int]: ...
def clean_columns(
    *,
    values: int,
    basis: int,
    n_rows: int,
    n_columns: int,
    stride: int,
    n_basis: int,
    standardize: bool,
    n_threads: int,
) -> None: ...
def count_targets(arguments: dict[str, Any], n_threads: int) -> None: ...
def decode_volumes(volumes: DecodeVolumes, parcels: ParcelRuns | None, n_threads: int) -> None: ...
def fit_columns(
    *,
    values: int,
    stride: int,
    n_rows: int,
    n_columns: int,
    basis: int,
    n_basis: int,
    origin: int,
    sums: int,
    squares: int,
    n_threads: int,
) -> None: ...
def index_mask(
    mask: int, n_x: int, n_y: int, n_z: int, run_starts: int, run_lengths: int, order: int
) -> None: ...
def inflate_start(descriptor: int, file_bytes: int, n: int) -> bytes: ...
def gather_windows(
    runs: list[StoredRun],
    starts: int,
    lengths: int,
    n_rows: int,
    n_columns: int,
    out_stride: int,
    out: int,
    decoded: int,
    n_threads: int,
) -> int: ...
def isa() -> str: ...
def mask_regions(arguments: dict[str, Any], n_threads: int) -> None: ...
def measure_mask(mask: int, n_x: int, n_y: int, n_z: int) -> tuple[int, int]: ...
def ridge_sums(arguments: dict[str, Any], n_threads: int) -> None: ...
def solve_ridge_batched(arguments: dict[str, Any], n_threads: int) -> int: ...
def solve_ridge_batched_backward(arguments: dict[str, Any], n_threads: int) -> None: ...
def write_targets(arguments: dict[str, Any], n_threads: int) -> None: ...
