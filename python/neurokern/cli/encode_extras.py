"""What ``neurokern encode`` adds on request: noise ceilings from repeats, and parts of feature spaces."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neurokern.cli._common import Steps
from neurokern.cli.encode_inputs import detrended, file_name, read_array, read_responses, split_key
from neurokern.cli.image_facts import is_image

if TYPE_CHECKING:
    from neurokern.cli.encode_inputs import EncodingData
    from neurokern.cli.encode_results import EncodingResult
    from neurokern.encoding import RidgeEncoder
    from neurokern.encoding.folds import Fold

__all__ = ["add_ceilings", "add_parts", "parse_spaces", "read_repeats"]

Scores = dict[str, NDArray[np.float64]]


def read_repeats(files: Sequence[str], data: EncodingData, *, detrend: bool) -> NDArray[Any]:
    """Read responses to repeated stimuli: a file for each repeat, or one array of all.

    Returns
    -------
    repeats : array of shape (repeats, samples, targets)

    Raises
    ------
    FileNotFoundError, ValueError
        If a file is missing or damaged, or does not fit the others or the targets.
    """
    from neurokern.encoding._arrays import as_tensor, check_finite_values

    if len(files) == 1 and not is_image(split_key(files[0])[0]):
        repeats = read_array(files[0])
        if repeats.ndim != 3 or repeats.dtype.kind not in "biuf":
            raise ValueError(
                f"{file_name(files[0])} must hold numbers of shape (repeats, samples, targets), got "
                f"{repeats.dtype} of shape {repeats.shape}; or name a file for each repeat"
            )
    else:
        each = [read_responses(file, data.mask) for file in files]
        shapes = {one.shape for one in each}
        if len(shapes) > 1:
            lengths = ", ".join(f"{file_name(f)} {one.shape}" for f, one in zip(files, each, strict=True))
            raise ValueError(f"--repeats must have the same samples and targets, got {lengths}")
        repeats = np.stack(each)
    if len(repeats) < 2:
        raise ValueError("--repeats must hold at least 2 repeats, got 1")
    if repeats.shape[2] != data.Y.shape[1]:
        raise ValueError(
            f"--repeats must have the targets of --y ({data.Y.shape[1]}), got {repeats.shape[2]}"
        )
    check_finite_values("encode", "--repeats", as_tensor("encode", "--repeats", repeats))
    if detrend:
        repeats = np.stack([detrended(one, np.zeros(len(one), np.int64)) for one in repeats])
    return repeats


def add_ceilings(
    result: EncodingResult, repeats: NDArray[Any], *, averaged: int, seed: int
) -> EncodingResult:
    """Add what noise lets scores reach, and scores as a share of it.

    ``averaged`` is how many repeats each response that was predicted is the mean of.
    """
    from neurokern.encoding import (
        explainable_variance,
        normalize_scores,
        spearman_brown,
        split_half_reliability,
    )

    explainable = np.asarray(explainable_variance(repeats))
    ceiling, of_means = explainable, {}
    if averaged > 1:
        ceiling = np.asarray(spearman_brown(explainable, averaged))
        of_means = {"explainable_variance_of_means": ceiling}
    r2, pearson = (
        normalize_scores(scores, ceiling, metric)
        for scores, metric in ((result.r2, "r2"), (result.pearson, "pearson"))
    )
    notes = []
    if r2.n_too_low:
        notes.append(
            f"{r2.n_too_low:,} targets have a noise ceiling below 0.1 and no normalized score: that is too "
            "little to divide by."
        )
    return _extended(
        result,
        notes,
        {"repeats": len(repeats), "averaged": averaged},
        ceilings={
            "explainable_variance": explainable,
            **of_means,
            "split_half_reliability": np.asarray(split_half_reliability(repeats, seed=seed)),
            "r2_normalized": np.asarray(r2.scores),
            "pearson_normalized": np.asarray(pearson.scores),
        },
    )


def parse_spaces(texts: Sequence[str], n_features: int) -> dict[str, slice]:
    """Return columns of the features by the name of their space, from ``NAME=FIRST:STOP``.

    Raises
    ------
    ValueError
        If a text has another form, or spaces overlap, share a name or reach beyond the features.
    """
    spaces: dict[str, slice] = {}
    owner: dict[int, str] = {}
    for text in texts:
        found = re.fullmatch(r"([\w.-]+)=(\d+):(\d+)", text)
        if found is None:
            raise ValueError(f"--spaces must have the form NAME=FIRST:STOP (columns of --x), got {text!r}")
        name, first, stop = found[1], int(found[2]), int(found[3])
        if not first < stop <= n_features:
            raise ValueError(f"--spaces {text}: columns must lie within the {n_features} of --x, in order")
        if name in spaces:
            raise ValueError(f"--spaces must have names of their own, got {name} twice")
        if shared := {owner[column] for column in range(first, stop) if column in owner}:
            raise ValueError(f"--spaces must not share columns, got {name} and {', '.join(sorted(shared))}")
        owner |= dict.fromkeys(range(first, stop), name)
        spaces[name] = slice(first, stop)
    if not 2 <= len(spaces) <= 6:
        raise ValueError(f"--spaces must be 2 to 6, got {len(spaces)}; every combination takes a model")
    return spaces


def add_parts(
    result: EncodingResult,
    spaces: dict[str, slice],
    data: EncodingData,
    folds: Sequence[Fold],
    encoder: RidgeEncoder,
) -> EncodingResult:
    """Add the held-out R2 of all combinations of spaces, and what exactly these explain."""
    from neurokern.encoding import partition_variance

    columns = {name: data.X[:, part] for name, part in spaces.items()}
    partition = partition_variance(columns, data.Y, folds, encoder=encoder, runs=data.runs)
    parts = {f"r2:{'+'.join(names)}": np.asarray(values) for names, values in partition.r2.items()}
    for names, values in partition.parts.items():
        kind = "unique" if len(names) == 1 else "shared"
        parts[f"{kind}:{'+'.join(names)}"] = np.asarray(values)
    notes = []
    if n_left := data.X.shape[1] - sum(part.stop - part.start for part in spaces.values()):
        notes.append(f"{n_left:,} features are in no space, and so in none of the models of spaces.")
    named = [f"{name}={part.start}:{part.stop}" for name, part in spaces.items()]
    return _extended(result, notes, {"spaces": named}, parts=parts)


def _extended(
    result: EncodingResult, notes: Sequence[str], settings: dict[str, Any], **scores: Scores
) -> EncodingResult:
    for note in notes:
        Steps.note(note)
    return dataclasses.replace(
        result,
        notes=(*result.notes, *notes),
        settings=result.settings | settings,
        ceilings=scores.get("ceilings", result.ceilings),
        parts=scores.get("parts", result.parts),
    )
