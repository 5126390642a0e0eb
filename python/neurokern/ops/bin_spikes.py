"""``bin_spikes``: spike times and unit ids to counts in time bins."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from neurokern._check import check_choice, check_finite, check_flag, check_integer, check_positive
from neurokern.ops import _library
from neurokern.ops import _spike_arrays as arrays
from neurokern.ops._spike_calls import Rules, Spikes, count_by_triton, count_on_cpu, count_on_gpu
from neurokern.ops._spike_grid import Grid, bin_of_last, count_bins
from neurokern.ops._spike_reference import bin_spikes_reference, count_by_reference
from neurokern.ops._spike_smoothing import check_smoothing

if TYPE_CHECKING:
    import torch

    from neurokern.ops._types import Array, DType
else:
    torch = _library.torch

__all__ = ["bin_spikes", "bin_spikes_reference"]


def bin_spikes(
    times: Array,
    units: Array | None = None,
    bin_size: float | None = None,
    duration: float | None = None,
    *,
    start: float = 0.0,
    stop: float | None = None,
    n_units: int | None = None,
    windows: Array | None = None,
    edges: Array | None = None,
    closed_last: bool = False,
    unit_map: Array | None = None,
    sfreq: float | None = None,
    train_ends: Array | None = None,
    smoothing: str | None = None,
    smoothing_width: float | None = None,
    dtype: DType | None = None,
    edge_tolerance: float = 1e-9,
    strict: bool = False,
    overflow: str = "raise",
    sorted: bool | None = None,
    out: Array | None = None,
    return_dropped: bool = False,
    backend: str | None = None,
) -> Any:
    """Count the spikes of each unit in time bins.

    Bins are half-open: a spike at ``t`` lies in bin ``k`` if ``edge[k] <= t < edge[k + 1]``, decided by
    comparing with the edge. If ``1 / bin_size`` is a whole ``rate`` (to 1e-9), ``edge[k]`` is ``start + k /
    rate``, else ``start + k * bin_size``; so a spike of a 30 kHz clock that lies on a 20 ms edge is in the
    bin that begins there, which the quotient ``floor(t / bin_size)`` gets wrong for 1 spike in 6,000.

    Parameters
    ----------
    times : array or tensor of shape (n_spikes,), float seconds or integer samples
        Spike times in any order. NaN, infinite and out-of-range times are not counted. Float64 is read as it
        is, float32 is widened (and has already lost the edges of a clock); integers need ``sfreq``.
    units : array or tensor of shape (n_spikes,), integer
        Unit id of each spike: its column, or its place in ``unit_map``. int32 and int64 are read as they are.
        None with ``train_ends``.
    bin_size : float, seconds
        Width of a bin. Not with ``edges``.
    duration : float, seconds, optional
        Length that is binned; the same as ``stop = start + duration``. If it is not a whole number of bins
        (to 1e-6), the last bin still has the full width and ends after ``stop``, so that no spike before
        ``stop`` is lost.
    start, stop : float, seconds
        Left edge of the first bin, and end. Without ``stop`` and ``duration``, the bins end with the last
        spike. With ``windows`` of shape (n,), both are relative to each window: ``start=-0.5, stop=1.5`` bins
        half a second before to one and a half after each event.
    n_units : int, optional
        Number of columns. A unit without spikes keeps its column of zeros. Default: highest id (or column of
        ``unit_map``) + 1.
    windows : array of shape (n,) or (n, 2), seconds (or integer samples if ``times`` are), optional
        Starts, or starts and stops of equal length, of windows to be binned each from its own start. They may
        overlap, be in any order, and lie partly or wholly outside the recording (zeros there).
    edges : array of shape (n_bins + 1,), seconds (or integer samples), optional
        Explicit edges, not decreasing. With ``edge_tolerance=0, closed_last=True`` the counts are those of
        ``numpy.histogram``, bit for bit.
    closed_last : bool, default False
        The last bin (of each window) also holds spikes on its right edge.
    unit_map : array of shape (n_ids,), integer, optional
        Column of each id, -1 to leave the unit out. Ids that share a column are summed (regions).
    sfreq : float, Hz, optional
        Sampling rate of integer ``times``. Bins are then exact: the first sample of bin ``k`` is ``ceil(k *
        bin_size * sfreq)`` after that of ``start``, in rational arithmetic. Float starts mean the first
        sample at or after them.
    train_ends : array of shape (n_trains,), integer, optional
        Instead of ``units``: ``times`` holds the train of one unit after that of the other, and the train of
        unit ``u`` ends before ``times[train_ends[u]]``, as in NWB's ``spike_times`` and
        ``spike_times_index``. The last end is the number of times. Trains that are each sorted, the usual
        case, are fast; others count the same.
    smoothing : {"gaussian", "exponential"}, optional
        Smooth the counts along the bins, as if they were 0 outside the bins asked for (the session, or each
        window by itself). "gaussian" is ``scipy.ndimage.gaussian_filter1d(counts, sigma, mode="constant")``,
        cut off at 4 sigma. "exponential" is causal: ``y[b] = a * y[b - 1] + (1 - a) * counts[b]`` with ``a =
        exp(-bin_size / tau)``. Needs equal bins and a float ``dtype``; computed in float32, and rounded once
        to float16 or bfloat16.
    smoothing_width : float, seconds
        Sigma of the Gaussian, or tau of the exponential. At most 2**18 bins.
    dtype : torch or numpy dtype or its name, default float32
        uint8, int16, uint16, int32, int64, float16, bfloat16, float32 or float64.
    edge_tolerance : float, seconds, default 1e-9
        A spike that close below an edge goes up. Times that had an event subtracted lose a few bits; this
        gives the right bin back. No part in integer times.
    strict : bool, default False
        Raise if a spike inside the bins has an id that is negative or beyond ``n_units`` (or ``unit_map``),
        which otherwise is not counted.
    overflow : {"raise", "saturate"}, default "raise"
        What to do with a count beyond the largest that ``dtype`` holds with all counts below it: 255 for
        uint8, 2048 for float16, 256 for bfloat16, 2**24 for float32 (with ``smoothing`` 2**24, and 65504 for
        float16). Counts never wrap.
    sorted : bool, optional
        Default: look. The counts are the same for every order. With ``windows``, True saves reading the whole
        recording in order to see that it is sorted; if it is false, counts may be too low (but nothing is
        read out of bounds).
    out : array or tensor of the result's shape and dtype, contiguous, optional
        Where to put the counts. Its contents are overwritten, also where an error is raised.
    return_dropped : bool, default False
        Also return how many spikes were not counted, whatever the reason; with ``windows``, how many inside a
        window had no column, once per window.
    backend : {"native", "triton", "reference"}, optional
        Default: the compiled kernel of the device that holds ``times``.

    Returns
    -------
    counts : array or tensor, like ``times``, of shape (n_bins, n_units) or (n_windows, n_bins, n_units)
        The same bits for every order of the spikes, number of threads, instruction set and device. Counts per
        bin also where they are smoothed: divide by ``bin_size`` for hertz.
    dropped : int (0-d int64 tensor if ``times`` is a tensor), only with ``return_dropped``

    Raises
    ------
    ValueError, TypeError
        If an argument is out of its range or kind, lengths differ, ``strict`` finds an unknown id, or a count
        does not fit, or the counts do not fit into free memory. On a CUDA device the values of
        ``windows``, ``edges``, ``unit_map`` and ``train_ends`` are not looked at, since that would wait for
        the device: a window that starts at NaN holds zeros there.

    Notes
    -----
    Under ``torch.compile(fullgraph=True)`` and to keep a GPU from waiting, give ``n_units`` and
    ``duration`` or ``stop``: their defaults depend on the data. There is no gradient; backward raises.

    Examples
    --------
    >>> import numpy as np
    >>> times = np.array([0.01, 0.02, 0.07, 0.10])
    >>> bin_spikes(times, np.array([0, 1, 0, 1]), 0.05, 0.15, dtype="uint8")
    array([[1, 1],
           [1, 0],
           [0, 1]], dtype=uint8)
    >>> bin_spikes(times, np.array([0, 1, 0, 1]), 0.05, 0.1, windows=[0.05, -0.05], dtype="uint8")
    array([[[1, 0],
            [0, 1]],
    <BLANKLINE>
           [[0, 0],
            [1, 1]]], dtype=uint8)

    Trains of an NWB file, of units 0, 1 and 2, as rates smoothed by a Gaussian of 50 ms
    (``units = nwb.units; units.spike_times.target.data[:], units.spike_times_index.data[:]`` with pynwb):

    >>> spike_times, spike_times_index = np.array([0.01, 0.07, 0.02, 0.11]), np.array([2, 2, 4])
    >>> rates = bin_spikes(spike_times, None, 0.05, 0.15, train_ends=spike_times_index,
    ...                    smoothing="gaussian", smoothing_width=0.05) / 0.05
    >>> rates.round(2)
    array([[12.82,  0.  ,  9.06],
           [12.82,  0.  ,  9.68],
           [ 5.92,  0.  ,  9.06]], dtype=float32)
    """
    check_choice("bin_spikes", "overflow", overflow, ("raise", "saturate"))
    sorted = None if sorted is None else check_flag("bin_spikes", "sorted", sorted)
    strict = check_flag("bin_spikes", "strict", strict)
    closed_last = check_flag("bin_spikes", "closed_last", closed_last)
    times = arrays.as_times(times)
    units, train_ends = arrays.as_units_or_trains(units, train_ends, times)
    if unit_map is not None:
        unit_map = arrays.as_unit_map(unit_map, times)
    if n_units is None:
        ids = units if unit_map is None else unit_map
        n_units = len(train_ends) if ids is None else _highest("n_units", ids) + 1
    n_units = check_integer("bin_spikes", "n_units", n_units)
    if not 0 <= n_units < 2**31 - 16:
        raise ValueError(f"bin_spikes: n_units must lie in 0 ... 2**31 - 17, got {n_units}")
    grid, starts, edges = _lay_grid(
        times, bin_size, duration, start, stop, windows, edges, sfreq, edge_tolerance, closed_last
    )
    spikes = Spikes(times, units, starts, edges, unit_map, train_ends)
    if out is not None:
        arrays.check_kind_of_out(out, times)
    if dtype is None:
        dtype = "float32" if out is None else out.dtype
    count_type = arrays.dtype_name(dtype)
    smoothing, width = check_smoothing(smoothing, smoothing_width, bin_size, count_type)
    rules = Rules(sorted, strict, overflow == "saturate", smoothing, width, backend)
    shape = (grid.n_bins, n_units) if starts is None else (len(starts), grid.n_bins, n_units)
    if out is None:
        arrays.check_room(shape, count_type, times)
    else:
        arrays.check_out(out, shape, count_type, spikes)
    counts, dropped = _dispatch(spikes, shape, count_type, grid, rules, out)
    return (counts, dropped) if return_dropped else counts


def _highest(name: str, ids: Any) -> int:
    arrays.check_has_values(name, ids)
    return max(int(ids.max()), -1) if len(ids) else -1


def _lay_grid(
    times: Any,
    bin_size: float | None,
    duration: float | None,
    start: float,
    stop: float | None,
    windows: Any,
    edges: Any,
    sfreq: float | None,
    edge_tolerance: float,
    closed_last: bool,
) -> tuple[Grid, Any, Any]:
    """Return the grid, and window starts and edges on the clock of ``times``."""
    rate = 0.0 if sfreq is None else check_positive("bin_spikes", "sfreq", sfreq)
    in_samples = arrays.is_integer(times)
    if rate and not in_samples:
        raise ValueError(
            f"bin_spikes: sfreq must be left out for times in seconds, got {sfreq} with {times.dtype} times"
        )
    start = check_finite("bin_spikes", "start", start)
    edge_tolerance = check_finite("bin_spikes", "edge_tolerance", edge_tolerance)
    if edge_tolerance < 0:
        raise ValueError(f"bin_spikes: edge_tolerance must not be negative, got {edge_tolerance}")
    if edges is not None:
        if bin_size is not None or duration is not None or stop is not None or windows is not None or start:
            raise ValueError(
                "bin_spikes: edges must come without bin_size, duration, start, stop and windows; "
                "they say where every bin lies"
            )
        edges = arrays.one_dimensional("edges", arrays.to_kind("edges", edges, times))
        if len(edges) < 2:
            raise ValueError(f"bin_spikes: edges must hold at least 2 times, got {len(edges)}")
        edges = arrays.on_clock("edges", edges, times, rate)
        return Grid(0.0, 0.0, len(edges) - 1, 0.0, edge_tolerance, closed_last), None, edges
    if bin_size is None:
        raise ValueError("bin_spikes: bin_size must be given, in seconds, or edges")
    bin_size = check_positive("bin_spikes", "bin_size", bin_size)
    if in_samples and not rate:
        raise ValueError(
            f"bin_spikes: sfreq must be given for integer times (samples), got {times.dtype} times "
            "without it; convert times to float64 if they are seconds"
        )
    duration = _duration(duration, start, stop)
    starts = None
    if windows is not None:
        starts, duration = arrays.as_windows(windows, times, start, rate, duration)
    grid = Grid(bin_size, start, 0, rate, edge_tolerance, closed_last)
    if duration is not None:
        n_bins = count_bins(duration, bin_size)
    else:
        arrays.check_has_values("stop", times)
        last = arrays.last_time(times)
        n_bins = 0 if last is None else max(bin_of_last(last, grid) + 1, 0)
    # Not grid._replace: torch 2.4 cannot trace it.
    return Grid(bin_size, start, n_bins, rate, edge_tolerance, closed_last), starts, None


def _duration(duration: float | None, start: float, stop: float | None) -> float | None:
    if duration is not None and stop is not None:
        raise ValueError(f"bin_spikes: give duration or stop, not both, got {duration} and {stop}")
    if stop is not None:
        duration = check_finite("bin_spikes", "stop", stop) - start
    if duration is None:
        return None
    duration = check_finite("bin_spikes", "duration", duration)
    if duration < 0:
        given = f"duration {duration}" if stop is None else f"start {start} and stop {stop}"
        raise ValueError(f"bin_spikes: the bins must not end before they start, got {given}")
    return duration


def _dispatch(
    spikes: Spikes,
    shape: tuple[int, ...],
    count_type: str,
    grid: Grid,
    rules: Rules,
    out: Any,
) -> tuple[Any, Any]:
    tensors = arrays.is_tensor(spikes.times)
    device = _library.device_type(spikes.times)
    by_reference = _library.choose_backend("bin_spikes", device, rules.backend) == "reference"
    if by_reference or not tensors:
        counts = arrays.allocate(shape, count_type, spikes.times) if out is None else out
        count = count_by_reference if by_reference else _kernel_for(spikes, rules)
        return counts, count(spikes, counts, count_type, shape[-1], grid, rules)
    if out is None:
        dtype = getattr(torch, count_type)
        return torch.ops.neurokern.bin_spikes(*spikes, *grid, shape[-1], *rules, dtype)
    return out, torch.ops.neurokern.bin_spikes_out(*spikes, *grid, shape[-1], *rules, out)


# ---- torch.ops.neurokern.bin_spikes and bin_spikes_out ----

_ARGUMENTS = (
    "Tensor times, Tensor? units, Tensor? starts, Tensor? edges, Tensor? unit_map, Tensor? train_ends, "
    "float bin_size, float start, SymInt n_bins, float sfreq, float edge_tolerance, bool closed_last, "
    "SymInt n_units, bool? sorted, bool strict, bool saturate, str? smoothing, float smoothing_width, "
    "str? backend"
)
_N_SPIKES, _N_GRID = len(Spikes._fields), len(Grid._fields)


def _unpack(arguments: tuple[Any, ...]) -> tuple[Spikes, Grid, int, Rules]:
    spikes = Spikes(*(a if a is None else a.detach().contiguous() for a in arguments[:_N_SPIKES]))
    grid = Grid(*arguments[_N_SPIKES : _N_SPIKES + _N_GRID])
    return spikes, grid, arguments[_N_SPIKES + _N_GRID], Rules(*arguments[_N_SPIKES + _N_GRID + 1 :])


def _shape(starts: Any, grid: Grid, n_units: int) -> tuple[int, ...]:
    return (grid.n_bins, n_units) if starts is None else (starts.shape[0], grid.n_bins, n_units)


def _kernel_for(spikes: Spikes, rules: Rules) -> Callable[..., Any]:
    """Return the kernel of the device and the backend asked for."""
    device = _library.device_type(spikes.times)
    if _library.choose_backend("bin_spikes", device, rules.backend) == "triton":
        return count_by_triton
    return count_on_gpu if _library.runs_on_gpu(spikes.times) else count_on_cpu


def _count_into(*arguments: Any) -> torch.Tensor:
    spikes, grid, n_units, rules = _unpack(arguments[:-1])
    out = arguments[-1]
    count_type = str(out.dtype).removeprefix("torch.")
    return torch.as_tensor(_kernel_for(spikes, rules)(spikes, out, count_type, n_units, grid, rules))


def _count(*arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
    spikes, grid, n_units, _ = _unpack(arguments[:-1])
    counts = arrays.allocate(_shape(spikes.starts, grid, n_units), arguments[-1], spikes.times)
    if counts.device.type == "cpu":
        _library.core.advise_huge_pages(counts.data_ptr(), counts.nbytes)
    return counts, _count_into(*arguments[:-1], counts)


def _fake(*arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
    spikes, grid, n_units, _ = _unpack(arguments[:-1])
    shape, device = _shape(spikes.starts, grid, n_units), spikes.times.device
    counts = torch.empty(shape, dtype=arguments[-1], device=device)
    return counts, torch.empty((), dtype=torch.int64, device=device)


def _fake_out(*arguments: Any) -> torch.Tensor:
    return torch.empty((), dtype=torch.int64, device=arguments[-1].device)


_library.register(
    f"bin_spikes({_ARGUMENTS}, ScalarType dtype) -> (Tensor, Tensor)",
    cpu=_count,
    cuda=_count,
    fake=_fake,
    backward=None,
)
_library.register(
    f"bin_spikes_out({_ARGUMENTS}, Tensor(a!) out) -> Tensor",
    cpu=_count_into,
    cuda=_count_into,
    fake=_fake_out,
    backward=None,
)
