"""One self-contained HTML page about a run: figures of plain arrays, captions that say how far they reach."""

from neurokern.report.page import Figure, Section, Table, render_page, write_page

__all__ = ["Figure", "Section", "Table", "render_page", "write_page"]
