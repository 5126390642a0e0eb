"""How much of one brain area do the others tell? Ridge from all other areas to the units of each.

Run it with ``python examples/predict_areas.py FILE [FILE ...]``: npz files of binned counts with areas, as of
the 12 sessions of Steinmetz et al. (2019) that docs/results.md describes. The last fifth of the trials is the
test set; alphas are chosen for each unit by five folds of whole trials before it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from neurokern.datasets import load_recording
from neurokern.encoding import RidgeEncoder, contiguous_folds, score_predictions

BINS = 5  # of 10 ms, summed
ALPHAS = np.logspace(1, 6, 21)
FEWEST_UNITS = 5  # of an area


def coarse_roots(counts: np.ndarray) -> np.ndarray:
    """Return square roots of counts in longer bins, (trials, bins, units): their variance varies less."""
    n_trials, n_bins, n_units = counts.shape
    kept = counts[:, : n_bins - n_bins % BINS].reshape(n_trials, -1, BINS, n_units)
    return np.sqrt(kept.sum(2, dtype=np.float32))


def predict_area(roots: np.ndarray, members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Predict the members from all other units on the last fifth of the trials.

    Returns the share of the squared error about each unit's mean of the training trials that is removed, and
    the same about its mean of the test trials, which no model could know (R2).
    """
    n_bins, n_train = roots.shape[1], len(roots) - len(roots) // 5
    trials = np.arange(n_train * n_bins) // n_bins
    folds = [
        (np.flatnonzero(np.isin(trials, train)), np.flatnonzero(np.isin(trials, test)))
        for train, test in contiguous_folds(n_train, 5)
    ]
    train, test = (part.reshape(-1, roots.shape[2]) for part in (roots[:n_train], roots[n_train:]))
    encoder = RidgeEncoder(alphas=ALPHAS, folds=folds).fit(train[:, ~members], train[:, members])
    predicted, observed = encoder.predict(test[:, ~members]), test[:, members]
    known_mean = np.broadcast_to(train[:, members].mean(0), observed.shape)
    error, known = (score_predictions(one, observed, "mse") for one in (predicted, known_mean))
    r2 = score_predictions(predicted, observed, "r2")
    removed = np.full(len(r2), np.nan)  # units that are silent in the test trials have no score
    removed[~np.isnan(r2)] = (1 - error / np.maximum(known, 1e-12))[~np.isnan(r2)]
    return removed, r2


def main(*files: str) -> None:
    """Print a row for each session and the mean over sessions."""
    print("| session | units | areas | against training mean | R2 (test mean): mean | median | best area |")
    print("|---|---|---|---|---|---|---|")
    means = []
    for file in files:
        session = load_recording(file)
        roots = coarse_roots(np.asarray(session.counts))
        areas = [
            area for area in np.unique(session.regions) if (session.regions == area).sum() >= FEWEST_UNITS
        ]
        scores = {area: predict_area(roots, session.regions == area) for area in areas}
        removed, r2 = (np.concatenate(values) for values in zip(*scores.values(), strict=True))
        best, value = max(((area, np.nanmean(one)) for area, (one, _) in scores.items()), key=lambda x: x[1])
        means.append([np.nanmean(removed), np.nanmean(r2), np.nanmedian(r2)])
        cells = " | ".join(f"{mean:+.3f}" for mean in means[-1])
        name, n_units = Path(file).stem, int(np.isfinite(r2).sum())
        print(f"| {name} | {n_units} | {len(areas)} | {cells} | {best} {value:+.3f} |")
    cells = " | ".join(f"{mean:+.3f}" for mean in np.mean(means, axis=0))
    print(f"| mean of {len(files)} | | | {cells} | |")


if __name__ == "__main__":
    main(*sys.argv[1:])
