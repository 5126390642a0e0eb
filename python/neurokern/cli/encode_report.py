"""The page about an encoding model: how targets score, where they lie, what decided it."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING

import numpy as np

from neurokern.cli.encode_results import FDR, volume_of
from neurokern.report.encoding_figures import (
    alpha_histogram,
    ceiling_scatter,
    part_bars,
    score_histogram,
    score_map,
)
from neurokern.report.page import Figure, Section, Table, write_page

if TYPE_CHECKING:
    from neurokern.cli.encode_inputs import EncodingData
    from neurokern.cli.encode_results import EncodingResult

__all__ = ["write_encoding_report"]


def write_encoding_report(path: pathlib.Path, result: EncodingResult, data: EncodingData) -> pathlib.Path:
    """Write the page and return its path; no name of a file, which may name a subject, is on it."""
    lede = [
        f"{result.settings['samples']:,} samples, runs: {result.settings['runs']}, "
        f"{result.settings['features']:,} features, {result.settings['targets']:,} targets. Every sample was "
        "predicted by a model whose weights and alphas were found without it and without its neighbors "
        f"within the gap of {result.settings['gap']} samples.",
        *result.notes,
    ]
    sections = [_score_section(result)]
    if data.mask is not None:
        sections.append(_map_section(result, data))
    if result.ceilings:
        sections.append(_ceiling_section(result))
    if result.parts:
        sections.append(_part_section(result))
    sections.append(_alpha_section(result))
    facts = {name.replace("_", " "): _text(value) for name, value in result.settings.items()}
    return write_page(path, "Encoding model", lede, sections, facts)


def _score_section(result: EncodingResult) -> Section:
    table = _table(
        result,
        ["r2", "pearson"],
        "Over all held-out samples together. R2 below 0 is worse than each target's mean over the test "
        "samples. The highest of many scores is high by luck, too; constant targets have none.",
    )
    parts: list[Figure | Table] = [table]
    if np.isfinite(result.r2).any():
        significant = None if result.q_values is None else result.q_values <= FDR
        parts.append(score_histogram(result.r2, result.pearson, significant))
    text = []
    if result.q_values is not None:
        text.append(
            f"{result.n_discoveries:,} of {result.r2.size:,} targets are predicted better than permuted "
            f"blocks of responses, at a false discovery rate of {FDR:g} (Benjamini and Hochberg)."
        )
    return Section(title="How well targets are predicted", text=text, parts=parts)


def _ceiling_section(result: EncodingResult) -> Section:
    n = result.settings["repeats"]
    table = _table(
        result,
        list(result.ceilings),
        f"From {n} repeats of the same stimuli. Explainable variance: share of a single response's variance "
        "that repeats have in common, corrected for their number. Split-half reliability: of the mean over "
        "all repeats, by the Spearman-Brown formula. Normalized: R2 over the ceiling, correlation over its "
        "root; both are estimates, so that some lie above 1.",
    )
    averaged = result.settings["averaged"]
    text = "The ceiling is the explainable variance of single responses."
    if averaged > 1:
        text = (
            f"Responses are means over {averaged} repeats; the ceiling is the explainable variance carried "
            "to as many by the Spearman-Brown formula."
        )
    ceiling = result.ceilings.get("explainable_variance_of_means", result.ceilings["explainable_variance"])
    parts: list[Figure | Table] = [table]
    if (np.isfinite(result.r2) & np.isfinite(ceiling)).any():
        parts.append(ceiling_scatter(ceiling, result.r2))
    return Section(title="What noise allows", text=[text], parts=parts)


def _part_section(result: EncodingResult) -> Section:
    names = [name for name in result.parts if not name.startswith("r2:")]
    table = _table(
        result,
        list(result.parts),
        "r2: held-out R2 of a model with these spaces alone. unique, shared: the part of the R2 of all "
        "spaces that exactly these explain; the parts add up to it. Noise makes some fall below 0.",
    )
    parts: list[Figure | Table] = [table]
    if all(np.isfinite(result.parts[name]).any() for name in names):
        parts.append(part_bars({name: result.parts[name] for name in names}))
    return Section(title="What feature spaces explain", text=[], parts=parts)


def _table(result: EncodingResult, names: list[str], caption: str) -> Table:
    summary = result.summary()
    chosen = summary[summary["score"].isin(names)]
    return Table(
        header=["score", *(name.replace("_", " ") for name in summary.columns[1:])],
        rows=[
            [str(row[0]).replace("_", " "), *(_text(value) for value in row[1:])]
            for row in chosen.itertuples(index=False)
        ],
        caption=caption,
    )


def _map_section(result: EncodingResult, data: EncodingData) -> Section:
    figure = score_map(volume_of(result.r2, data))
    return Section(title="Where they lie", parts=[figure])


def _alpha_section(result: EncodingResult) -> Section:
    return Section(title="Penalties", parts=[alpha_histogram(result.alphas, result.candidates)])


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(_text(one) for one in value)
    return "none" if value is None else str(value)
