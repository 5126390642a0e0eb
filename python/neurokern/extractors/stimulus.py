"""Features of stimuli by the layers of a network: once for each stimulus, kept between runs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from neurokern._check import check_choice, check_integer
from neurokern.datasets.series import TimeSeries
from neurokern.extractors._layers import (
    Forward,
    Pool,
    check_pool,
    device_of,
    first_tensor,
    layer_names,
    observed,
    pooled,
    run_module,
)
from neurokern.extractors._stimulus_batches import (
    BYTES_AT_ONCE,
    as_tensors,
    autocast,
    checked_device,
    described,
    gathered,
    n_bytes_of,
    pieces,
    seeded,
    shapes_of,
    stacked,
)
from neurokern.extractors._stimulus_cache import FeatureFiles
from neurokern.extractors._stimulus_keys import ModuleKey, stimulus_key
from neurokern.extractors.stimulus_files import Preprocess, preprocess_plain

__all__ = ["StimulusFeatures"]

_Row = NDArray[np.floating]


class StimulusFeatures:
    """Features of texts, images, sounds and arrays by the layers of a torch module.

    Stimuli are told by their content: of those that are there several times, under one name or another, the
    network sees one. Features are kept between runs, by the content of the stimuli, the network's weights
    and all settings. Stimuli of different sizes (texts of different lengths) are never padded: a batch holds
    stimuli of one size. The network runs in evaluation mode, without gradients, and is left as it was.

    Parameters
    ----------
    module : torch.nn.Module
    layers : str or sequence of str
        As in :func:`~neurokern.alignment.layer_names`.
    pool : {"mean", "max", "cls", "last", "flatten", "none"} or callable, default "mean"
        What becomes of a layer's output: over the tokens (patches, time) of sequences
        ``(batch, tokens, features)`` and the places of images ``(batch, channels, x, y)`` its mean or
        maximum, the first ("cls") or the last token; see :func:`~neurokern.alignment.layer_features`.
    preprocess : callable, optional
        Makes of one stimulus what the network takes, without the axis of the batch: a tensor, or a mapping of
        tensors that are passed as keywords. By default images become float32 ``(channels, x, y)`` in [0, 1],
        those of files with 3 channels, sounds float32 ``(n,)`` of one channel; other arrays stay as they are.
    forward : callable of (module, batch), optional
        How to run the network, if not ``module(batch)``: ``lambda clip, x: clip.get_text_features(**x)``.
    batch_size : int, default 32
    device : str or torch.device, optional
        Where to run; the module is moved there. Default: where it is.
    dtype : torch.dtype, optional
        bfloat16 or float16: run by autocast. Features are float32 (float64 if the layer's are).
    cache : bool or "auto", default "auto"
        Keep features between runs, in the folder of ``neurokern cache``. With functions of your own
        (``preprocess``, ``pool``, ``forward``) "auto" does so only if ``version`` is given.
    version : str, optional
        Name of what your functions do; change it when they change.
    progress : bool, default False
        Show a bar over stimuli.

    Raises
    ------
    ValueError
        If a layer's name fits nothing (the message names those that are near), or the device is not there.

    Notes
    -----
    What an earlier version of the code computed is not taken: the source of the module's classes is part of
    the key, of those of torch and transformers their version. What your classes call elsewhere is not.

    Examples
    --------
    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 5))
    >>> features = StimulusFeatures(net, "1", cache=False)
    >>> images = [np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 255, np.uint8)]
    >>> features(images * 3)["1"].shape
    torch.Size([6, 5])
    """

    def __init__(
        self,
        module: nn.Module,
        layers: str | Sequence[str],
        *,
        pool: str | Pool = "mean",
        preprocess: Preprocess | None = None,
        forward: Forward | None = None,
        batch_size: int = 32,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        cache: bool | str = "auto",
        version: str | None = None,
        progress: bool = False,
    ) -> None:
        function = "StimulusFeatures"
        if not isinstance(module, nn.Module):
            raise TypeError(f"{function}: module must be a torch.nn.Module, got {type(module).__name__}")
        if check_integer(function, "batch_size", batch_size) < 1:
            raise ValueError(f"{function}: batch_size must be at least 1, got {batch_size}")
        if dtype not in (None, torch.float32, torch.bfloat16, torch.float16):
            raise ValueError(f"{function}: dtype must be bfloat16, float16 or None, got {dtype!r}")
        if not isinstance(cache, bool):
            check_choice(function, "cache", cache, ("auto",))
        self.layers = layer_names(module, layers, function)
        self._pool, self._pooling = pool, check_pool(function, pool)
        self.preprocess = preprocess_plain if preprocess is None else preprocess
        self.module = module if device is None else module.to(checked_device(device))
        self._forward, self.batch_size = forward, batch_size
        self.dtype = None if dtype == torch.float32 else dtype
        self.progress, self.version = progress, version
        self._files = self._kept(cache)
        self._module_key = ModuleKey(module)
        self._opened: dict[str, FeatureFiles] = {}

    @classmethod
    def from_pretrained(cls, name: Any, layers: str | Sequence[str], **options: Any) -> StimulusFeatures:
        """Return features by a Hugging Face model of text, images or sound, with its own preprocessing.

        Parameters
        ----------
        name : str or path, or (model, processor)
            A name on the hub or a folder; or a model with its tokenizer, image processor or feature
            extractor.
            Of a model with several towers give one, ``(clip.vision_model, processor)``, or ``forward``.
        layers : str or sequence of str
            ``"encoder.layer.*"`` matches what is inside of layers; ``"encoder.layer.6"`` is the layer itself.
        **options
            As for the class; ``pool="cls"`` takes the first token.

        Raises
        ------
        ImportError
            If transformers is not installed.
        """
        from neurokern.extractors._hugging_face import load_model

        model, preprocess = load_model(name)
        return cls(model, layers, preprocess=preprocess, **options)

    def __repr__(self) -> str:
        """Return a line with module, layers and pooling."""
        return f"StimulusFeatures({type(self.module).__name__}, {self.layers}, pool={self._pool!r})"

    def __call__(self, stimuli: Iterable[Any]) -> dict[str, Tensor]:
        """Return the features of each stimulus.

        Parameters
        ----------
        stimuli : iterable
            Texts (str), files of images or sounds (Path), images of Pillow or uint8 arrays
            ``(x, y[, channels])``, :class:`AudioClip`, or arrays and tensors that go to the network as they
            are. A generator (frames of a video) is read piece by piece.

        Returns
        -------
        features : dict of str to tensor of shape (stimuli, features)
            By layer, in the order of the module.

        Raises
        ------
        FileNotFoundError
            If a file is not there.
        ValueError
            If there are none, a file cannot be read, a layer gives NaN or infinite values, or its features
            differ in size between stimuli.
        """
        number: dict[bytes, int] = {}  # of each stimulus that was new
        index: list[int] = []
        rows: dict[str, list[_Row]] = {name: [] for name in self.layers}
        files = self._files_now()
        total = len(stimuli) if isinstance(stimuli, Sequence) else None
        with tqdm(total=total, desc="stimuli", disable=not self.progress, leave=False) as bar:
            for piece in pieces(stimuli):
                new: dict[bytes, Any] = {}
                for stimulus in piece:
                    key = stimulus_key(stimulus)
                    if key not in number:
                        number[key] = len(number)
                        new[key] = stimulus
                    index.append(number[key])
                self._look_at(new, files, rows)
                bar.update(len(piece))
        if not index:
            raise ValueError("StimulusFeatures: stimuli must hold at least one, got none")
        return {name: gathered(name, values, index) for name, values in rows.items()}

    def over_time(self, stimuli: Iterable[tuple[float, Any]]) -> dict[str, TimeSeries]:
        """Return the features of stimuli that follow each other, as series on the recording's clock.

        Parameters
        ----------
        stimuli : iterable of (seconds, stimulus)
            Frames of a video, pieces of a sound, words: :class:`~neurokern.datasets.VideoFrames`,
            :class:`~neurokern.datasets.TimedStimuli`. They are read once, piece by piece.

        Returns
        -------
        series : dict of str to TimeSeries
            By layer; values (stimuli, features).
        """
        times: list[float] = []

        def noted() -> Iterator[Any]:
            for seconds, stimulus in stimuli:
                times.append(float(seconds))
                yield stimulus

        features = self(noted())
        return {
            name: TimeSeries.from_arrays(times, values.reshape(len(values), -1).numpy())
            for name, values in features.items()
        }

    def _look_at(
        self, stimuli: Mapping[bytes, Any], files: Mapping[str, FeatureFiles], rows: dict[str, list[_Row]]
    ) -> None:
        """Append the features of stimuli, in their order, from files or from the network."""
        known = {name: files[name].read(list(stimuli)) if files else {} for name in self.layers}
        missing = {key: one for key, one in stimuli.items() if any(key not in known[n] for n in self.layers)}
        new: dict[str, dict[bytes, _Row]] = {name: {} for name in self.layers}
        for batch, inputs in self._batches(missing):
            for name, values in self._run(batch, inputs, missing).items():
                new[name] |= dict(zip(batch, values, strict=True))
        for name in self.layers:
            if files:
                _write(files[name], new[name])
            known[name] |= new[name]
            rows[name] += [known[name][key] for key in stimuli]

    def _batches(self, stimuli: Mapping[bytes, Any]) -> Iterator[tuple[list[bytes], list[Any]]]:
        """Yield stimuli whose inputs have the same shapes, ready for the network."""
        by_shape: dict[Any, dict[bytes, Any]] = {}
        n_bytes = 0
        for key, stimulus in stimuli.items():
            inputs = as_tensors(self.preprocess(stimulus))
            if first_tensor(inputs) is None:
                raise TypeError(
                    "StimulusFeatures: preprocess must return a tensor or a mapping of tensors, got "
                    f"{type(inputs).__name__} of {described(stimulus)}"
                )
            by_shape.setdefault(shapes_of(inputs), {})[key] = inputs
            n_bytes += n_bytes_of(inputs)
            if n_bytes > BYTES_AT_ONCE:
                yield from ((list(same), list(same.values())) for same in by_shape.values())
                by_shape, n_bytes = {}, 0
        yield from ((list(same), list(same.values())) for same in by_shape.values())

    def _run(self, keys: list[bytes], inputs: list[Any], stimuli: Mapping[bytes, Any]) -> dict[str, _Row]:
        """Return the features of inputs of one shape, (stimuli, ...), by layer."""
        kept: dict[str, list[Tensor]] = {name: [] for name in self.layers}
        at = device_of(self.module)
        with observed(self.module, self.layers) as outputs, torch.no_grad(), autocast(at, self.dtype):
            for first in range(0, len(inputs), self.batch_size):
                batch = stacked(inputs[first : first + self.batch_size])
                outputs.clear()
                size = self._forward_pass(batch, at, stimuli[keys[first]])
                for name in self.layers:
                    values = pooled("StimulusFeatures", name, outputs, self._pooling, size, kept[name])
                    self._check(name, values, [stimuli[key] for key in keys[first : first + size]])
                    kept[name].append(values)
        return {name: torch.cat(parts).numpy() for name, parts in kept.items()}

    def _forward_pass(self, batch: Any, at: torch.device, first: Any) -> int:
        try:
            with seeded(at):
                return run_module("StimulusFeatures", self.module, batch, self._forward, at)
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:  # torch's own word for sizes that do not fit
            raise ValueError(
                f"StimulusFeatures: the network fails on inputs of {shapes_of(batch)}, the first of which is "
                f"{described(first)}: {error}"
            ) from error

    def _check(self, name: str, values: Tensor, stimuli: Sequence[Any]) -> None:
        finite = values.reshape(len(values), -1).isfinite().all(1)
        if not finite.all():
            stimulus = stimuli[int((~finite).nonzero()[0, 0])]
            raise ValueError(
                f"StimulusFeatures: layer {name!r} gave NaN or infinite values for {described(stimulus)}"
                + (f"; {self.dtype} may be too narrow for it" if self.dtype else "")
            )

    def _kept(self, cache: bool | str) -> bool | str:
        """Return whether features are kept; raise if they are to be and functions have no name."""
        own = {
            "preprocess": not hasattr(self.preprocess, "cache_key"),
            "pool": callable(self._pool),
            "forward": self._forward is not None,
        }
        if not any(own.values()) or self.version is not None:
            return cache
        if cache is True:
            which = next(name for name, is_own in own.items() if is_own)
            raise ValueError(
                f"StimulusFeatures: cache=True with a function of your own as {which} needs version=, a name "
                "of what it does"
            )
        return False

    def _files_now(self) -> dict[str, FeatureFiles]:
        """Return the files of each layer for the network as it is now; none if nothing is kept."""
        if self._files is False:
            return {}
        at = device_of(self.module).type
        pool = self._pool if isinstance(self._pool, str) else "own"
        of_input = getattr(self.preprocess, "cache_key", "own")
        settings = f"{pool}|{of_input}|{self._forward is not None}|{self.version}|{at}|{self.dtype}"
        found, of_module = {}, self._module_key()
        for name in self.layers:
            key = hashlib.blake2b(f"{of_module}|{name}|{settings}".encode(), digest_size=16).hexdigest()
            found[name] = self._opened.get(key) or FeatureFiles(key, required=self._files is True)
        self._opened = {files.key: files for files in found.values()}
        return found


def _write(files: FeatureFiles, features: Mapping[bytes, _Row]) -> None:
    """Keep features, those of each shape in a file."""
    by_shape: dict[Any, list[bytes]] = {}
    for key, row in features.items():
        by_shape.setdefault((row.shape, row.dtype), []).append(key)
    for keys in by_shape.values():
        files.write(keys, np.stack([features[key] for key in keys]))
