"""Sums of squares and products of predictions over samples, which scores are made of, in one pass.

Predictions of a target for many penalties are combinations of a few parts. The native op combines them tile
by tile in cache and keeps their sums alone; no array of predictions for all penalties is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from neurokern.ops import _library
from neurokern.ops._library import torch

if TYPE_CHECKING:
    from torch import Tensor

_FUNCTION = "ridge_sums"


def ridge_sums(
    parts: Any,
    mix: Any = None,
    truth: Any = None,
    *,
    scale: Any = None,
    ones: Any = None,
    pairs: bool = False,
    residuals: bool = False,
    backend: str | None = None,
) -> Any:
    r"""Sum over samples what :math:`g_m = \sum_c mix_{cm} parts_c` is worth as a prediction.

    Parameters
    ----------
    parts : (targets, parts, samples), float32 or float64
    mix : (parts, penalties), optional
        Without it the parts are the combinations.
    truth : (targets, samples), optional
    scale : (penalties, samples), optional
        What a difference is multiplied by.
    ones : (samples,), optional
        Weights of the plain sum of predictions.
    pairs : bool, default False
        Sum products of combinations instead of squared errors; ``scale`` and ``ones`` have no part in it.
    residuals : bool, default False
        The combinations are differences (prediction less truth) already.
    backend : {None, "native", "reference"}

    Returns
    -------
    sums : float64
        ``(targets, penalties)``: squared differences. With ``ones`` ``(targets, 4, penalties)``: squared
        differences, and with the prediction g = truth + difference, g times ones, squares of g, g times the
        truth. With ``pairs`` ``(targets, v (v + 1) / 2)``: products of all pairs of the v combinations, and
        of the truth behind them if it is given, by rows of the lower triangle.
    """
    call = _sum if isinstance(parts, np.ndarray) else torch.ops.neurokern.ridge_sums
    return call(parts, mix, truth, scale, ones, pairs, residuals, backend)


def ridge_combinations(parts: Any, mix: Any, *, backend: str | None = None) -> Any:
    """Combinations (targets, penalties, samples) of parts as in :func:`ridge_sums`, in their type."""
    call = _combine if isinstance(parts, np.ndarray) else torch.ops.neurokern.ridge_combinations
    return call(parts, mix, backend)


def _shape(parts: Any, mix: Any, truth: Any, ones: Any, pairs: bool) -> tuple[int, ...]:
    n_targets, n_penalties = parts.shape[0], parts.shape[1] if mix is None else mix.shape[1]
    if pairs:
        n_vectors = n_penalties + (truth is not None)
        return n_targets, n_vectors * (n_vectors + 1) // 2
    return (n_targets, n_penalties) if ones is None else (n_targets, 4, n_penalties)


def _sum(
    parts: Any, mix: Any, truth: Any, scale: Any, ones: Any, pairs: bool, residuals: bool, backend: str | None
) -> Any:
    n_sums = _shape(parts, mix, truth, ones, pairs)
    n_vectors = (parts if mix is None else mix).shape[1] + (truth is not None)
    if not _uses_kernel(parts, n_vectors if pairs else 0, backend):
        return _by_reference(parts, mix, truth, scale, ones, pairs, residuals)
    sums = _library.new_array(parts, n_sums, "float64")
    arrays = {"parts": parts, "mix": mix, "truth": truth, "scale": scale, "ones": ones}
    _call(arrays, {"sums": sums}, pairs=pairs, residuals=residuals)
    return sums


def _combine(parts: Any, mix: Any, backend: str | None) -> Any:
    if not _uses_kernel(parts, 0, backend):
        xp: Any = np if isinstance(parts, np.ndarray) else torch
        return xp.einsum("tcr,cm->tmr", parts, mix)
    made = _library.new_array(parts, (parts.shape[0], mix.shape[1], parts.shape[2]), parts.dtype)
    _call({"parts": parts, "mix": mix}, {"combinations": made})
    return made


def _call(arrays: dict[str, Any], out: dict[str, Any], **flags: bool) -> None:
    """Run the kernel; the caller keeps the arrays alive."""
    parts, mix = arrays["parts"], arrays["mix"]
    ready = {name: None if array is None else _ready(array, parts) for name, array in arrays.items()}
    unused = dict.fromkeys(("truth", "scale", "ones", "sums", "combinations"), 0)
    arguments = unused | {name: _library.address(array) for name, array in (ready | out).items()}
    arguments |= {"pairs": False, "residuals": False} | flags
    arguments |= {
        "n_targets": parts.shape[0],
        "n_parts": parts.shape[1],
        "n_samples": parts.shape[2],
        "n_penalties": (parts if mix is None else mix).shape[1],
        "double_precision": str(parts.dtype).endswith("float64"),
    }
    if not _library.runs_on_gpu(parts):
        _library.core.ridge_sums(arguments, _library.thread_count())
        return
    with _library.gpu_module(parts) as (module, stream):
        module.ridge_sums(arguments, stream)


def _ready(array: Any, like: Any) -> Any:
    if isinstance(array, np.ndarray):
        return np.ascontiguousarray(array, like.dtype)
    return array.detach().to(like.dtype).contiguous()


def _uses_kernel(parts: Any, n_together: int, backend: str | None) -> bool:
    """Whether the native kernel runs; on a GPU it keeps ``n_together`` combinations in shared memory."""
    chosen = _library.choose_backend(_FUNCTION, _library.device_type(parts), backend)
    if backend == "triton":
        raise ValueError(f"{_FUNCTION}: no Triton kernel; backend must be None, 'native' or 'reference'")
    fits = not _library.runs_on_gpu(parts) or n_together <= _library.core.max_cuda_ridge_pairs
    return chosen == "native" and parts.shape[2] > 0 and fits


def _by_reference(
    parts: Any, mix: Any, truth: Any, scale: Any, ones: Any, pairs: bool, residuals: bool
) -> Any:
    """The same sums in float64 throughout."""
    xp: Any = np if isinstance(parts, np.ndarray) else torch
    parts, mix, truth, scale, ones = (_wide(array) for array in (parts, mix, truth, scale, ones))
    made = parts if mix is None else xp.einsum("tcr,cm->tmr", parts, mix)
    if pairs:
        rows = made if truth is None else xp.concatenate([made, truth[:, None, :]], 1)
        first, second = np.tril_indices(rows.shape[1])
        return xp.einsum("tir,tjr->tij", rows, rows)[:, first, second]
    missed = made if residuals or truth is None else made - truth[:, None, :]
    missed = missed if scale is None else missed * scale
    errors = (missed**2).sum(-1)
    if ones is None:
        return errors
    guess = missed if truth is None else truth[:, None, :] + missed
    of_truth = 0 * errors if truth is None else (guess * truth[:, None, :]).sum(-1)
    return xp.stack([errors, guess @ ones, (guess**2).sum(-1), of_truth], 1)


def _wide(array: Any) -> Any:
    if array is None:
        return None
    return array.astype(np.float64) if isinstance(array, np.ndarray) else array.detach().double()


def _fake(
    parts: Tensor,
    mix: Tensor | None,
    truth: Tensor | None,
    scale: Tensor | None,
    ones: Tensor | None,
    pairs: bool,
    residuals: bool,
    backend: str | None,
) -> Tensor:
    return parts.new_empty(_shape(parts, mix, truth, ones, pairs), dtype=torch.float64)


_library.register(
    "ridge_sums(Tensor parts, Tensor? mix, Tensor? truth, Tensor? scale, Tensor? ones, bool pairs, "
    "bool residuals, str? backend) -> Tensor",
    cpu=_sum,
    cuda=_sum,
    fake=_fake,
    backward=None,
)
_library.register(
    "ridge_combinations(Tensor parts, Tensor mix, str? backend) -> Tensor",
    cpu=_combine,
    cuda=_combine,
    fake=lambda parts, mix, backend: parts.new_empty((parts.shape[0], mix.shape[1], parts.shape[2])),
    backward=None,
)
