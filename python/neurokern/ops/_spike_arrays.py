"""What a caller may pass to :func:`neurokern.ops.bin_spikes`, made into arrays that kernels can read."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from neurokern._check import check_memory
from neurokern.ops import _library
from neurokern.ops._spike_grid import COUNT_BYTES, COUNT_TYPES, WHOLE_BINS, first_sample

torch = _library.torch
EQUAL_LENGTHS = 1e-6  # s: windows whose lengths differ by less are of one length


_NUMBERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
_NUMPY_NAMES = {np.dtype(name): name for name in (*_NUMBERS, "float16", "float32", "float64")}


def is_tensor(value: Any) -> bool:
    return torch is not None and isinstance(value, torch.Tensor)


def to_kind(name: str, value: Any, like: Any) -> Any:
    """Return ``value`` as an array of the kind of ``like``; lists and numpy arrays go to its device."""
    if not is_tensor(like):
        if is_tensor(value):
            raise TypeError(
                f"bin_spikes: {name} must be a numpy array like times, got a tensor; pass tensors for both"
            )
        return as_array(name, value)
    if not is_tensor(value):
        # By way of numpy, since torch reads a list of floats as float32.
        array = as_array(name, value)
        if array.dtype.kind not in "biuf":
            raise TypeError(f"bin_spikes: {name} must be numbers, got {array.dtype}")
        return torch.as_tensor(array if array.flags.writeable else array.copy(), device=like.device)
    if value.device != like.device:
        raise ValueError(
            f"bin_spikes: {name} must be on the device of times, {like.device}, got {value.device}"
        )
    return check_strided(name, value)


def as_array(name: str, value: Any) -> np.ndarray:
    """Return a list, numpy array or pandas column as a numpy array in the byte order of this machine."""
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):
        raise TypeError(f"bin_spikes: {name} must be an array of numbers, got {value!r}") from None
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise TypeError(
            f"bin_spikes: {name} must not be a masked array, whose mask would be ignored; take what is valid "
            "of times and units alike"
        )
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def check_strided(name: str, tensor: Any) -> Any:
    if tensor.layout != torch.strided:
        raise TypeError(f"bin_spikes: {name} must be a dense tensor, got {tensor.layout}; use .to_dense()")
    return tensor


def _name_of(dtype: Any) -> str:
    """Name of a numpy or torch dtype. By table, since numpy takes 2 microseconds to spell one."""
    if isinstance(dtype, np.dtype):
        return _NUMPY_NAMES.get(dtype) or str(dtype)
    return str(dtype).removeprefix("torch.")


def is_integer(array: Any) -> bool:
    if is_tensor(array):
        return not (array.dtype.is_floating_point or array.dtype.is_complex or array.dtype == torch.bool)
    return array.dtype.kind in "iu"


def is_float(array: Any) -> bool:
    return array.dtype.is_floating_point if is_tensor(array) else array.dtype.kind == "f"


def convert(array: Any, dtype: str) -> Any:
    """Contiguous, aligned and of this dtype; the array itself if it is so already."""
    if is_tensor(array):
        return array.to(getattr(torch, dtype)).contiguous()
    array = np.ascontiguousarray(array, dtype=np.dtype(dtype))
    return array if array.flags.aligned else array.copy()  # views into a file's bytes may not be


def to_int64(name: str, array: Any) -> Any:
    """As :func:`convert`; numbers of uint64 that int64 cannot hold are an error, since they would wrap."""
    converted = convert(array, "int64")
    wide = _name_of(array.dtype) == "uint64"
    if wide and len(converted) and not _values_unknown(converted) and int(converted.min()) < 0:
        raise ValueError(f"bin_spikes: {name} must be below 2**63, got larger numbers of dtype uint64")
    return converted


def _values_unknown(array: Any) -> bool:
    """Whether looking at values is impossible (shapes alone, tracing) or would wait for a GPU."""
    return is_tensor(array) and (torch.compiler.is_compiling() or array.device.type != "cpu")


def check_has_values(name: str, array: Any) -> None:
    """Raise where a default for ``name`` would have to be read off a tensor that is only a shape."""
    if is_tensor(array) and array.is_meta:
        raise ValueError(
            f"bin_spikes: {name} must be given for tensors on the meta device; they hold no data"
        )


def one_dimensional(name: str, array: Any) -> Any:
    if array.ndim != 1:
        raise ValueError(f"bin_spikes: {name} must have one dimension, got shape {tuple(array.shape)}")
    return array


def as_times(times: Any) -> Any:
    checked = check_strided("times", times) if is_tensor(times) else as_array("times", times)
    array = one_dimensional("times", checked)
    if is_integer(array):
        return to_int64("times", array)
    if is_float(array) or len(array) == 0:
        return convert(array, "float64")
    raise TypeError(
        f"bin_spikes: times must be seconds (float) or samples (integer with sfreq), got {array.dtype}"
    )


def as_units(units: Any, times: Any) -> Any:
    array = one_dimensional("units", to_kind("units", units, times))
    if len(array) != len(times):
        raise ValueError(
            f"bin_spikes: times and units must have the same length, got {len(times)} and {len(array)}"
        )
    if len(array) == 0:
        return convert(array, "int64")
    if not is_integer(array):
        raise TypeError(f"bin_spikes: units must be integer ids, got {array.dtype}; cast them, e.g. to int64")
    small = _name_of(array.dtype) in ("int8", "uint8", "int16", "uint16", "int32")
    return convert(array, "int32") if small else to_int64("units", array)


def as_units_or_trains(units: Any, train_ends: Any, times: Any) -> tuple[Any, Any]:
    """Return units and train_ends, one of which is None."""
    if (units is None) == (train_ends is None):
        given = "neither" if units is None else "both"
        raise ValueError(f"bin_spikes: units or train_ends must be given, got {given}; pass one of them")
    if train_ends is None:
        return as_units(units, times), None
    array = one_dimensional("train_ends", to_kind("train_ends", train_ends, times))
    if len(array) and not is_integer(array):
        raise TypeError(f"bin_spikes: train_ends must be integers, got {array.dtype}")
    if len(array) == 0 and len(times):
        raise ValueError(
            f"bin_spikes: train_ends must end with the number of times, got none and {len(times)} times"
        )
    return None, to_int64("train_ends", array)


def as_unit_map(unit_map: Any, times: Any) -> Any:
    array = one_dimensional("unit_map", to_kind("unit_map", unit_map, times))
    if len(array) and not is_integer(array):
        raise TypeError(f"bin_spikes: unit_map must hold integer columns, got {array.dtype}")
    return to_int64("unit_map", array)


def on_clock(name: str, values: Any, times: Any, sfreq: float) -> Any:
    """Edges or window starts on the clock of ``times``: seconds, or samples."""
    if not (is_integer(values) or is_float(values)):
        raise TypeError(f"bin_spikes: {name} must be numbers, got {values.dtype}")
    if not is_integer(times):
        return convert(values, "float64")
    if is_integer(values):
        return to_int64(name, values)
    if not sfreq:
        raise ValueError(f"bin_spikes: {name} must be integer samples like times, got seconds; or pass sfreq")
    samples = convert(values, "float64") * sfreq - WHOLE_BINS
    if is_tensor(samples):
        return samples.ceil().to(torch.int64)
    with np.errstate(invalid="ignore"):  # NaN is found, and named, later
        return np.ceil(samples).astype(np.int64)


def as_windows(
    windows: Any, times: Any, start: float, sfreq: float, duration: float | None
) -> tuple[Any, float]:
    """Return the windows' starts on the clock of ``times``, and their length in seconds."""
    array = to_kind("windows", windows, times)
    if not (is_integer(array) or is_float(array)):
        raise TypeError(f"bin_spikes: windows must be numbers, got {array.dtype}")
    if array.ndim == 2 and array.shape[1] == 2:
        if start:
            raise ValueError(
                f"bin_spikes: start must be left out when windows are (n, 2) starts and stops, got {start}"
            )
        duration = _length(array, sfreq if is_integer(array) and is_integer(times) else 1.0, duration)
        array = array[:, 0]
    elif array.ndim != 1:
        raise ValueError(f"bin_spikes: windows must have shape (n,) or (n, 2), got {tuple(array.shape)}")
    if duration is None:
        raise ValueError(
            "bin_spikes: windows of shape (n,) need duration, or start and stop around each of them"
        )
    starts = on_clock("windows", array, times, sfreq)
    if start:
        starts = starts + (first_sample(start, sfreq) if is_integer(times) else start)
    return starts, duration


def _length(windows: Any, ticks_per_second: float, duration: float | None) -> float:
    """The one length of (n, 2) windows in seconds. Given ``duration``, tensors are not looked at."""
    if duration is not None and is_tensor(windows):
        return duration
    if len(windows) == 0:
        return 0.0 if duration is None else duration
    lengths = convert(windows[:, 1] - windows[:, 0], "float64") / ticks_per_second
    shortest, longest = float(lengths.min()), float(lengths.max())
    first = float(lengths[0]) if duration is None else duration
    if not (math.isfinite(shortest) and math.isfinite(longest)):
        raise ValueError(
            "bin_spikes: windows must be finite, got NaN or infinity; leave out trials without this event"
        )
    if longest - first > EQUAL_LENGTHS or first - shortest > EQUAL_LENGTHS:
        raise ValueError(
            f"bin_spikes: windows must be of one length, got {shortest} to {longest} s; "
            "pass starts and a duration, or bin each length apart"
        )
    if shortest < 0:
        raise ValueError(f"bin_spikes: windows must stop after they start, got a length of {shortest} s")
    return first


def last_time(times: Any) -> float | int | None:
    """Latest finite time, or None."""
    if not is_integer(times):
        times = times[torch.isfinite(times) if is_tensor(times) else np.isfinite(times)]
    return times.max().item() if len(times) else None


def check_kind_of_out(out: Any, times: Any) -> None:
    if is_tensor(out) != is_tensor(times) or not (is_tensor(out) or isinstance(out, np.ndarray)):
        raise TypeError(f"bin_spikes: out must be of the kind of times, got {type(out).__name__}")


def dtype_name(dtype: Any) -> str:
    """Name of a torch or numpy dtype, checked to be one that counts come in."""
    name = _NUMPY_NAMES.get(dtype) if isinstance(dtype, np.dtype) else None
    if is_torch_dtype(dtype) or isinstance(dtype, str):
        name = _name_of(dtype)
    if name is None:
        try:
            name = np.dtype(dtype).name
        except TypeError:
            name = str(dtype)
    if name not in COUNT_TYPES:
        raise TypeError(f"bin_spikes: dtype must be one of {', '.join(COUNT_TYPES)}, got {dtype!r}")
    return name


def is_torch_dtype(dtype: Any) -> bool:
    return torch is not None and isinstance(dtype, torch.dtype)


def allocate(shape: tuple[int, ...], count_type: Any, like: Any) -> Any:
    if count_type == "bfloat16" and not is_tensor(like):
        raise TypeError("bin_spikes: numpy has no bfloat16; pass tensors, or another dtype")
    return _library.new_array(like, shape, count_type)


def check_room(shape: tuple[int, ...], count_type: str, like: Any) -> None:
    """Raise if counts of this shape fit into no memory; of a GPU's, its allocator knows."""
    if is_tensor(like) and (torch.compiler.is_compiling() or like.device.type != "cpu"):
        return
    check_memory(
        "bin_spikes",
        f"counts of shape {shape} and dtype {count_type}",
        math.prod(shape) * COUNT_BYTES[count_type],
        "use wider bins, a shorter duration, fewer units or windows, or a narrower dtype",
    )


def check_out(out: Any, shape: tuple[int, ...], count_type: str, inputs: tuple[Any, ...]) -> None:
    """Raise unless ``out`` can take the counts."""
    times = inputs[0]
    if is_tensor(out) and out.device != times.device:
        raise ValueError(f"bin_spikes: out must be on the device of times, {times.device}, got {out.device}")
    if tuple(out.shape) != shape:
        raise ValueError(f"bin_spikes: out must have shape {shape}, got {tuple(out.shape)}")
    if _name_of(out.dtype) != count_type:
        raise ValueError(f"bin_spikes: out must have dtype {count_type}, got {out.dtype}")
    if not (out.is_contiguous() if is_tensor(out) else out.flags.carray):
        raise ValueError(
            "bin_spikes: out must be contiguous, aligned and writable; pass a fresh array and copy"
        )
    if is_tensor(out) and (out.requires_grad or times.requires_grad):
        raise ValueError("bin_spikes: out cannot take part in a gradient; detach times and out")
    if is_tensor(out) and torch.compiler.is_compiling():
        return
    if any(array is not None and _overlap(out, array) for array in inputs):
        raise ValueError("bin_spikes: out must not share memory with an input; pass a fresh array")


def _overlap(a: Any, b: Any) -> bool:
    if not is_tensor(a):
        return bool(np.may_share_memory(a, b))
    first_a, first_b = a.data_ptr(), b.data_ptr()
    return bool(
        first_a < first_b + b.numel() * b.element_size() and first_b < first_a + a.numel() * a.element_size()
    )
