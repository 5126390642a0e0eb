"""What ends a run before its time: signals, too little memory, a loss that is not finite."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch

from neurokern.training.config import TrainingConfig

_NO_MEMORY = (
    "DefaultCPUAllocator: can't allocate",
    "DefaultCPUAllocator: not enough memory",
    "out of memory",
)


class NonFiniteLossError(RuntimeError):
    """The loss became NaN or infinite; the message names the step and where state and batch were saved."""


class TrainingMemoryError(RuntimeError):
    """A step needs more memory than there is; the message names what to change, the state was saved."""


class TrainingInterrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM asked the run to stop; it did so after a step and can be resumed.

    Attributes
    ----------
    signal : int
        Which of them.
    """

    def __init__(self, message: str, number: int = signal.SIGTERM) -> None:
        super().__init__(message)
        self.signal = int(number)


class StopRequest:
    """Whether a signal asked the run to stop. The first one waits for the step's end, the second does not.

    What is ignored stays so: under ``nohup``, Ctrl-C.
    """

    def __init__(self) -> None:
        self.signal = 0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listen to SIGINT and SIGTERM; outside the main thread, Python leaves them to it."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        found = {int(number): signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        before = {number: handler for number, handler in found.items() if handler != signal.SIG_IGN}

        def ask(number: int, _: FrameType | None) -> None:
            self.signal = number
            signal.signal(number, before[number])

        try:
            for number in before:
                signal.signal(number, ask)
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def leave_signals_to_parent(_: int) -> None:
    """Let a process that reads batches live on: Ctrl-C and schedulers signal it, too, but the step needs it.

    It ends with the process that started it.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def is_memory_error(error: BaseException) -> bool:
    """Return whether an error says that memory ran out, on a GPU or for a tensor of the CPU."""
    kinds: tuple[type[BaseException], ...] = (MemoryError, torch.cuda.OutOfMemoryError)
    if isinstance(error, kinds):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _NO_MEMORY)


def memory_advice(config: TrainingConfig, windows: int, device: torch.device, n_processes: int) -> str:
    """Return which settings to change, those first that do not change what is trained."""
    knobs = []
    if windows > 1:
        knobs.append(f"micro_batch_size={windows // 2} (now {windows} windows at once)")
    if not config.recompute:
        knobs.append("recompute=True")
    if n_processes > 1 and config.strategy == "replicate":
        knobs.append("strategy='shard'")
    if not (config.bf16 or config.fp16) and device.type == "cuda":
        knobs.append("in a new run bf16=True")
    return ", or ".join(knobs) or "in a new run a smaller model or shorter windows"
