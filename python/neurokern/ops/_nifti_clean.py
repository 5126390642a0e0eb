"""Drifts and confounds of a run, as one orthonormal basis, and their removal from every voxel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurokern._check import check_positive
from neurokern.ops import _library
from neurokern.ops._nifti_reference import clean_reference

_RANK = 1e-7  # singular values below this share of the largest are rounding


def check_cleaning(
    function: str,
    detrend: object,
    standardize: object,
    high_pass: object,
    low_pass: object = None,
    standardize_name: str = "standardize",
) -> None:
    """Raise unless the options of cleaning are such and fit together."""
    if not (isinstance(detrend, (bool, np.bool_)) or detrend in ("linear", "cosine")):
        raise ValueError(f"{function}: detrend must be a bool, 'linear' or 'cosine', got {detrend!r}")
    if not isinstance(standardize, (bool, np.bool_)):
        raise TypeError(f"{function}: {standardize_name} must be True or False, got {standardize!r}")
    if (detrend == "cosine") != (high_pass is not None):
        raise ValueError(
            f"{function}: high_pass must be given, in Hz, with detrend='cosine' and only with it, got "
            f"{high_pass} with detrend={detrend!r}"
        )
    for name, value in (("high_pass", high_pass), ("low_pass", low_pass)):
        if value is not None:
            check_positive(function, name, value)  # type: ignore[arg-type]
    if high_pass is not None and low_pass is not None and not low_pass > high_pass:  # type: ignore[operator]
        raise ValueError(
            f"{function}: low_pass must be above high_pass (both in Hz), got {low_pass} and {high_pass}"
        )


def make_basis(
    n_volumes: int,
    detrend: bool | str,
    confounds: Any,
    standardize: bool,
    high_pass: float | None,
    tr: float | None,
    *,
    low_pass: float | None = None,
    fitted: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64] | None:
    """Return rows (k, trs) that span what is to be removed, constant first; None for nothing.

    ``confounds`` are (trs, k), checked. The rows are orthonormal over the volumes that are ``fitted`` (trs,),
    all by default. Directions that are sums of others are left out.
    """
    if not (detrend or standardize or confounds is not None or low_pass is not None):
        return None
    matrix = _design(n_volumes, detrend, confounds, high_pass, low_pass, tr)
    fitted = np.ones(n_volumes, dtype=bool) if fitted is None else fitted
    n_fitted = int(fitted.sum())
    # Without the constant first: confounds of large mean would hide among their own rounding.
    rest = matrix - matrix[fitted].mean(axis=0)
    length = np.linalg.norm(rest[fitted], axis=0)
    varies = length > _RANK * np.abs(matrix[fitted]).max(axis=0, initial=0)
    rest = rest[:, varies] / length[varies]
    if rest.shape[1]:
        directions, strength, mixing = np.linalg.svd(rest[fitted], full_matrices=False)
        rank = int((strength > _RANK * strength[0]).sum())
        # The other volumes follow by the same mixture of columns.
        others = rest @ (mixing[:rank].T / strength[:rank])
        others[fitted] = directions[:, :rank]
        rest = others
    asked = confounds is not None or detrend == "cosine" or low_pass is not None
    if asked and rest.shape[1] >= n_fitted - 1 > 0:
        raise ValueError(
            f"decode_nifti: confounds and trends must leave something of {n_fitted} volumes, together they "
            f"span {rest.shape[1] + 1} dimensions; give fewer, or clean a longer window"
        )
    constant = np.full((n_volumes, 1), 1 / np.sqrt(n_fitted))
    return np.ascontiguousarray(np.hstack([constant, rest]).T)


def _design(
    n_volumes: int,
    detrend: bool | str,
    confounds: Any,
    high_pass: float | None,
    low_pass: float | None,
    tr: float | None,
) -> NDArray[np.float64]:
    """Return what is to be removed beside the mean, as columns (trs, k)."""
    time = np.arange(n_volumes)
    columns = []
    if detrend in (True, "linear"):
        columns.append(time - time.mean())
    # As SPM: the k-th cosine has k half periods in the run, so k / (2 * trs * tr) Hz.
    half_periods = np.arange(1, n_volumes)
    removed = np.zeros(len(half_periods), dtype=bool)
    if detrend == "cosine":
        assert high_pass is not None
        assert tr is not None
        removed |= half_periods <= np.floor(2 * n_volumes * tr * high_pass)
    if low_pass is not None:
        assert tr is not None
        if low_pass >= 0.5 / tr:
            raise ValueError(
                f"decode_nifti: low_pass must lie below {0.5 / tr:g} Hz, which volumes {tr:g} s apart can "
                f"hold, got {low_pass:g} Hz"
            )
        removed |= half_periods > np.floor(2 * n_volumes * tr * low_pass)
    columns += [np.cos(np.pi * (time + 0.5) * k / n_volumes) for k in half_periods[removed]]
    if confounds is not None:
        columns += list(np.asarray(confounds, dtype=np.float64).T)
    return np.column_stack(columns) if columns else np.empty((n_volumes, 0))


def check_confounds(confounds: Any, start: int, stop: int, n_volumes: int) -> NDArray[np.float64] | None:
    """Return the confounds' rows of the window, or raise."""
    if confounds is None:
        return None
    values = np.asarray(confounds, dtype=np.float64)
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2 or values.shape[0] not in (n_volumes, stop - start):
        raise ValueError(
            f"decode_nifti: confounds must have the shape ({n_volumes}, n), a row for each volume, got "
            f"{values.shape}"
        )
    values = values[start:stop] if values.shape[0] == n_volumes else values
    if not np.isfinite(values).all():
        bad = np.flatnonzero(~np.isfinite(values).all(axis=0)).tolist()
        raise ValueError(
            f"decode_nifti: confounds must be finite, got NaN or infinity in columns {bad}; derivatives have "
            "no first row: fill it, with 0 for instance"
        )
    return values


def check_fitted(function: str, fitted: Any, n_volumes: int) -> NDArray[np.bool_] | None:
    """Return the volumes that cleaning is fitted on, or raise; None for all."""
    if fitted is None:
        return None
    values = np.asarray(fitted)
    if values.shape != (n_volumes,) or values.dtype != bool:
        raise ValueError(
            f"{function}: fitted must be a bool for each of {n_volumes} volumes, got {values.dtype} of shape "
            f"{values.shape}"
        )
    if values.sum() < 2:
        raise ValueError(f"{function}: fitted must choose at least 2 volumes, got {int(values.sum())}")
    return None if values.all() else values


def clean_rows(rows: Any, basis: NDArray[np.float64], standardize: bool) -> None:
    """Remove the basis from float32 rows (trs, n) in place; bring what is left to variance 1 if asked."""
    basis = np.ascontiguousarray(basis, dtype=np.float32)
    is_array = isinstance(rows, np.ndarray)
    _library.core.clean_columns(
        values=rows.ctypes.data if is_array else rows.data_ptr(),
        basis=basis.ctypes.data,
        n_rows=rows.shape[0],
        n_columns=rows.shape[1],
        stride=rows.strides[0] // rows.itemsize if is_array else rows.stride(0),
        n_basis=len(basis),
        standardize=standardize,
        n_threads=_library.thread_count(),
    )


def clean_on_gpu(values: Any, basis: Any, standardize: bool) -> None:
    """Clean contiguous float32 tensors on a GPU as :func:`clean_rows` does, with its bits in our kernels."""
    backend = _library.choose_backend("decode_nifti", _library.device_type(values), None)
    if backend == "reference":
        clean_reference(values, basis, standardize)
        return
    if backend == "triton":
        _library.triton_kernels("decode_nifti").clean(values, basis, standardize)
        return
    with _library.gpu_module(values) as (module, stream):
        module.clean_columns(
            values=_library.address(values),
            basis=_library.address(basis),
            n_rows=values.shape[0],
            n_columns=values.shape[1],
            stride=values.shape[1],
            n_basis=len(basis),
            standardize=standardize,
            stream=stream,
        )
