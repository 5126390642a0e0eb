"""Loading, windows and splits need numpy and pandas alone."""

from __future__ import annotations

import subprocess
import sys

LOAD_AND_SPLIT = """
import sys
sys.modules["torch"] = None  # any import of torch fails
from neurokern.datasets import BinnedSession, sliding_windows, split_session, with_region_groups
from neurokern.samples import load_sample
import numpy as np
recording = with_region_groups(load_sample(), 4)
windows = sliding_windows(recording, 1.0)
session = BinnedSession(
    counts=np.zeros((len(windows), 1, 289), dtype=np.uint8), bin_size=1.0, regions=recording.regions,
    unit_ids=np.arange(289), session="s", windows=windows,
)
print(split_session(session).note)
"""


def test_recordings_load_and_split_without_torch():
    result = subprocess.run(
        [sys.executable, "-c", LOAD_AND_SPLIT], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "84 train, 12 validation, 24 test; 0 dropped" in result.stdout


def test_unknown_names_are_attribute_errors():
    import neurokern.datasets as datasets

    assert not hasattr(datasets, "load_everything")
    assert set(datasets.__all__) <= set(dir(datasets))
