"""Lay sections of text, figures and tables out as one HTML file that needs no network."""

from __future__ import annotations

import html
import importlib.resources
import os
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from neurokern import __version__
from neurokern._config import write_text

__all__ = ["Figure", "Section", "Table", "render_page", "write_page"]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A picture with its caption.

    Attributes
    ----------
    source : str
        ``data:`` address of the picture (:func:`neurokern.report.style.to_data_uri`).
    alt : str
        What the picture shows, for those who cannot see it.
    caption : str
        What to look at and what not to conclude; plain text.
    """

    source: str
    alt: str
    caption: str


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of text under a header; columns after the first are aligned right, or, of ``words``, left.

    ``strong`` holds (row, column) of the cells to set in bold.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    strong: frozenset[tuple[int, int]] = frozenset()
    words: bool = False


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading, paragraphs of plain text, then figures and tables in order."""

    title: str
    text: Sequence[str] = ()
    parts: Sequence[Figure | Table] = field(default_factory=tuple)


def render_page(
    title: str, lede: Sequence[str], sections: Sequence[Section], facts: Mapping[str, str] | None = None
) -> str:
    """Return the page as HTML.

    Parameters
    ----------
    title : str
        Heading of the page.
    lede : sequence of str
        First paragraphs: which data, how they were treated, how far the results reach.
    sections : sequence of Section
        Body, in order.
    facts : mapping of str to str, optional
        Shown as a definition list at the end (versions, seed, configuration, times); multi-line values keep
        their lines.
    """
    body = "\n".join(_section(section) for section in sections)
    paragraphs = "\n".join(f'<p class="lede">{html.escape(paragraph)}</p>' for paragraph in lede)
    return _PAGE.format(
        title=html.escape(title),
        style=_read_style(),
        lede=paragraphs,
        body=body,
        facts=_facts(facts or {}),
        version=__version__,
    )


def write_page(
    path: str | os.PathLike[str],
    title: str,
    lede: Sequence[str],
    sections: Sequence[Section],
    facts: Mapping[str, str] | None = None,
) -> pathlib.Path:
    """Write :func:`render_page` to ``path`` atomically and return the path."""
    write_text(path, render_page(title, lede, sections, facts))
    return pathlib.Path(path)


def _read_style() -> str:
    return importlib.resources.files("neurokern.report").joinpath("page.css").read_text(encoding="utf-8")


def _section(section: Section) -> str:
    paragraphs = "\n".join(f"<p>{html.escape(paragraph)}</p>" for paragraph in section.text)
    parts = "\n".join(_figure(part) if isinstance(part, Figure) else _table(part) for part in section.parts)
    return f"<section>\n<h2>{html.escape(section.title)}</h2>\n{paragraphs}\n{parts}\n</section>"


def _figure(figure: Figure) -> str:
    return (
        f'<figure><img src="{html.escape(figure.source)}" alt="{html.escape(figure.alt)}">'
        f"<figcaption>{html.escape(figure.caption)}</figcaption></figure>"
    )


def _table(table: Table) -> str:
    header = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in table.header)
    rows = "\n".join(_row(index, row, table.strong) for index, row in enumerate(table.rows))
    caption = f"<figcaption>{html.escape(table.caption)}</figcaption>" if table.caption else ""
    kind = ' class="words"' if table.words else ""
    head = f"<thead><tr>{header}</tr></thead>" if any(table.header) else ""
    return f"<figure><table{kind}>{head}<tbody>\n{rows}\n</tbody></table>{caption}</figure>"


def _row(index: int, row: Sequence[str], strong: frozenset[tuple[int, int]]) -> str:
    cells = [f'<th scope="row">{html.escape(row[0])}</th>']
    for column, text in enumerate(row[1:], start=1):
        content = html.escape(text)
        cells.append(f"<td>{f'<b>{content}</b>' if (index, column) in strong else content}</td>")
    return f"<tr>{''.join(cells)}</tr>"


def _facts(facts: Mapping[str, str]) -> str:
    if not facts:
        return ""
    items = "\n".join(f"<dt>{html.escape(name)}</dt><dd>{_fact(value)}</dd>" for name, value in facts.items())
    return f"<section>\n<h2>Run facts</h2>\n<dl>\n{items}\n</dl>\n</section>"


def _fact(value: str) -> str:
    content = html.escape(value)
    return f"<pre>{content}</pre>" if "\n" in value else content


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<header>
<h1>{title}</h1>
{lede}
</header>
{body}
{facts}
<footer>Made by neurokern {version}. This file is complete in itself and loads nothing.</footer>
</main>
</body>
</html>
"""
