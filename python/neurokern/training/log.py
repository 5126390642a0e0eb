"""What a run tells: rows of metrics.csv, TensorBoard, a progress bar with rates, memory and time left."""

from __future__ import annotations

import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tqdm import tqdm

from neurokern.datasets import BinnedSession, WindowedRecording
from neurokern.models import MtMConfig

logger = logging.getLogger(__name__)

METRICS = "metrics.csv"
EVENTS = "tensorboard"


class Meter:
    """Windows and tokens that all processes trained on since the last row of metrics, and how long it took.

    Parameters
    ----------
    device : torch.device
        Whose memory is watched.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.windows = self.tokens = 0
        self.seconds = 0.0
        self._clock = time.perf_counter()

    def add(self, windows: int, tokens: int) -> float:
        """Count a step and return the seconds since the last call."""
        self.windows += windows
        self.tokens += tokens
        taken = self.lap()
        self.seconds += taken
        return taken

    def lap(self) -> float:
        """Return the seconds since the last call, uncounted: validation and checkpoints train on nothing."""
        now = time.perf_counter()
        taken, self._clock = now - self._clock, now
        return taken

    def rates(self) -> dict[str, float]:
        """Return the rates since the last call, and the memory in use (on a GPU: the most so far)."""
        seconds = self.seconds or float("nan")
        result = {
            "windows_per_second": round(self.windows / seconds, 1),
            "tokens_per_second": round(self.tokens / seconds, 1),
            "memory_gb": round(memory_in_use(self.device) / 1e9, 3),
        }
        self.windows = self.tokens = 0
        self.seconds = 0.0
        return result


def tokens_of(config: MtMConfig, session: BinnedSession | WindowedRecording) -> int:
    """Return the tokens of a window in the trunk: one for a bin, or for each patch of units in a bin."""
    patches = -(-session.n_units // config.patch_size) if config.read_in == "patches" else 1
    return session.n_bins * patches


def memory_in_use(device: torch.device) -> int:
    """Return the bytes of a GPU that torch held at most, or those of this process on a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Log:
    """The rows of a run; only the first process writes and shows them.

    Parameters
    ----------
    folder : Path
        Gets ``metrics.csv``, and ``tensorboard`` if asked for.
    total_steps : int
    writes : bool
        False for the processes that keep quiet.
    shows : bool
        Whether a bar is welcome; it also needs a terminal.
    tensorboard : bool

    Raises
    ------
    ImportError
        If TensorBoard is asked for and is not installed.
    """

    def __init__(
        self, folder: Path, total_steps: int, *, writes: bool, shows: bool, tensorboard: bool
    ) -> None:
        self.folder, self.total_steps, self.writes, self.shows = folder, total_steps, writes, shows
        self.rows: list[dict[str, float]] = []
        self._writer_class = _tensorboard_writer() if tensorboard and writes else None
        self._events: Any = None
        self._bar: Any = None

    def open(self, step: int) -> None:
        """Begin at a step."""
        if self._writer_class is not None:
            self._events = self._writer_class(str(self.folder / EVENTS), purge_step=step + 1)
        quiet = not (self.writes and self.shows and sys.stderr.isatty())
        self._bar = tqdm(total=self.total_steps, initial=step, unit="step", disable=quiet)

    def close(self) -> None:
        """Finish the bar and the files of TensorBoard."""
        for opened in (self._events, self._bar):
            if opened is not None:
                opened.close()
        self._events = self._bar = None

    def advance(self) -> None:
        """Count a step in the bar."""
        self._bar.update()

    def add(self, row: dict[str, float]) -> None:
        """Add a row of metrics and write it."""
        self.rows.append(row)
        if not self.writes:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        unfinished = self.folder / f".{METRICS}.writing"
        pd.DataFrame(self.rows).to_csv(unfinished, index=False)
        unfinished.replace(self.folder / METRICS)
        if self._events is not None:
            for name, value in row.items():
                group, _, rest = name.partition("_")
                grouped = f"{group}/{rest}" if group in ("train", "validation") else f"run/{name}"
                self._events.add_scalar(grouped, value, int(row["step"]))
        self._show(row)

    def _show(self, row: dict[str, float]) -> None:
        loss = row.get("validation_loss", row["train_loss"])
        step, seconds = int(row["step"]), row["seconds"]
        rates = f"{row['windows_per_second']:.0f} windows/s, {row['tokens_per_second']:.0f} tokens/s"
        memory = f"{row['memory_gb']:.2f} GB"
        if self._bar is not None and not self._bar.disable:
            self._bar.set_postfix_str(
                f"loss {loss:.4f}, {rates}, {memory}"
            )  # the bar itself tells the time left
            return
        rest = ""
        if step:
            left = seconds / step * (self.total_steps - step)
            rest = f", {rates}, {memory}, {left:.0f} s left"
        logger.info("step %d of %d: loss %.4f, %.0f s%s", step, self.total_steps, loss, seconds, rest)

    def read(self, step: int) -> list[dict[str, float]]:
        """Return the rows that an earlier part of the run wrote, up to a step."""
        file = self.folder / METRICS
        if not file.is_file():
            return []
        try:
            rows = pd.read_csv(file)
            kept = rows[rows["step"] <= step]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"Trainer: {file} is damaged ({error}); delete it to go on without the earlier rows"
            ) from None
        return [{str(k): v for k, v in row.items()} for row in kept.to_dict("records")]


def _tensorboard_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ImportError(
            "TrainingConfig: tensorboard=True needs the package tensorboard; "
            "install with: pip install 'neurokern[tensorboard]'"
        ) from None
    return SummaryWriter
