"""From and to the objects and files of other packages, each imported when its bridge is used.

What has no place on the other side is named in a warning; times, channels, units, their order and names,
and what is valid are kept.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

_HOME_OF = {
    "DescribedWindows": "described",
    "WebDatasetWindows": "webdataset",
    "from_braindecode": "braindecode",
    "from_litdata": "litdata",
    "from_moabb": "moabb",
    "from_neuralset": "neuralset",
    "to_braindecode": "braindecode",
    "to_litdata": "litdata",
    "to_webdataset": "webdataset",
    "from_pynapple": "pynapple",
    "from_spikeinterface": "spikeinterface",
    "from_temporaldata": "temporaldata",
    "interval_windows": "temporaldata",
    "to_pynapple": "pynapple",
    "to_spikeinterface": "spikeinterface",
    "to_temporaldata": "temporaldata",
}

__all__ = [
    "DescribedWindows",
    "WebDatasetWindows",
    "from_braindecode",
    "from_litdata",
    "from_moabb",
    "from_neuralset",
    "from_pynapple",
    "from_spikeinterface",
    "from_temporaldata",
    "interval_windows",
    "to_braindecode",
    "to_litdata",
    "to_pynapple",
    "to_spikeinterface",
    "to_temporaldata",
    "to_webdataset",
]

if TYPE_CHECKING:
    from neurokern.datasets.bridges.braindecode import from_braindecode, to_braindecode
    from neurokern.datasets.bridges.described import DescribedWindows
    from neurokern.datasets.bridges.litdata import from_litdata, to_litdata
    from neurokern.datasets.bridges.moabb import from_moabb
    from neurokern.datasets.bridges.neuralset import from_neuralset
    from neurokern.datasets.bridges.pynapple import from_pynapple, to_pynapple
    from neurokern.datasets.bridges.spikeinterface import from_spikeinterface, to_spikeinterface
    from neurokern.datasets.bridges.temporaldata import from_temporaldata, interval_windows, to_temporaldata
    from neurokern.datasets.bridges.webdataset import WebDatasetWindows, to_webdataset


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'neurokern.datasets.bridges' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"neurokern.datasets.bridges.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(_HOME_OF)
