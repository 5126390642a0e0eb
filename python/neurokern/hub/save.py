"""Write a model, or an adapter of one, with card, scores and alignment, into a folder that can be shared."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

import neurokern
from neurokern._check import check_choice
from neurokern.alignment.storage import write_tables
from neurokern.checkpoint import CONFIG, WEIGHTS, read_json, replace_checkpoint, write_model
from neurokern.hub.card import PLACE, Facts, ModelCard, card_text
from neurokern.hub.manifest import ALIGNMENT, CARD, METRICS, SESSIONS, TORCH_RANGE, write_manifest
from neurokern.models import MtM

if TYPE_CHECKING:
    from neurokern.adapters.adapted import AdaptedModel

__all__ = ["save_pretrained"]

Tables = Mapping[str, pd.DataFrame]


def save_pretrained(
    model: MtM | AdaptedModel,
    folder: str | os.PathLike[str],
    *,
    card: ModelCard | None = None,
    metrics: Tables | None = None,
    alignment: Tables | None = None,
    sessions: str = "keep",
    base: str | None = None,
) -> Path:
    """Write a model into a folder that :func:`from_pretrained` reads and :func:`push_to_hub` uploads.

    The folder gets ``config.json``, ``model.safetensors``, ``hub.json`` (the SHA-256 of each file, versions),
    ``README.md`` (the card) and, where given, ``metrics.json`` and ``alignment.json``. It appears whole or
    not at all.

    Parameters
    ----------
    model : MtM or AdaptedModel
        Of an adapted model only the adapter's own weights are written.
    folder : path
        Made with its parents. A model that was there is replaced; anything else is left alone.
    card : ModelCard, optional
        What only people can say: data, licenses, limits, citation.
    metrics : mapping of str to DataFrame, optional
        Tables of scores with intervals, such as :func:`neurokern.evaluation.summarize` makes; printed in the
        card. Columns of subjects or sessions are refused.
    alignment : mapping of str to DataFrame, optional
        Tables of :func:`neurokern.alignment.alignment_table`; printed in the card and read back by
        :func:`read_folder`.
    sessions : {"keep", "pseudonyms", "drop"}, default "keep"
        What becomes of the sessions that the model knows. Their names, often a subject and a date, are needed
        to run them, and stand in ``config.json`` with "keep"; "pseudonyms" calls them session-1, session-2
        and so on, in the order in which they were added; "drop" leaves out their weights too, which hold
        statistics of each unit. The card never names a session. An adapter does without the name: with
        either, its session is found in the base model by the hash of its weights.
    base : str, optional
        For an adapter: the folder or repository of the model that it was fitted on, without which
        :func:`from_pretrained` has to be given the model.

    Returns
    -------
    folder : Path

    Raises
    ------
    TypeError
        If ``model`` is of neither kind.
    ValueError
        If weights are NaN or infinite, a table names subjects, ``folder`` holds other things, or an option
        does not fit.
    """
    function = "save_pretrained"
    check_choice(function, "sessions", sessions, SESSIONS)
    card = card or ModelCard()
    _check_model(function, model)
    with replace_checkpoint(folder) as temporary:
        if isinstance(model, MtM):
            kind, of_base = "mtm", None
            shared = _with_names_for(model, sessions)
            write_model(shared, temporary)
            facts = _facts_of_model(shared, sessions)
        else:
            kind, of_base = "adapter", {"source": base, "weights_sha256": model.base}
            _write_adapter(model, sessions, temporary)
            facts = _facts_of_adapter(temporary, base)
        tables: dict[str, Tables] = {}
        for file, heading, given in ((METRICS, "Scores", metrics), (ALIGNMENT, "Alignment", alignment)):
            if given:
                write_tables(temporary / file, given)
                tables[heading] = given
        text = card_text(card, Facts(**facts, tables=tables))
        (temporary / CARD).write_text(text, encoding="utf-8")
        write_manifest(
            temporary,
            kind=kind,
            sessions=sessions,
            base=of_base,
            card=card.to_dict(),
        )
    return Path(folder)


def _with_names_for(model: MtM, sessions: str) -> MtM:
    if sessions == "keep":
        return model
    if sessions == "drop":
        return model.with_names({})
    return model.with_names({name: f"session-{number}" for number, name in enumerate(model.sessions, 1)})


def _check_model(function: str, model: MtM | AdaptedModel) -> None:
    if not isinstance(model, MtM):
        from neurokern.adapters.adapted import AdaptedModel

        if not isinstance(model, AdaptedModel):
            raise TypeError(
                f"{function}: model must be an MtM or an AdaptedModel, got {type(model).__name__}"
            )
    for name, value in model.state_dict().items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise ValueError(
                f"{function}: weights must be finite, got NaN or infinity in {name}; take an earlier "
                "checkpoint"
            )


def _write_adapter(model: AdaptedModel, sessions: str, folder: Path) -> None:
    if sessions != "keep" and model.structure.session is not None:  # found by its weights when it is loaded
        unnamed = replace(model.structure, session={**model.structure.session, "session": ""})
        model = replace(model, structure=unnamed)
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        written = model.save(Path(place) / "adapter")
        for file in written.iterdir():
            shutil.move(file, folder / file.name)


def _facts_of_model(model: MtM, sessions: str) -> dict[str, Any]:
    parts = [model.session_parts(name) for name in model.sessions]
    regions = sorted({region for one in parts for region in one.regions or ()} | set(model.region_names))
    names = {
        "keep": "names withheld here",
        "pseudonyms": "under pseudonyms",
        "drop": "their weights left out",
    }
    rows = [
        ("weights", f"{sum(p.numel() for p in model.parameters()):,}"),
        ("sessions", f"{len(parts)} ({names[sessions]})"),
        ("units", f"{sum(one.n_units for one in parts):,}"),
        ("regions", ", ".join(region for region in regions if region) or "not stated"),
        ("masking schemes", ", ".join(model.config.schemes)),
        *_versions(),
    ]
    use = (
        "from neurokern.hub import from_pretrained\n\n"
        f'model = from_pretrained("{PLACE}")        # or a folder; checks every file\'s SHA-256\n'
        'model.add_session("mine", n_units, counts=counts)  # (windows, bins, units); then adapt or predict'
    )
    kind = (
        "A multi-task-masking transformer (MtM) for spike counts: it predicts hidden counts from visible "
        "ones. Weights are safetensors; nothing is pickled."
    )
    return {"kind": kind, "use": use, "rows": tuple(rows), "config": model.config.to_dict()}


def _facts_of_adapter(folder: Path, base: str | None) -> dict[str, Any]:
    description = read_json(folder / CONFIG)
    size = (folder / WEIGHTS).stat().st_size
    structure = dict(description.get("structure", {}))
    session = structure.pop("session", None)
    rows = [
        ("adapter", str(description.get("adapter"))),
        ("predicts", _predicts(description)),
        ("learned from", _support_in_words(description.get("support") or {})),
        ("chosen on the support set", _listed(description.get("chosen") or {}) or "nothing"),
        ("numbers that were fitted", f"{int(description.get('n_trainable', 0)):,}"),
        ("size", f"{size:,} bytes"),
        ("base model", base or "given by the user"),
        ("SHA-256 of the base's weights", str(description.get("base"))),
    ]
    if session:
        features = f"its {session.get('output')}, under the scheme {session.get('scheme')!r}"
        rows.append(("part of the base", f"one session (name withheld here), {features}"))
    call = f'from_pretrained("{PLACE}")' if base else f'from_pretrained("{PLACE}", base=model)'
    use = f"from neurokern.adapters import AdaptedModel\n\nadapted = AdaptedModel.{call}\n"
    kind = "An adapter: the weights that were fitted on top of a base model, and nothing else."
    limits = (
        "It fits the base model with these weights and no other, and inputs like those that it learned from: "
        "of a session, the same units in the same order.",
    )
    return {
        "kind": kind,
        "use": use + "adapted.predict(inputs)",
        "rows": (*rows, *_versions()),
        "config": structure,
        "limits": limits,
    }


def _predicts(description: Mapping[str, Any]) -> str:
    """Say how many classes or values, but not what they are called: names may say who was recorded."""
    classes, support = description.get("classes"), description.get("support") or {}
    if classes is not None:
        return f"{len(classes)} classes"
    return f"{support['n_targets']} values" if "n_targets" in support else "values"


def _support_in_words(support: Mapping[str, Any]) -> str:
    if not support:
        return "not stated"
    text = f"{support.get('n_samples')} labeled samples"
    if "shots" in support:
        fewest, most = support["shots"]
        text += f", {fewest} of each class" if fewest == most else f", {fewest} to {most} of a class"
    if support.get("n_groups") not in (None, support.get("n_samples")):
        text += f", in {support['n_groups']} trials or blocks"
    return text


def _listed(values: Mapping[str, Any]) -> str:
    plain = {k.replace("_", " "): f"{v:.3g}" if isinstance(v, float) else str(v) for k, v in values.items()}
    return ", ".join(f"{name} {value}" for name, value in plain.items())


def _versions() -> list[tuple[str, str]]:
    return [
        ("written by", f"neurokern {neurokern.__version__}, torch {torch.__version__}"),
        ("needs", f"torch {TORCH_RANGE}"),
    ]
