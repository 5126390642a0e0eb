"""The processes that train together: who they are, what they agree on, and their gradients added up.

Start them with ``torchrun``. Everything here does nothing in a run of one process.
"""

from __future__ import annotations

import atexit
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from neurokern.training.sharding import is_sharded

_BUCKET = 2**23  # gradients that go in one message: few enough for the next to be packed meanwhile

_ENVIRONMENT = ("RANK", "MASTER_ADDR", "MASTER_PORT")  # which torchrun sets

T = TypeVar("T")


class RankLostError(RuntimeError):
    """Another process of the run ended or did not answer in time; the last checkpoint is whole."""


class Ranks:
    """This process among those that train together.

    Parameters
    ----------
    device : torch.device
        Of the model in this process.
    timeout : float
        Seconds to wait for another process.
    """

    def __init__(self, device: torch.device, timeout: float) -> None:
        self.device, self.timeout = device, timeout
        self.rank, self.size = 0, 1
        if not (dist.is_available() and (dist.is_initialized() or world_size() > 1)):
            return
        wait = timedelta(seconds=timeout)
        if not dist.is_initialized():
            missing = [name for name in _ENVIRONMENT if name not in os.environ]
            if missing:
                raise ValueError(
                    f"Trainer: WORLD_SIZE is {world_size()}, but {' and '.join(missing)} are not set; start "
                    f"the processes with torchrun, or unset WORLD_SIZE to train in one"
                )
            backend = "nccl" if device.type == "cuda" else "gloo"
            with self._reaching():
                dist.init_process_group(backend, timeout=wait)
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        # Numbers of the host travel on their own: a lost process is seen here first, and at once.
        with self._reaching():
            self._host = dist.new_group(backend="gloo", timeout=wait)

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and talks."""
        return self.rank == 0

    def first(self, function: Callable[[], T]) -> T:
        """Call a function in the first process and give its result to all, or raise its error in all.

        The result must be what JSON can hold.
        """
        if self.size == 1:
            return function()
        answer: dict[str, Any] = {}
        problem: Exception | None = None
        if self.is_first:
            try:
                answer = {"value": function()}
            except (ValueError, OSError, ImportError) as error:
                problem, answer = error, {"error": str(error)}
        answer = json.loads(bytes(self._share_bytes(json.dumps(answer).encode())))
        if problem is not None:
            raise problem
        if "error" in answer:
            raise ValueError(answer["error"])
        return answer["value"]

    def share(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the first process's tensors in all processes, on the CPU; others may pass none."""
        if self.size == 1:
            return dict(tensors)
        listed: Any = self.first(lambda: [[n, str(t.dtype), list(t.shape)] for n, t in tensors.items()])
        shared = {}
        for name, dtype, shape in listed:
            tensor = torch.empty(shape, dtype=getattr(torch, dtype.removeprefix("torch.")))
            if self.is_first:
                tensor = tensors[name].detach().cpu().contiguous()
            with self._reaching():
                dist.broadcast(tensor, 0, group=self._host)
            shared[name] = tensor
        return shared

    def add_up(self, numbers: Tensor) -> Tensor:
        """Return the sums over all processes of a tensor on the CPU, written over it."""
        if self.size > 1:
            with self._reaching():
                dist.all_reduce(numbers, group=self._host)
        return numbers

    @torch.no_grad()
    def add_gradients(self, parameters: Sequence[nn.Parameter], present: Sequence[bool]) -> None:
        """Add up the gradients of all processes.

        Parameters
        ----------
        parameters : sequence of nn.Parameter
            The same in all processes. Of sharded ones, what shards them has taken the mean already.
        present : sequence of bool
            Which of them have a gradient in at least one process. The others keep None, so that the optimizer
            leaves them alone, as in a run of one process: those of sessions that no batch of the step is of.
        """
        if self.size == 1:
            return
        shared = [p for p, somewhere in zip(parameters, present, strict=True) if somewhere]
        in_flight = []
        for parameter in shared:
            if is_sharded(parameter):
                parameter.grad.mul_(self.size)  # type: ignore[union-attr]
        for bucket in _buckets([p for p in shared if not is_sharded(p)]):
            flat = torch.cat(
                [(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in bucket]
            )
            with self._reaching():
                in_flight.append((bucket, flat, dist.all_reduce(flat, async_op=True)))
        for bucket, flat, work in in_flight:
            with self._reaching():
                work.wait()
            for parameter, gradient in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
                parameter.grad = gradient.view_as(parameter)

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise RankLostError(
                f"Trainer: rank {self.rank} lost another process of the run, which ended or did not answer "
                f"within {self.timeout:g} s ({' '.join(str(error).split())[:200]}); its own message says "
                f"why. Resume from the last checkpoint, with as many processes as you like"
            ) from error

    def _share_bytes(self, content: bytes) -> bytearray:
        """Return the first process's bytes in all processes."""
        size = torch.tensor(len(content))
        with self._reaching():
            dist.broadcast(size, 0, group=self._host)
            data = torch.empty(int(size), dtype=torch.uint8)
            if self.is_first:
                data = torch.frombuffer(bytearray(content), dtype=torch.uint8)
            dist.broadcast(data, 0, group=self._host)
        return bytearray(data.numpy())

    def leave_at_exit(self) -> None:
        """End the group when Python ends: not before, since another trainer may follow."""
        if self.size > 1:
            atexit.unregister(_leave)
            atexit.register(_leave)


def world_size() -> int:
    """Return how many processes ``torchrun`` started, 1 without it."""
    text = os.environ.get("WORLD_SIZE", "1")
    if not (text.isdecimal() and int(text) > 0):
        raise ValueError(f"Trainer: WORLD_SIZE, which torchrun sets, must be at least 1, got {text!r}")
    return int(text)


def pick_device(name: str) -> torch.device:
    """Return the device of this process: under ``torchrun``, every process of a machine has a GPU of its own.

    Raises
    ------
    ValueError
        If torch knows no such device, or the machine has fewer GPUs than processes.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"TrainingConfig: device must be 'auto', 'cpu' or 'cuda', got {name!r}") from None
    if device.type == "meta":
        raise ValueError("TrainingConfig: device must hold data, got 'meta'; use 'cpu' or 'auto'")
    if device.type != "cuda":
        return device
    if not torch.cuda.is_available():
        raise ValueError(
            f"TrainingConfig: device {name!r} was asked for but torch sees no GPU; use 'cpu' or 'auto'"
        )
    if world_size() > 1 and device.index is None:
        number, n_gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if number >= n_gpus:
            raise ValueError(
                f"Trainer: process {number} of this machine finds only {n_gpus} GPUs; "
                f"start torchrun with --nproc-per-node {n_gpus}"
            )
        device = torch.device("cuda", number)
        torch.cuda.set_device(device)
    return device


def _buckets(parameters: Sequence[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Group parameters of one dtype into messages of a good size, in order."""
    buckets: list[list[nn.Parameter]] = []
    size = 0
    for parameter in parameters:
        if not buckets or size > _BUCKET or buckets[-1][0].dtype != parameter.dtype:
            buckets.append([])
            size = 0
        buckets[-1].append(parameter)
        size += parameter.numel()
    return buckets


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
