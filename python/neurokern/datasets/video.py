"""Frames of a video by time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurokern._check import check_positive

__all__ = ["VideoFrames"]

_ANIMATIONS = (".gif", ".png", ".apng", ".webp")
# What Pillow raises for damaged files.
_DAMAGED = (OSError, SyntaxError, ValueError, IndexError, TypeError, OverflowError)
_EARLY = 1e-6  # seconds


class VideoFrames:
    """Frames of a video with their times, decoded one after the other while they are asked for.

    Animated GIF, PNG and WebP are read by Pillow, all other formats by PyAV.

    Parameters
    ----------
    path : path
    rate : float, hertz, optional
        Frames to take: at k / rate the one that is shown. Default: all frames, at their own times.
    start : float, seconds, default 0.0
        When the video began on the recording's clock.

    Raises
    ------
    FileNotFoundError, ImportError
        If there is no such file, or what reads it is not installed.
    ValueError
        When frames are asked for, if it holds none or cannot be read.

    Examples
    --------
    >>> series = features.over_time(VideoFrames("movie.mp4", rate=2.0))  # doctest: +SKIP
    >>> pairs = PairedWindows(bold, {"video": SampledSeries([series["layer4"]], rate=2.0)})  # doctest: +SKIP
    """

    def __init__(self, path: str | os.PathLike[str], rate: float | None = None, start: float = 0.0) -> None:
        if not Path(path).is_file():
            raise FileNotFoundError(f"VideoFrames: {path} does not exist")
        self.path, self.start = Path(path), float(start)
        self.rate = None if rate is None else check_positive("VideoFrames", "rate", rate)

    def __iter__(self) -> Iterator[tuple[float, NDArray[np.uint8]]]:
        """Yield seconds on the recording's clock and the frame, (x, y, 3) uint8."""
        read = _animation if self.path.suffix.lower() in _ANIMATIONS else _video
        number, any_frame = 0, False
        for begin, end, frame in read(self.path):
            any_frame = True
            if self.rate is None:
                yield self.start + begin, _as_rgb(frame)
                continue
            image = None
            while number / self.rate < end - _EARLY:
                if number / self.rate >= begin - _EARLY:
                    image = _as_rgb(frame) if image is None else image
                    yield self.start + number / self.rate, image
                number += 1
        if not any_frame:
            raise ValueError(f"VideoFrames: {self.path} holds no frames")


def _as_rgb(frame: Any) -> NDArray[np.uint8]:
    if hasattr(frame, "to_ndarray"):
        return np.asarray(frame.to_ndarray(format="rgb24"))
    return np.asarray(frame.convert("RGB"))


def _animation(path: Path) -> Iterator[tuple[float, float, Any]]:
    """Yield begin, end and image of each frame."""
    try:
        from PIL import Image, ImageSequence
    except ImportError:
        raise ImportError(
            "VideoFrames: animations need Pillow; install it with `pip install 'neurokern[stimuli]'`"
        ) from None
    try:
        with Image.open(path) as film:
            begin = 0.0
            for frame in ImageSequence.Iterator(film):
                frame.load()  # the duration is known only then
                seconds = float(frame.info.get("duration") or 100) / 1000  # as browsers take a missing one
                yield begin, begin + seconds, frame
                begin += seconds
    except (*_DAMAGED, Image.DecompressionBombError) as error:
        raise ValueError(f"VideoFrames: {path} cannot be read: {error}") from None


def _video(path: Path) -> Iterator[tuple[float, float, Any]]:
    try:
        import av
    except ImportError:
        raise ImportError(f"VideoFrames: {path.name} needs PyAV; install it with `pip install av`") from None
    try:
        with av.open(os.fspath(path)) as film:
            if not film.streams.video:
                return
            stream = film.streams.video[0]
            waiting, first = None, None
            for frame in film.decode(stream):
                if frame.time is None:
                    raise ValueError("frames without times")
                first = frame.time if first is None else first
                if waiting is not None:
                    yield waiting.time - first, frame.time - first, waiting
                waiting = frame
            if waiting is not None and first is not None:
                step = 1 / float(stream.average_rate or 25)
                yield waiting.time - first, waiting.time - first + step, waiting
    except (av.FFmpegError, ValueError) as error:
        raise ValueError(f"VideoFrames: {path} cannot be read: {error}") from None
