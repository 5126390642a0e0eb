"""Tables of layers against brain regions (and times): score, interval, ceiling."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from neurokern._check import check_integer
from neurokern.alignment._measures import Measure, Named, Similarity, by_name, measure_of
from neurokern.alignment._patterns import as_patterns
from neurokern.alignment.ceilings import FITTED, Ceilings, mean_of
from neurokern.alignment.gaussian_fields import GaussianFieldEncoder
from neurokern.alignment.shape import fit_pls
from neurokern.encoding import RidgeEncoder, contiguous_folds, predict_held_out, score_predictions
from neurokern.encoding._arrays import as_tensor
from neurokern.metrics import bootstrap_interval

__all__ = ["ALIGNMENT_METHODS", "alignment_table"]

ALIGNMENT_METHODS = (*FITTED, "rsa", "trsa", "cka", "debiased-cka", "svcca", "procrustes")
_FEWEST_SAMPLES = 6  # jackknife groups and folds leave some out


def alignment_table(
    features: Named,
    responses: Named,
    *,
    method: str | Similarity = "ridge",
    ceilings: Mapping[str, Any] | None = None,
    metric: str = "correlation",
    comparison: str = "spearman",
    n_components: int = 25,
    folds: int = 5,
    encoder: RidgeEncoder | GaussianFieldEncoder | None = None,
    n_groups: int = 20,
    confidence: float = 0.95,
    seed: int = 0,
    progress: bool = False,
) -> pd.DataFrame:
    """Score each layer against each region, and each time where responses have any.

    Parameters
    ----------
    features : mapping of str to array of shape (samples, features), or pairs of them
        Layers, such as :func:`layer_features` returns. Further axes are flattened, but for "gaussian".
    responses : mapping of str to array of shape (samples, targets) or (samples, times, targets), or pairs
        Regions: responses of voxels or units to the same samples (stimuli, trials, windows).
    method : str or callable
        "ridge": held-out correlation of :class:`neurokern.encoding.RidgeEncoder`, mean over targets; "pls"
        the same of partial least squares; "gaussian" the same of :class:`GaussianFieldEncoder`, whose layers
        are feature maps ``(samples, channels, [height,] width)``; "rsa": similarity of RDMs; "trsa": the same
        of geo-topological RDMs; "cka", "debiased-cka"; "svcca": mean canonical correlation; "procrustes":
        cosine of the angle after the best rotation (1 is the same shape); or a function of X (samples,
        features) and Y (samples, targets), float64 tensors, that gives a number.
    ceilings : mapping of str to float or array of shape (targets,), (times,) or (times, targets), optional
        The highest score that noise allows, per region (per target for "ridge", "pls", "gaussian"), such as
        :func:`response_ceilings` returns.
    metric, comparison : str
        For "rsa" and "trsa", as in :func:`compute_rdm` and :func:`compare_rdms`.
    n_components : int, default 25
        For "pls".
    folds : int, default 5
        Contiguous stretches of samples that fitted methods are tested on; alphas are chosen within the
        training samples.
    encoder : RidgeEncoder or GaussianFieldEncoder, optional
        Settings for "ridge" (by default standardized features and an alpha for each target) or "gaussian".
    n_groups : int, default 20
        Groups of samples that are left out in turn for the intervals of similarities.
    confidence : float, default 0.95
    seed : int, default 0
    progress : bool, default False
        Show a bar.

    Returns
    -------
    table : DataFrame
        Columns ``layer, region, [time,] score, low, high, ceiling, normalized, n_samples, n_targets``; the
        settings are in ``table.attrs``. The interval is a bootstrap over targets for "ridge", "pls" and
        "gaussian" (what other voxels would give), and a delete-group jackknife over samples else (what other
        stimuli would give). ``normalized`` is the score as a share of the ceiling: of each target, averaged
        over those with a squared ceiling of at least 0.1, for fitted methods. Scores that are not defined (a
        region or layer that never varies) are NaN.

    Raises
    ------
    ValueError
        If there is no layer or region, a name comes twice, samples differ in number or are fewer than six, a
        value is not finite, or an option or ceiling does not fit.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> layer = rng.normal(size=(60, 4))
    >>> table = alignment_table({"conv1": layer}, {"V1": layer @ rng.normal(size=(4, 9))}, method="cka")
    >>> table[["layer", "region"]].values.tolist()
    [['conv1', 'V1']]
    """
    function = "alignment_table"
    if not callable(method) and method not in ALIGNMENT_METHODS:
        raise ValueError(
            f"{function}: method must be one of {', '.join(map(repr, ALIGNMENT_METHODS))} or a function, got "
            f"{method!r}"
        )
    if not 0 < confidence < 1:
        raise ValueError(f"{function}: confidence must lie within (0, 1), got {confidence!r}")
    _check_encoder(function, method, encoder)
    flat = method != "gaussian"
    layers = {name: _layer(name, X, flat=flat) for name, X in by_name(function, "features", features).items()}
    regions = {name: _region(name, Y) for name, Y in by_name(function, "responses", responses).items()}
    n_samples = _check_samples(function, layers, regions)
    limits = Ceilings(function, ceilings, regions, per_target=method in FITTED)
    if method in FITTED:
        predict = _predictor(str(method), encoder, n_components, folds, n_samples)
        rows = _fitted_rows(layers, regions, predict, limits, confidence, seed, progress)
    else:
        n_groups = check_integer(function, "n_groups", n_groups)
        if n_groups < 2:
            raise ValueError(f"{function}: n_groups must be at least 2, got {n_groups}")
        subsets = _subsets(n_samples, min(n_groups, n_samples), seed)
        measure = measure_of(method, metric, comparison)
        rows = _similarity_rows(layers, regions, measure, subsets, limits, confidence, progress)
    table = pd.DataFrame(rows)
    if not limits.has_time:
        table = table.drop(columns="time")
    name = method if isinstance(method, str) else getattr(method, "__name__", "function")
    used: dict[Any, Any] = {"method": name}
    if method in ("rsa", "trsa"):
        used |= {"metric": metric, "comparison": comparison}
    if method in FITTED:
        used |= {"folds": folds, "score": "correlation"}
    if method == "pls":
        used |= {"n_components": n_components}
    table.attrs = used | {"confidence": confidence, "seed": seed}
    return table


def _check_encoder(function: str, method: str | Similarity, encoder: object) -> None:
    kinds = {"ridge": RidgeEncoder, "gaussian": GaussianFieldEncoder}
    wanted = kinds.get(method) if isinstance(method, str) else None
    if encoder is not None and (wanted is None or not isinstance(encoder, wanted)):
        needs = wanted.__name__ if wanted else "None"
        raise TypeError(f"{function}: encoder must be {needs} for {method!r}, got {type(encoder).__name__}")


def _layer(name: str, values: Any, *, flat: bool) -> Tensor:
    what = f"features[{name!r}]"
    tensor = as_tensor("alignment_table", what, values)
    if not flat:
        if tensor.ndim < 3:
            raise ValueError(
                f"alignment_table: {what} must have shape (samples, channels, [height,] width) for "
                f"'gaussian', got {tuple(tensor.shape)}; take layer_features(..., pool='none')"
            )
        return as_patterns("alignment_table", what, tensor.flatten(1)).reshape(tensor.shape)
    return as_patterns("alignment_table", what, tensor.flatten(1) if tensor.ndim > 2 else tensor)


def _region(name: str, values: Any) -> Tensor:
    """Return responses as (samples, targets) or (samples, times, targets)."""
    tensor = as_patterns("alignment_table", f"responses[{name!r}]", values, least=1)
    if tensor.ndim not in (2, 3):
        raise ValueError(
            f"alignment_table: responses[{name!r}] must have shape (samples, [times,] targets), got "
            f"{tuple(tensor.shape)}"
        )
    return tensor


def _check_samples(function: str, layers: dict[str, Tensor], regions: dict[str, Tensor]) -> int:
    sizes = {f"features[{k!r}]": len(v) for k, v in layers.items()}
    sizes |= {f"responses[{k!r}]": len(v) for k, v in regions.items()}
    (first, n_samples), *rest = sizes.items()
    for name, size in rest:
        if size != n_samples:
            raise ValueError(
                f"{function}: all layers and regions must have the same samples, got {n_samples} of {first} "
                f"and {size} of {name}"
            )
    if n_samples < _FEWEST_SAMPLES:
        raise ValueError(f"{function}: at least {_FEWEST_SAMPLES} samples are needed, got {n_samples}")
    return n_samples


def _predictor(
    method: str,
    encoder: RidgeEncoder | GaussianFieldEncoder | None,
    n_components: int,
    folds: int,
    n_samples: int,
) -> Callable[[Tensor, Tensor], Tensor]:
    pairs = contiguous_folds(n_samples, folds)
    within = min(5, n_samples - n_samples // folds - 1)
    if method == "ridge":
        settings = (
            encoder if isinstance(encoder, RidgeEncoder) else RidgeEncoder(standardize=True, folds=within)
        )
        return lambda X, Y: torch.as_tensor(predict_held_out(settings, X, Y, pairs))

    if method == "gaussian":
        given = encoder if isinstance(encoder, GaussianFieldEncoder) else GaussianFieldEncoder(folds=within)

        def by_fields(X: Tensor, Y: Tensor) -> Tensor:
            predicted = torch.empty_like(Y)
            for train, test in pairs:
                predicted[test] = torch.as_tensor(given.fit(X[train], Y[train]).predict(X[test])).to(Y.dtype)
            return predicted

        return by_fields

    def by_pls(X: Tensor, Y: Tensor) -> Tensor:
        predicted = torch.empty_like(Y)
        for train, test in pairs:
            fit = fit_pls(X[train], Y[train], n_components)
            predicted[test] = X[test] @ fit.weights + fit.intercept
        return predicted

    return by_pls


def _fitted_rows(
    layers: dict[str, Tensor],
    regions: dict[str, Tensor],
    predict: Callable[[Tensor, Tensor], Tensor],
    limits: Ceilings,
    confidence: float,
    seed: int,
    progress: bool,
) -> list[dict[str, Any]]:
    """Fit each layer to the targets of all regions and times at once."""
    device = next(iter(layers.values())).device
    targets = torch.cat([Y.flatten(1).to(device) for Y in regions.values()], 1)
    rows = []
    for layer, X in tqdm(layers.items(), desc="layers", disable=not progress, leave=False):
        scores = torch.as_tensor(score_predictions(predict(X, targets), targets, "pearson")).cpu().numpy()
        first = 0
        for region, Y in regions.items():
            width, n_times = Y.shape[-1], Y.shape[1] if Y.ndim == 3 else 1
            for time in range(n_times):
                own = scores[first : first + width]
                first += width
                low, high = bootstrap_interval(own, confidence=confidence, n_bootstrap=1000, seed=seed)
                ceiling, normalized = limits.of_targets(region, time, own)
                rows.append(_row(layer, region, time, mean_of(own), (low, high), ceiling, normalized, Y))
    return rows


def _row(
    layer: str,
    region: str,
    time: int,
    score: float,
    interval: tuple[float, float],
    ceiling: float,
    normalized: float,
    Y: Tensor,
) -> dict[str, Any]:
    return {
        "layer": layer,
        "region": region,
        "time": time,
        "score": score,
        "low": interval[0],
        "high": interval[1],
        "ceiling": ceiling,
        "normalized": normalized,
        "n_samples": len(Y),
        "n_targets": Y.shape[-1],
    }


def _subsets(n_samples: int, n_groups: int, seed: int) -> list[Tensor]:
    """All samples, then all but those of each group."""
    order = torch.from_numpy(np.random.default_rng(seed).permutation(n_samples))
    left_out = order.tensor_split(n_groups)
    everyone = torch.arange(n_samples)
    return [everyone, *(everyone[~torch.isin(everyone, group)] for group in left_out)]


def _similarity_rows(
    layers: dict[str, Tensor],
    regions: dict[str, Tensor],
    measure: Measure,
    subsets: list[Tensor],
    limits: Ceilings,
    confidence: float,
    progress: bool,
) -> list[dict[str, Any]]:
    device = next(iter(layers.values())).device
    found: dict[tuple[str, str], list[np.ndarray]] = {(a, b): [] for a in layers for b in regions}
    by_time = {
        name: (Y[:, None] if Y.ndim == 2 else Y).movedim(0, -2).to(device) for name, Y in regions.items()
    }
    for rows in tqdm(subsets, desc="subsets of samples", disable=not progress, leave=False):
        prepared = {name: measure.prepare(Y[:, rows]) for name, Y in by_time.items()}
        for layer, X in layers.items():
            own = measure.prepare(X[rows])
            for region, other in prepared.items():
                found[layer, region].append(measure.compare(own, other).cpu().numpy())
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    table = []
    for (layer, region), values in found.items():
        whole, parts = values[0], np.stack(values[1:])
        n_groups = len(parts)
        error = z * np.sqrt((n_groups - 1) / n_groups * ((parts - parts.mean(0)) ** 2).sum(0))
        for time, score in enumerate(whole):
            interval = (float(score - error[time]), float(score + error[time]))
            ceiling, normalized = limits.of_score(region, time, float(score))
            row = _row(layer, region, time, float(score), interval, ceiling, normalized, regions[region])
            table.append(row)
    return table
