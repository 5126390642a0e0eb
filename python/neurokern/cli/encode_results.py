"""What an encoding model leaves: scores of all targets, their summary, a map, a page."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neurokern.cli._common import text_table, write_csv
from neurokern.datasets._files import write_npz

if TYPE_CHECKING:
    from neurokern.cli.encode_inputs import EncodingData

__all__ = ["EncodingResult", "require_nibabel", "summary_text", "write_results"]

FDR = 0.05
_FEW_TARGETS = 8  # are shown one by one
_QUANTILES = {"p5": 0.05, "median": 0.5, "p95": 0.95, "highest": 1.0}


@dataclass(frozen=True, kw_only=True)
class EncodingResult:
    """Scores of all targets on held-out samples.

    Attributes
    ----------
    r2, pearson : array of shape (targets,), float64
        Over all test samples together; NaN for constant targets.
    alphas : array of shape (targets,), float64
        Of the model that was fitted to all samples.
    candidates : array of shape (alphas,), float64
    p_values, q_values : array of shape (targets,), float64, or None
    ceilings, parts : dict of str to array of shape (targets,), float64
        Noise ceilings with normalized scores, and parts of feature spaces, where they were asked for.
    notes : tuple of str
    settings : dict
        Everything that decides the result.
    """

    r2: NDArray[np.float64]
    pearson: NDArray[np.float64]
    alphas: NDArray[np.float64]
    candidates: NDArray[np.float64]
    p_values: NDArray[np.float64] | None = None
    q_values: NDArray[np.float64] | None = None
    ceilings: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    parts: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)

    def arrays(self) -> dict[str, NDArray[np.float64]]:
        """Return one array per score."""
        values = {"r2": self.r2, "pearson": self.pearson, "alpha": self.alphas}
        if self.p_values is not None and self.q_values is not None:
            values |= {"p_value": self.p_values, "q_value": self.q_values}
        return values | self.ceilings | self.parts

    def summary(self) -> pd.DataFrame:
        """Return a row per score: targets, mean, quantiles, share above 0."""
        rows = []
        for name, values in ({"r2": self.r2, "pearson": self.pearson} | self.ceilings | self.parts).items():
            known = values[np.isfinite(values)]
            known = known if known.size else np.array([np.nan])
            spread = {label: np.quantile(known, q) for label, q in _QUANTILES.items()}
            rows.append(
                {
                    "score": name,
                    "targets": int(np.isfinite(known).sum()),
                    "no_score": int((~np.isfinite(values)).sum()),
                    "mean": known.mean(),
                    **spread,
                    "above_0": (known > 0).mean(),
                }
            )
        return pd.DataFrame(rows)

    def facts(self) -> dict[str, Any]:
        """Return the summary as plain numbers, for JSON; NaN as None."""
        rows = self.summary().to_dict("records")
        scores = {str(row.pop("score")): {str(k): _plain(v) for k, v in row.items()} for row in rows}
        found: dict[str, Any] = {"scores": scores, "settings": self.settings, "notes": list(self.notes)}
        if self.q_values is not None:
            found["discoveries"] = {"q": FDR, "targets": self.n_discoveries}
        return found

    @property
    def n_discoveries(self) -> int:
        """Targets that are predicted above chance at a false discovery rate of 0.05."""
        return 0 if self.q_values is None else int((self.q_values <= FDR).sum())

    @property
    def share_at_edges(self) -> float:
        """Share of targets with the smallest or largest alpha."""
        edges = (self.candidates.min(), self.candidates.max())
        return float(np.isin(self.alphas, edges).mean()) if self.candidates.size > 2 else 0.0


def _plain(value: Any) -> float | int | None:
    number = value.item() if hasattr(value, "item") else value
    return None if isinstance(number, float) and not np.isfinite(number) else number


def summary_text(result: EncodingResult) -> str:
    """Return the summary as a text table."""
    table = result.summary()
    names = ["mean", *_QUANTILES, "above_0"]
    rows = [
        [str(row["score"]), f"{row['targets']:,}", *(f"{row[name]:.3f}" for name in names)]
        for row in table.to_dict("records")
    ]
    text = text_table(["held out", "targets", *names[:-1], "share above 0"], rows)
    if result.r2.size <= _FEW_TARGETS:
        text += "\n" + "\n".join(
            f"target {index}: r2 {r2:.3f}, pearson {r:.3f}, alpha {alpha:.4g}"
            for index, (r2, r, alpha) in enumerate(zip(result.r2, result.pearson, result.alphas, strict=True))
        )
    if result.q_values is not None:
        text += f"\n{result.n_discoveries:,} of {result.r2.size:,} targets above chance (q <= {FDR})"
    return text


def require_nibabel() -> None:
    """Raise ImportError with the remedy where nibabel is missing."""
    if importlib.util.find_spec("nibabel") is None:
        raise ImportError("maps are written by nibabel; install it with: pip install 'neurokern[nifti]'")


def write_results(
    folder: pathlib.Path, result: EncodingResult, data: EncodingData
) -> dict[str, pathlib.Path]:
    """Write scores, summary and, for images, maps; return the files by what they hold."""
    folder.mkdir(parents=True, exist_ok=True)
    scores = folder / "scores.npz"
    write_npz(scores, result.arrays())
    files = {"scores": scores, "summary": write_csv(folder / "summary.csv", result.summary())}
    if data.mask is not None:
        mapped = ["r2", "pearson", *result.ceilings, *(n for n in result.parts if not n.startswith("r2:"))]
        for name in mapped:
            file = folder / f"{name.replace(':', '_')}.nii.gz"
            files[f"{name} map"] = write_map(file, result.arrays()[name], data)
    return files


def write_map(path: pathlib.Path, values: NDArray[np.float64], data: EncodingData) -> pathlib.Path:
    """Write values of the mask's voxels as an image on the grid of the responses; NaN elsewhere."""
    import nibabel

    assert data.header is not None
    image = nibabel.Nifti1Image(volume_of(values, data), data.header.affine)
    image.header.set_xyzt_units("mm")
    temporary = path.with_name(f".{uuid.uuid4().hex}.{path.name}")
    try:
        nibabel.save(image, temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return path


def volume_of(values: NDArray[np.float64], data: EncodingData) -> NDArray[np.float32]:
    """Return values of the mask's voxels within a volume (x, y, z) of NaN."""
    assert data.mask is not None
    nx, ny, nz = data.mask.shape
    at = data.mask.positions  # x runs fastest
    volume = np.full((nx, ny, nz), np.nan, dtype=np.float32)
    volume[at % nx, at // nx % ny, at // (nx * ny)] = values
    return volume
