"""Nearest class means: the read-out with the fewest numbers to learn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neurokern._check import check_choice, check_number, check_positive
from neurokern.adapters._labels import Features, Scaler, check_features, class_counts, unit_length
from neurokern.adapters.closed_form._probe import ClosedFormProbe, Solution


class PrototypeProbe(ClosedFormProbe):
    r"""Assign samples to the nearest prototype: the class mean, drawn to what was known before.

    Prototypes are :math:`\mu_c = (n_c \bar x_c + k m_c) / (n_c + k)`, decision scores
    :math:`-\|z - \mu_c\|^2 / t` up to a constant of each sample.

    Parameters
    ----------
    metric : {"euclidean", "cosine"}, default "euclidean"
        With "cosine" samples and prototypes are brought to unit length, before features are centered; scores
        are then :math:`2 \cos(z, \mu_c) / t`. Features far from the origin all point the same way: center
        those before.
    pseudo_counts : float, default 0
        k: how many samples the prior mean is worth.
    prior_means : mapping of label to array (features,), or array (features,), optional
        m: of each class (base classes, or the classes of other subjects), or one for all. By default the mean
        of the class means of the support set.
    temperature : float, default 1.0
        t; for the probabilities only.
    standardize : bool, default False
        Divide features by their spread over the support set; not with "cosine".

    References
    ----------
    .. [1] Snell, Swersky, Zemel, "Prototypical networks for few-shot learning", NeurIPS 2017.
    .. [2] Tibshirani et al., "Diagnosis of multiple cancer types by shrunken centroids of gene expression",
       PNAS 99 (2002), 6567-6572.

    Examples
    --------
    >>> probe = PrototypeProbe().fit(np.array([[0.0, 0.0], [2.0, 2.0]]), ["rest", "move"])
    >>> probe.predict(np.array([[0.5, 0.4]])).tolist()
    ['rest']
    """

    def __init__(
        self,
        metric: str = "euclidean",
        *,
        pseudo_counts: float = 0.0,
        prior_means: Mapping[object, Features] | Features | Sequence[float] | None = None,
        temperature: float = 1.0,
        standardize: bool = False,
    ) -> None:
        check_choice("PrototypeProbe", "metric", metric, ("euclidean", "cosine"))
        if not 0 <= check_number("PrototypeProbe", "pseudo_counts", pseudo_counts) < math.inf:
            raise ValueError(
                f"PrototypeProbe: pseudo_counts must be finite and not below 0, got {pseudo_counts!r}"
            )
        if metric == "cosine" and standardize:
            raise ValueError('PrototypeProbe: standardize must be False with metric="cosine"')
        if prior_means is not None and not pseudo_counts:
            raise ValueError("PrototypeProbe: prior_means need pseudo_counts above 0, got 0")
        super().__init__(standardize=standardize)
        self._unit_length = metric == "cosine"
        self._pseudo_counts = float(pseudo_counts)
        self._prior_means = prior_means
        self._temperature = check_positive("PrototypeProbe", "temperature", temperature)

    def _solve(self, features: Tensor, number: Tensor, scaler: Scaler) -> Solution:
        features = features.double()
        counts = class_counts(number, len(self.classes_)).double()
        one_hot = torch.nn.functional.one_hot(number, len(self.classes_)).double()
        means = one_hot.mT @ features / counts[:, :, None]  # (episodes, classes, features)
        if self._pseudo_counts:
            k = self._pseudo_counts
            means = (counts[:, :, None] * means + k * self._priors(means, scaler)) / (counts[:, :, None] + k)
        if self._unit_length:  # about the origin, where cosines are measured
            center = scaler.mean[:, None].double()
            prototypes = unit_length(means + center)
            weights = 2 / self._temperature * prototypes.mT
            return Solution(weights, (center @ weights)[:, 0], {})
        weights = 2 / self._temperature * means.mT
        return Solution(weights, -means.square().sum(2) / self._temperature, {})

    def _priors(self, means: Tensor, scaler: Scaler) -> Tensor:
        """Prior means as scaled features, (episodes or 1, classes or 1, features)."""
        given = self._prior_means
        if given is None:
            return means.mean(1, keepdim=True)
        name = "PrototypeProbe: prior_means"
        if isinstance(given, Mapping):
            missing = [label for label in self.classes_.tolist() if label not in given]
            if missing:
                raise ValueError(f"{name} must hold all classes, got none of {missing}")
            rows: list[Any] = [given[label] for label in self.classes_.tolist()]
        else:
            rows = [given]
        wanted = (means.shape[2],)
        each = [row.detach().cpu().numpy() if isinstance(row, Tensor) else np.asarray(row) for row in rows]
        wrong = [row.shape for row in each if row.shape != wanted]
        if wrong:
            raise ValueError(f"{name} must have shape {wanted}, one number per feature, got {wrong[0]}")
        prior = check_features(name, np.stack(each)).to(means)
        return scaler_of(scaler)(unit_length(prior)[None] if self._unit_length else prior[None])


def scaler_of(scaler: Scaler) -> Scaler:
    """The same scaler in float64."""
    return Scaler(scaler.mean.double(), scaler.scale.double())
