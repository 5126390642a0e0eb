"""Small recordings for the tests of datasets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from neurokern.datasets import BinnedSession, SpikeRecording


@pytest.fixture
def random_recording() -> Callable[..., SpikeRecording]:
    """Return a maker of recordings with Poisson-like spikes."""

    def make(
        n_units: int = 5, duration: float = 20.0, session: str = "session", seed: int = 0
    ) -> SpikeRecording:
        random = np.random.default_rng(seed)
        n_spikes = int(n_units * duration * 10)
        times = np.sort(random.uniform(0, duration, n_spikes))
        return SpikeRecording.from_arrays(
            times,
            random.integers(n_units, size=n_spikes),
            unit_ids=np.arange(n_units),
            regions=[f"region {k % 2}" for k in range(n_units)],
            session=session,
            start=0.0,
            stop=duration,
        )

    return make


@pytest.fixture
def random_session() -> Callable[..., BinnedSession]:
    """Return a maker of binned sessions."""

    def make(
        n_windows: int = 10,
        n_bins: int = 4,
        n_units: int = 3,
        session: str = "session",
        seed: int = 0,
        **fields: object,
    ) -> BinnedSession:
        random = np.random.default_rng(seed)
        return BinnedSession(
            counts=random.integers(0, 9, size=(n_windows, n_bins, n_units), dtype=np.uint8),
            bin_size=0.05,
            regions=np.array([f"region {k % 2}" for k in range(n_units)]),
            unit_ids=np.arange(n_units),
            session=session,
            **fields,
        )

    return make


@pytest.fixture
def alf_folder(tmp_path: Path) -> Callable[..., Path]:
    """Return a writer of ALF folders: ``alf_folder({"spikes.times": [...]}, "alf/probe00")``."""

    def write(arrays: dict[str, object], below: str = ".") -> Path:
        folder = tmp_path / below
        folder.mkdir(parents=True, exist_ok=True)
        for name, values in arrays.items():
            np.save(folder / f"{name}.npy", np.asarray(values), allow_pickle=False)
        return tmp_path

    return write
