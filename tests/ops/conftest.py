"""Fixtures of the op tests that read images."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the cache in a folder of the test's own."""
    monkeypatch.setenv("NEUROKERN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("NEUROKERN_GZIP_INDEX", raising=False)


@pytest.fixture
def small_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a buffer take four volumes of 40 voxels of int16, so that eleven volumes go in three pieces."""
    from neurokern.ops import _nifti_device

    monkeypatch.setattr(_nifti_device, "BUFFER_BYTES", 320)
    monkeypatch.setattr(_nifti_device, "_kept", [])
