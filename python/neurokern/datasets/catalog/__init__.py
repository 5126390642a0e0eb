"""Public datasets: cards that say what they are and whence they come, and downloads that are checked.

Nothing here touches the network but :func:`download`, and :func:`list_files` of cards whose source is asked
for its own list.

Examples
--------
>>> from neurokern.datasets.catalog import cards, find_card
>>> "fmri" in find_card("studyforrest").modality
True
"""

from __future__ import annotations

from neurokern.datasets.catalog.card import Card, RemoteFile, cards, find_card, read_card
from neurokern.datasets.catalog.download import Downloaded, DownloadError, download
from neurokern.datasets.catalog.making import make_card
from neurokern.datasets.catalog.sources import list_files, select_files

__all__ = [
    "Card",
    "DownloadError",
    "Downloaded",
    "RemoteFile",
    "cards",
    "download",
    "find_card",
    "list_files",
    "make_card",
    "read_card",
    "select_files",
]
