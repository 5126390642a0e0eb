"""Spreading the trunk over processes (FSDP2), and whole tensors from what is spread."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from neurokern.models import MtM

_NEEDED = "strategy 'shard' needs torch.distributed.fsdp.fully_shard (torch 2.7 or later)"


def is_sharded(tensor: Tensor) -> bool:
    """Return whether a tensor is spread over processes."""
    return hasattr(tensor, "full_tensor")


def whole(tensor: Tensor) -> Tensor:
    """Return the whole of a tensor; where it is spread, all processes must call this together."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def local_part(tensor: Tensor) -> Tensor:
    """Return what this process holds of a tensor, without a copy."""
    return tensor.to_local() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


@torch.no_grad()
def copy_whole(target: Tensor, source: Tensor) -> None:
    """Fill a tensor from a whole one, the same in all processes."""
    if is_sharded(target):
        from torch.distributed.tensor import distribute_tensor

        mesh, placements = target.device_mesh, target.placements  # type: ignore[attr-defined]
        source = distribute_tensor(source.to(target.device, target.dtype), mesh, placements)
    target.copy_(source)


def shard_trunk(model: MtM, device: torch.device, n_processes: int) -> MtM:
    """Return a copy of a model whose trunk is spread over all processes; the parts of sessions stay whole.

    The model itself moves to the CPU, to make room on a GPU.

    Each process trains on sessions of its own, and a layer that is spread must be run by all at once: what
    belongs to a session is therefore held by everyone, and its gradients are added up.
    """
    try:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
    except ImportError:
        raise ImportError(f"Trainer: {_NEEDED}, this is torch {torch.__version__}") from None
    network = copy.deepcopy(model)
    model.cpu()
    mesh = init_device_mesh(device.type, (n_processes,))  # by default, of a GPU wherever there is one
    for layer in network.layers:
        fully_shard(layer, mesh=mesh)
    in_layers = {id(parameter) for parameter in network.layers.parameters()}
    others: set[nn.Parameter] = {p for p in network.parameters() if id(p) not in in_layers}
    fully_shard(network, mesh=mesh, ignored_params=others)  # the root: lets the layers gather ahead of time
    if hasattr(network, "set_force_sum_reduction_for_comms"):  # gloo knows no mean
        for module in (*network.layers, network):
            module.set_force_sum_reduction_for_comms(True)
    for name in ("forward_parts", "forward", "embed"):
        register_fsdp_forward_method(network, name)
    return network
