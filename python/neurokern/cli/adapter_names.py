"""Adapters by the names that the command line knows them by."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neurokern.adapters import FineTuneOptions

__all__ = ["ADAPTER_NAMES", "READ_OUT_NAMES", "adapter_names", "make_adapter", "make_adapters"]

READ_OUT_NAMES = ("ridge", "lda", "logistic", "prototypes")
TUNED_NAMES = ("probe", "mlp", "attention", "lora", "bias", "norm", "units", "gradual", "full", "scratch")
ADAPTER_NAMES = (*READ_OUT_NAMES, *TUNED_NAMES)

WORDS = """\
read-outs of features, solved: ridge, lda, logistic, prototypes. Of the model: probe (logistic head), mlp,
attention (heads on the frozen model), lora, bias, norm (those weights learn), units (vectors of units and the
session's token), gradual (unfreezing from the last layer), full (fine-tuning), scratch (a new model of the
same size trained on the labels alone)
"""


def adapter_names(text: str) -> tuple[str, ...]:
    """Read a list such as ``ridge,lora`` off the command line."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    unknown = [name for name in names if name not in ADAPTER_NAMES]
    if unknown or not names:
        raise argparse.ArgumentTypeError(
            f"unknown {', '.join(unknown) or repr(text)}; known are {', '.join(ADAPTER_NAMES)}"
        )
    return names


def make_adapters(names: tuple[str, ...], options: FineTuneOptions) -> dict[str, Any]:
    """Return what :func:`neurokern.adapters.evaluate_few_shot` takes: makers of read-outs, and adapters."""
    return {name: _read_outs().get(name) or make_adapter(name, options) for name in names}


def make_adapter(name: str, options: FineTuneOptions) -> Any:
    """Return an adapter with ``fit(model, support)``; read-outs become the head of the frozen model."""
    from neurokern import adapters

    if name in READ_OUT_NAMES:
        return adapters.FrozenReadout(readout=_read_outs()[name])
    # All is new there, so it gets more time.
    long = replace(options, max_epochs=3 * options.max_epochs, blind_epochs=3 * options.blind_epochs)
    made: Mapping[str, Any] = {
        "probe": adapters.HeadProbe(options=options),
        "mlp": adapters.HeadProbe(head="mlp", options=options),
        "attention": adapters.HeadProbe(head="attention", options=options),
        "lora": adapters.LoRA(targets=("*layers.*",), options=options),
        "bias": adapters.BiasOnly(options=options),
        "norm": adapters.NormOnly(options=options),
        "units": adapters.UnitIdentification(options=options),
        "gradual": adapters.GradualUnfreezing(options=options),
        "full": adapters.FullFineTune(options=options),
        "scratch": adapters.FromScratch(options=long),
    }
    return made[name]


def _read_outs() -> dict[str, Any]:
    from neurokern.adapters import LDAProbe, LinearProbe, PrototypeProbe, RidgeProbe

    return {"ridge": RidgeProbe, "lda": LDAProbe, "logistic": LinearProbe, "prototypes": PrototypeProbe}
