"""The card of a model: what people must know before they use it, without a word about who was recorded."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import yaml

__all__ = ["DataSource", "ModelCard"]

NOT_STATED = "not stated"
PLACE = "OWNER/NAME"  # of the model, until it has one
_MOST_ROWS = 200  # of a table in the card; all are in its file
LIMITS = (
    "It knows the recordings listed under Data and nothing else. Other species, areas, tasks or recording "
    "methods are untested unless a table says otherwise.",
    "Scores are of held-out windows of the same kind of data. Compare them with the baselines beside them, "
    "not with other papers.",
    "It is a tool for research on groups of neurons, not for diagnosis or for decisions about people.",
)


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """A data set that a model was trained on.

    Attributes
    ----------
    name : str
    license : str
        As the data set states it; an SPDX name where there is one.
    citation, url : str
    """

    name: str
    license: str = NOT_STATED
    citation: str = ""
    url: str = ""


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What only people can say about a model; the rest of the card is written from the model itself.

    Attributes
    ----------
    title, description : str
    license : str
        Of the weights: an SPDX name, such as "cc-by-4.0".
    data : tuple of DataSource
    citation : str
        Text or BibTeX.
    contact : str
    limits : tuple of str
        In addition to those that hold for every model of neurokern.
    settings : mapping
        How it was trained, printed as YAML: windows, splits, optimizer. No paths: they often hold names.
    """

    title: str = "A neurokern model"
    description: str = ""
    license: str = NOT_STATED
    data: tuple[DataSource, ...] = ()
    citation: str = ""
    contact: str = ""
    limits: tuple[str, ...] = ()
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelCard:
        """Return the card that a mapping (of a YAML or JSON file) describes.

        Raises
        ------
        ValueError
            If a name is unknown or a value is not text.
        """
        given = dict(_known(cls, values, "card"))
        sources = given.pop("data", ())
        if isinstance(sources, (str, Mapping)) or not isinstance(sources, Sequence):
            raise ValueError(
                f"ModelCard: data must be a list of name, license, citation, url; got {sources!r}"
            )
        limits = given.pop("limits", ())
        settings = given.pop("settings", {})
        if isinstance(limits, str) or not isinstance(limits, Sequence) or not isinstance(settings, Mapping):
            raise ValueError("ModelCard: limits must be a list of text, and settings a mapping")
        data = tuple(DataSource(**_texts("data", _known(DataSource, one, "data"))) for one in sources)
        texts = _texts("card", given)
        return cls(data=data, limits=tuple(map(str, limits)), settings=dict(settings), **texts)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        return dataclasses.asdict(self)

    def check_complete(self) -> None:
        """Raise ValueError unless license and data are stated, which a published model owes its readers."""
        if self.license == NOT_STATED or not self.data or any(d.license == NOT_STATED for d in self.data):
            raise ValueError(
                "push_to_hub: the card must state the license of the weights, the data that the model was "
                "trained on and their licenses: "
                "ModelCard(license=..., data=(DataSource(name=..., license=...),))"
            )


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the card says that comes from the model.

    Attributes
    ----------
    kind : str
        In words.
    use : str
        Python lines.
    rows : tuple of (str, str)
        Names and values of the table "What is inside".
    config : mapping
    tables : mapping of heading to tables by name
    limits : tuple of str
        That follow from its kind.
    """

    kind: str
    use: str
    rows: tuple[tuple[str, str], ...]
    config: Mapping[str, Any]
    tables: Mapping[str, Mapping[str, pd.DataFrame]]
    limits: tuple[str, ...] = ()


def card_text(card: ModelCard, facts: Facts) -> str:
    """Return the card as Markdown with the header that the Hub reads."""
    header: dict[str, Any] = {
        "library_name": "neurokern",
        "tags": ["neuroscience", "neural-data", "neurokern"],
    }
    if card.license != NOT_STATED:
        header["license"] = card.license
    parts = [
        f"---\n{yaml.safe_dump(header, sort_keys=False, allow_unicode=True)}---\n# {_line(card.title)}",
        card.description.strip(),
        facts.kind,
        f"## Use\n```python\n{facts.use}\n```",
        f"## Data\n{_data(card.data)}",
        "## What is inside\n" + markdown_table(["", ""], facts.rows),
    ]
    for heading, tables in facts.tables.items():
        for name, table in tables.items():
            note = "; ".join(f"{key}: {value}" for key, value in table.attrs.items())
            parts.append(
                f"## {heading}: {_line(name)}\n" + (f"{_line(note)}\n\n" if note else "") + _frame(table)
            )
    parts.append(f"## Configuration\n```yaml\n{_yaml({'model': dict(facts.config), **card.settings})}```")
    parts.append(
        "## Limits\n" + "\n".join(f"- {_line(one)}" for one in (*facts.limits, *LIMITS, *card.limits))
    )
    parts.append(
        f"## License and citation\nWeights: {_line(card.license)}.\n\n{card.citation.strip()}".rstrip()
    )
    if card.contact:
        parts.append(f"## Contact\n{_line(card.contact)}")
    return "\n\n".join(part for part in parts if part) + "\n"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; bars and line ends within cells are made harmless."""
    lines = ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in (header, *rows)]
    lines.insert(1, "|" + "---|" * len(header))
    return "\n".join(lines)


def _frame(table: pd.DataFrame) -> str:
    """Print a table; an interval goes into the column of its value, and empty columns are left out."""
    table = table.dropna(axis=1, how="all")
    value = next((name for name in ("mean", "score") if name in table), None)
    merged = value is not None and {"low", "high"} <= set(table.columns)
    columns = [name for name in table.columns if not (merged and name in ("low", "high"))]
    rows = []
    for _, row in table.head(_MOST_ROWS).iterrows():
        cells = [_number(row[name]) for name in columns]
        if merged and not pd.isna(row["low"]):
            cells[columns.index(str(value))] += f" [{_number(row['low'])}, {_number(row['high'])}]"
        rows.append(cells)
    text = markdown_table([str(name) for name in columns], rows)
    more = len(table) - _MOST_ROWS
    return text + (f"\n\n{more} more rows are in the file." if more > 0 else "")


def _number(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _data(sources: Sequence[DataSource]) -> str:
    if not sources:
        return "Not stated."
    rows = [(one.name, one.license, one.citation, one.url) for one in sources]
    return markdown_table(("data set", "license", "citation", "address"), rows)


def _yaml(values: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True, default_flow_style=None).replace(
        "```", "'''"
    )


def _line(text: str) -> str:
    return " ".join(str(text).split())


def _cell(text: str) -> str:
    return _line(text).replace("|", "\\|")


def _known(kind: type, values: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(values, Mapping):
        raise ValueError(f"ModelCard: {what} must hold names and values, got {values!r}")
    known = [field.name for field in dataclasses.fields(kind)]
    if unknown := sorted(set(map(str, values)) - set(known)):
        raise ValueError(f"ModelCard: unknown keys {unknown} of {what}; known are {known}")
    return values


def _texts(what: str, values: Mapping[str, Any]) -> dict[str, str]:
    for name, value in values.items():
        if not isinstance(value, str):
            raise ValueError(f"ModelCard: {name} of {what} must be text, got {value!r}")
    return dict(values)
