"""Write a model, or an adapter of one, with card, scores and alignment, into a folder that can be shared."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
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
        statistics of each unit. The card never names a session.
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
    _check_model(function, model, sessions)
    with replace_checkpoint(folder) as temporary:
        if isinstance(model, MtM):
            kind, of_base = "mtm", None
            shared = _with_names_for(model, sessions)
            write_model(shared, temporary)
            facts = _facts_of_model(shared, sessions)
        else:
            kind, of_base = "adapter", {"source": base, "weights_sha256": model.base}
            _write_adapter(model, temporary)
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


def _check_model(function: str, model: MtM | AdaptedModel, sessions: str) -> None:
    if not isinstance(model, MtM):
        from neurokern.adapters.adapted import AdaptedModel

        if not isinstance(model, AdaptedModel):
            raise TypeError(
                f"{function}: model must be an MtM or an AdaptedModel, got {type(model).__name__}"
            )
        if sessions != "keep" and model.structure.session is not None:
            raise ValueError(
                f"{function}: this adapter names the session that it was fitted on, and cannot be stored "
                f"with sessions={sessions!r}; pass sessions='keep' if the name identifies nobody"
            )
    for name, value in model.state_dict().items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise ValueError(
                f"{function}: weights must be finite, got NaN or infinity in {name}; take an earlier "
                "checkpoint"
            )


def _write_adapter(model: AdaptedModel, folder: Path) -> None:
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
    rows = [
        ("adapter", str(description.get("adapter"))),
        ("base model", base or "given by the user"),
        ("SHA-256 of the base's weights", str(description.get("base"))),
        ("numbers that were fitted", f"{int(description.get('n_trainable', 0)):,}"),
        ("size", f"{size:,} bytes"),
        *_versions(),
    ]
    call = f'from_pretrained("{PLACE}")' if base else f'from_pretrained("{PLACE}", base=model)'
    use = f"from neurokern.hub import from_pretrained\n\nadapted = {call}\nadapted.predict(inputs)"
    structure = {k: v for k, v in description.get("structure", {}).items() if k != "session"}
    kind = "An adapter: the weights that were fitted on top of a base model, and nothing else."
    return {"kind": kind, "use": use, "rows": tuple(rows), "config": structure}


def _versions() -> list[tuple[str, str]]:
    return [
        ("written by", f"neurokern {neurokern.__version__}, torch {torch.__version__}"),
        ("needs", f"torch {TORCH_RANGE}"),
    ]
