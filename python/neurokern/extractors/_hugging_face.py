"""Models of Hugging Face with their own preprocessing: texts, images and sounds."""

from __future__ import annotations

import hashlib
import json
import sys
from typing import Any

import numpy as np
from torch import Tensor, nn

from neurokern.extractors.stimulus_files import AudioClip, open_stimulus

__all__ = ["HuggingFaceInput", "load_model"]


def load_model(name: Any) -> tuple[nn.Module, HuggingFaceInput]:
    """Return a model, by a name, a folder or itself with its processor, and its preprocessing."""
    if isinstance(name, tuple):
        model, processor = name
        return model, HuggingFaceInput(processor, model)
    try:
        from transformers import AutoModel, AutoProcessor
    except ImportError:
        raise ImportError(
            "StimulusFeatures.from_pretrained: it takes transformers; install it with "
            "`pip install 'neurokern[stimuli]'`"
        ) from None
    model = AutoModel.from_pretrained(name)
    return model, HuggingFaceInput(AutoProcessor.from_pretrained(name), model)


class HuggingFaceInput:
    """What a processor makes of one stimulus: a tokenizer, an image processor, a feature extractor, or all.

    A sound becomes one channel at the model's rate. A text of more tokens than the model has places for is an
    error: cutting it would leave out its end.
    """

    def __init__(self, processor: Any, model: nn.Module) -> None:
        self.tokenizer = getattr(processor, "tokenizer", None)
        self.images = getattr(processor, "image_processor", None)
        self.sounds = getattr(processor, "feature_extractor", None)
        if (self.tokenizer, self.images, self.sounds) == (None, None, None):
            self.tokenizer = processor if hasattr(processor, "convert_ids_to_tokens") else None
            self.sounds = processor if hasattr(processor, "sampling_rate") else None
            self.images = processor if self.tokenizer is self.sounds is None else None
        parts = (self.tokenizer, self.images, self.sounds)
        places = getattr(getattr(model, "config", None), "max_position_embeddings", None)
        limits = (places, getattr(self.tokenizer, "model_max_length", None))
        self._longest = min((limit for limit in limits if limit), default=sys.maxsize)
        hashed = hashlib.blake2b(digest_size=16)
        for part in parts:
            hashed.update(_described(part).encode(errors="replace") + b"|")
        self.cache_key = f"hugging-face-1-{hashed.hexdigest()}"

    def __call__(self, stimulus: Any) -> dict[str, Tensor]:
        """Return the tensors of one stimulus, without the axis of the batch."""
        if isinstance(stimulus, str):
            batch = self._part("tokenizer", self.tokenizer, "a text")(stimulus, return_tensors="pt")
            n_tokens = batch["input_ids"].shape[1]
            if not 0 < n_tokens <= self._longest:
                raise ValueError(
                    f"StimulusFeatures: a text must have 1 to {self._longest} tokens for this model, got "
                    f"{n_tokens}: {stimulus[:40]!r}; take fewer words"
                )
            return {name: values[0] for name, values in batch.items()}
        value = open_stimulus(stimulus)
        if isinstance(value, AudioClip):
            extract = self._part("feature extractor", self.sounds, "a sound")
            samples = value.mono(float(extract.sampling_rate))
            batch = extract(samples, sampling_rate=extract.sampling_rate, return_tensors="pt")
        else:
            convert = self._part("image processor", self.images, "an image")
            batch = convert(images=_as_rgb(value), return_tensors="pt")
        return {name: values[0] for name, values in batch.items()}

    def _part(self, what: str, part: Any, stimulus: str) -> Any:
        if part is None:
            raise TypeError(
                f"StimulusFeatures: {stimulus} needs a model with a {what}, which this one has not"
                + ("; a file must be a Path, a str is a text" if stimulus == "a text" else "")
            )
        return part


def _as_rgb(image: Any) -> Any:
    if hasattr(image, "getbands"):
        return image.convert("RGB")
    values = np.asarray(image)
    return np.repeat(values[..., None], 3, axis=-1) if values.ndim == 2 else values


def _described(part: Any) -> str:
    """Return the settings of a part: its class and configuration, of a tokenizer with all its tokens."""
    if part is None:
        return ""
    import transformers

    backend = getattr(part, "backend_tokenizer", None)
    if backend is not None:
        settings = backend.to_str()
    elif hasattr(part, "get_vocab"):
        settings = json.dumps(part.get_vocab(), sort_keys=True)
    else:
        settings = part.to_json_string()
    return f"{transformers.__version__}:{type(part).__qualname__}:{settings}"
