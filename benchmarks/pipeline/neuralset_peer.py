"""Windows of fMRI runs through neuralset, as its documentation has it: events, an extractor, a Segmenter.

neuralset 0.4.0 asks for Python 3.12; on 3.11 it runs by ``pip install --ignore-requires-python --no-deps
neuralset exca`` and what they import (pydantic, rapidfuzz, ujson, submitit).
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from nifti_runs import Run

TR = 2.0


def epochs(
    runs: Sequence[Run], mask: np.ndarray, folder: Path, *, length: int, stride: int, batch: int
) -> dict[str, Callable[[list[int]], torch.Tensor]]:
    """Return calls that read an epoch in a given order, from its cache on disk and from its memory."""
    warnings.filterwarnings("ignore", module="neuralset")
    import neuralset
    from neuralset.events import standardize_events
    from neuralset.extractors.neuro import BaseFmriProjector, FmriExtractor

    logging.getLogger("neuralset").setLevel(logging.ERROR)

    class GivenMask(BaseFmriProjector):  # its own projectors take masks of templates alone
        path: str

        def apply(self, rec: Any, **options: Any) -> np.ndarray:
            return np.asarray(rec.get_fdata(dtype=np.float32)[np.load(self.path)])

    path = folder / f"mask{int(mask.sum())}.npy"
    np.save(path, mask)
    rows = [
        {"type": "Fmri", "start": 0.0, "duration": TR * run.n_volumes, "timeline": f"run{i}",
         "filepath": str(run.compressed()), "subject": str(i), "frequency": 1 / TR}
        for i, run in enumerate(runs)
    ]  # fmt: skip
    events = standardize_events(pd.DataFrame(rows))
    calls = {}
    for name, in_memory in (("neuralset, from its disk cache", False), ("neuralset, in memory", True)):
        infra = {"folder": str(folder / "neuralset"), "keep_in_ram": in_memory, "cluster": None}
        extractor = FmriExtractor(projection=GivenMask(path=str(path)), cleaning=None, infra=infra)
        segmenter = neuralset.Segmenter(
            extractors={"bold": extractor},
            trigger_query="type == 'Fmri'",
            duration=TR * length,
            stride=TR * stride,
        )
        data = segmenter.apply(events)
        data.prepare()
        calls[name] = _epoch(data, batch)
    return calls


def _epoch(data: Any, batch: int) -> Callable[[list[int]], torch.Tensor]:
    def call(order: list[int]) -> torch.Tensor:
        for found in data.build_dataloader(batch_size=batch, sampler=order):
            last = found.data["bold"][-1]
        return last.T

    return call
