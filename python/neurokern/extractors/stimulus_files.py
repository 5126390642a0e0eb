"""Images and sounds from files, as arrays; what networks of plain torch take of them."""

from __future__ import annotations

import os
import wave
from collections.abc import Callable
from dataclasses import dataclass
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neurokern._check import check_memory, check_positive

__all__ = ["AudioClip", "Preprocess", "open_stimulus", "preprocess_plain", "read_audio", "read_image"]

Preprocess = Callable[[Any], Any]
SOUNDS = (".wav", ".flac", ".ogg", ".mp3", ".aif", ".aiff")
# What Pillow raises for damaged files.
_DAMAGED = (OSError, SyntaxError, ValueError, IndexError, TypeError, OverflowError)
_PCM = {1: "u1", 2: "<i2", 4: "<i4"}  # by bytes of a sample; 3 are put together


@dataclass(frozen=True, eq=False)
class AudioClip:
    """A sound.

    Parameters
    ----------
    samples : float array of shape (n,) or (n, channels)
        In [-1, 1].
    rate : float, hertz
    """

    samples: NDArray[np.floating]
    rate: float

    def __post_init__(self) -> None:
        check_positive("AudioClip", "rate", self.rate)
        if self.samples.ndim not in (1, 2) or self.samples.dtype.kind != "f":
            raise ValueError(
                "AudioClip: samples must be float of shape (n,) or (n, channels), got "
                f"{self.samples.dtype} of {self.samples.shape}"
            )

    @property
    def duration(self) -> float:
        """Seconds."""
        return len(self.samples) / self.rate

    def mono(self, rate: float | None = None) -> NDArray[np.float32]:
        """Return the mean of the channels, (n,) float32, at another rate if one is given (by scipy)."""
        samples: NDArray[np.floating] = self.samples if self.samples.ndim == 1 else self.samples.mean(axis=1)
        if rate is not None and rate != self.rate:
            samples = _resampled(samples, self.rate, rate)
        return samples.astype(np.float32)

    def cut(self, start: float, stop: float) -> AudioClip:
        """Return the part between two times in seconds."""
        first, last = (max(round(seconds * self.rate), 0) for seconds in (start, stop))
        return AudioClip(self.samples[first:last], self.rate)


def open_stimulus(stimulus: Any) -> Any:
    """Return what a file holds: an image as uint8 ``(x, y, 3)``, or a sound; anything else as it is."""
    if not isinstance(stimulus, os.PathLike):
        return stimulus
    path = Path(stimulus)
    if path.suffix.lower() in SOUNDS:
        return read_audio(path)
    return np.load(path, allow_pickle=False) if path.suffix.lower() == ".npy" else read_image(path)


def preprocess_plain(stimulus: Any) -> Tensor:
    """Return images as float32 ``(channels, x, y)`` in [0, 1], sounds as ``(n,)``, and arrays as they are."""
    value = open_stimulus(stimulus)
    if isinstance(value, str):
        raise TypeError(
            "StimulusFeatures: texts need a tokenizer: give preprocess, or use from_pretrained; "
            "a str is a text, files are Path"
        )
    if isinstance(value, AudioClip):
        return torch.from_numpy(value.mono())
    if hasattr(value, "getbands"):
        value = np.asarray(value.convert("RGB"))
    if isinstance(value, Tensor):
        return value
    if value.dtype != np.uint8 or value.ndim not in (2, 3):
        return torch.from_numpy(np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("=")))
    image = value[..., None] if value.ndim == 2 else value
    return torch.from_numpy(np.moveaxis(image, -1, 0).astype(np.float32) / 255)


preprocess_plain.cache_key = "plain-1"  # type: ignore[attr-defined]


def read_image(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """Return an image as (x, y, 3), uint8, turned as its EXIF tag says; 16 bits of gray become 8.

    Raises
    ------
    FileNotFoundError, ImportError
        If there is no such file, or Pillow is missing.
    ValueError
        If it is no image, is cut short, or far too large.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise ImportError(
            "read_image: images need Pillow; install it with `pip install 'neurokern[stimuli]'`"
        ) from None
    try:
        with Image.open(path) as image:
            turned = ImageOps.exif_transpose(image)
            if turned.mode.startswith("I"):  # Pillow would cut brighter values off
                gray = np.asarray(turned).clip(0, 65535) / 257
                return np.repeat(np.rint(gray).astype(np.uint8)[..., None], 3, axis=-1)
            if turned.mode == "F":
                raise ValueError("its values are floats; give it as an array")
            return np.asarray(turned.convert("RGB"))
    except FileNotFoundError:
        raise FileNotFoundError(f"read_image: {path} does not exist") from None
    except (*_DAMAGED, Image.DecompressionBombError) as error:
        raise ValueError(f"read_image: {path} cannot be read: {error}") from None


def read_audio(path: str | os.PathLike[str]) -> AudioClip:
    """Return a sound: whole-number .wav by Python itself, other formats by soundfile.

    Raises
    ------
    FileNotFoundError, ImportError
        If there is no such file, or soundfile is missing and needed.
    ValueError
        If it cannot be read.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"read_audio: {path} does not exist")
    reason = "its name does not end with .wav"
    if Path(path).suffix.lower() == ".wav":
        try:
            return _read_wav(path)
        except (wave.Error, EOFError, RuntimeError, ValueError, OverflowError) as error:
            reason = str(error)  # another encoding (floats, say), or damaged
    try:
        import soundfile
    except ImportError:
        raise ImportError(
            f"read_audio: {path} is no .wav of whole numbers ({reason}), and others need soundfile; install "
            "it with `pip install soundfile`"
        ) from None
    try:
        samples, rate = soundfile.read(path, dtype="float32")
        return AudioClip(samples, float(rate))
    except (RuntimeError, ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"read_audio: {path} cannot be read: {error}") from None


def _read_wav(path: str | os.PathLike[str]) -> AudioClip:
    with wave.open(os.fspath(path), "rb") as file:
        width, channels, rate = file.getsampwidth(), file.getnchannels(), file.getframerate()
        if width not in (*_PCM, 3):
            raise ValueError(f"samples of {width} bytes")
        check_memory("read_audio", "the sound", 8 * file.getnframes() * channels, "take clips of it")
        raw = file.readframes(file.getnframes())
    if width == 3:
        whole = np.frombuffer(raw[: len(raw) // 3 * 3], np.uint8).reshape(-1, 3)
        padded = np.zeros((len(whole), 4), np.uint8)
        padded[:, 1:] = whole
        raw, width = padded.tobytes(), 4
    values = np.frombuffer(raw[: len(raw) // width * width], _PCM[width]).astype(np.float32)
    samples = (values - 128) / 128 if width == 1 else values / np.float32(2.0 ** (8 * width - 1))
    samples = samples[: len(samples) // channels * channels].reshape(-1, channels)
    return AudioClip(samples[:, 0] if channels == 1 else samples, float(rate))


def _resampled(samples: NDArray[np.floating], old: float, new: float) -> NDArray[np.floating]:
    try:
        from scipy.signal import resample_poly
    except ImportError:
        raise ImportError(
            f"AudioClip: {old:g} Hz to {new:g} Hz takes scipy; install it, or resample the sound yourself"
        ) from None
    if not (float(old).is_integer() and float(new).is_integer()):
        raise ValueError(f"AudioClip: rates must be whole numbers of hertz to resample, got {old} and {new}")
    common = gcd(int(old), int(new))
    result: NDArray[np.floating] = resample_poly(samples, int(new) // common, int(old) // common)
    return result
