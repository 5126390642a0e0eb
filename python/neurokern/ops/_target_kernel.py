"""The packed index of a target mask: one call for arrays, one registered op for tensors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neurokern.ops import _library
from neurokern.ops._library import torch

if TYPE_CHECKING:
    from torch import Tensor

    from neurokern.ops._types import Array


def pack_targets(target_mask: Array, max_targets: int | None, backend: str | None) -> tuple[Any, Any]:
    """Return ``(index, cu_seqlens)`` as ``MaskedBatch`` documents them; the mask is 3-D and contiguous."""
    if isinstance(target_mask, np.ndarray):
        return _pack_array(target_mask, max_targets, backend)
    index, cu_seqlens = torch.ops.neurokern.pack_targets(target_mask, max_targets, backend)
    return index, cu_seqlens


def _pack_array(
    target_mask: NDArray[np.bool_], max_targets: int | None, backend: str | None
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    chosen = _library.choose_backend("mask_regions", "cpu", backend)
    if chosen == "reference":
        return _reference_array(target_mask, max_targets)
    if chosen == "triton":
        index, cu_seqlens = _pack_by_triton(_library.as_tensor(target_mask), max_targets)
        return index.numpy(), cu_seqlens.numpy()
    return _pack_native(target_mask, max_targets)


def _pack_by_triton(target_mask: Tensor, max_targets: int | None) -> tuple[Tensor, Tensor]:
    index, cu_seqlens = _library.triton_kernels("gather_regions").pack_targets(target_mask, max_targets)
    return index, cu_seqlens


def _pack_native(target_mask: Any, max_targets: int | None) -> tuple[Any, Any]:
    """Count, then write; between the two the host learns the size, unless ``max_targets`` gives it."""
    n_samples, n_bins, n_units = target_mask.shape
    cu_seqlens = _library.new_array(target_mask, (n_samples + 1,), "int32")
    arguments = {
        "target_mask": _library.address(target_mask),
        "cu_seqlens": _library.address(cu_seqlens),
        "chunk_starts": 0,
        "index": 0,
        "n_samples": n_samples,
        "sample_cells": n_bins * n_units,
        "capacity": 0,
    }
    with _packer(target_mask) as (module, stream_or_threads, n_chunks):
        chunk_starts = _library.new_array(target_mask, (n_chunks,), "int32")
        arguments["chunk_starts"] = _library.address(chunk_starts)
        module.count_targets(arguments, stream_or_threads)
        size = int(cu_seqlens[-1]) if max_targets is None else max_targets
        index = _library.new_array(target_mask, (size,), "int64")
        arguments |= {"index": _library.address(index), "capacity": size}
        module.write_targets(arguments, stream_or_threads)
    return index, cu_seqlens


@contextlib.contextmanager
def _packer(target_mask: Any) -> Iterator[tuple[Any, int, int]]:
    """Give the module of the device, its stream or number of threads, and the scratch that it wants."""
    if not _library.runs_on_gpu(target_mask):
        yield _library.core, _library.thread_count(), 0
        return
    n_samples, n_bins, n_units = target_mask.shape
    with _library.gpu_module(target_mask) as (module, stream):
        yield module, stream, module.target_chunks(n_samples, n_bins * n_units)


def _reference_array(
    target_mask: NDArray[np.bool_], max_targets: int | None
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    counts = np.count_nonzero(target_mask, axis=(1, 2))
    cu_seqlens = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    index = np.flatnonzero(target_mask)
    if max_targets is not None:
        cut = index[:max_targets]
        index = np.full(max_targets, -1, dtype=np.int64)
        index[: len(cut)] = cut
    return index, cu_seqlens


def _reference(target_mask: Tensor, max_targets: int | None) -> tuple[Tensor, Tensor]:
    """Without capacity as ``nonzero``, which waits for a GPU; with it by torch ops that do not."""
    flat = target_mask.flatten()
    counts = target_mask.sum((1, 2), dtype=torch.int32)
    cu_seqlens = torch.nn.functional.pad(counts.cumsum(0, dtype=torch.int32), (1, 0))
    if max_targets is None:
        return flat.nonzero().squeeze(1), cu_seqlens
    return positions_of(flat, max_targets), cu_seqlens


def positions_of(chosen: Tensor, capacity: int) -> Tensor:
    """Return the positions of the first ``capacity`` true entries, -1 beyond their number; never waits."""
    numbers = torch.arange(1, capacity + 1, dtype=torch.int64, device=chosen.device)
    at = torch.searchsorted(chosen.cumsum(0), numbers)
    return at.masked_fill_(at == chosen.shape[0], -1)


def _pack(target_mask: Tensor, max_targets: int | None, backend: str | None) -> tuple[Tensor, Tensor]:
    chosen = _library.choose_backend("mask_regions", target_mask.device.type, backend)
    if chosen == "triton":
        return _pack_by_triton(target_mask, max_targets)
    if chosen == "reference":
        return _reference(target_mask, max_targets)
    return _pack_native(target_mask, max_targets)


def _fake(target_mask: Tensor, max_targets: int | None, backend: str | None) -> tuple[Tensor, Tensor]:
    size = torch.library.get_ctx().new_dynamic_size() if max_targets is None else max_targets
    index = torch.empty(size, dtype=torch.int64, device=target_mask.device)
    return index, torch.empty(target_mask.shape[0] + 1, dtype=torch.int32, device=target_mask.device)


_library.register(
    "pack_targets(Tensor target_mask, SymInt? max_targets, str? backend) -> (Tensor, Tensor)",
    cpu=_pack,
    cuda=_pack,
    fake=_fake,
    backward=None,
)
