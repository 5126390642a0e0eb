"""Federated training of one shared body with private layers: what is shared, and how states are averaged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from neurokern.adapters.selection import match_names

__all__ = ["average_states", "load_shared_state", "shared_state"]


def shared_state(model: nn.Module, private: str | Sequence[str] = ()) -> dict[str, Tensor]:
    """Return copies of the weights that leave the site: all but those that match ``private``.

    Parameters
    ----------
    model : nn.Module
    private : str or sequence of str
        Shell patterns of names in the state dict, such as ``"read_in.*"``: layers that depend on the site's
        own channels or sampling rate, or that must not be shared.

    Raises
    ------
    ValueError
        If a pattern matches nothing: weights meant to stay private would be sent.
    """
    state = model.state_dict()
    kept = set(match_names("shared_state", state, private, "weight")) if private else set()
    return {name: value.detach().clone() for name, value in state.items() if name not in kept}


def average_states(states: Sequence[Mapping[str, Tensor]], n_samples: Sequence[float]) -> dict[str, Tensor]:
    """Average the sites' weights, each weighted by its number of samples (federated averaging [1]_).

    Parameters
    ----------
    states : sequence of state dicts
        As :func:`shared_state` returns; the same names and shapes.
    n_samples : sequence of float
        One for each state, at least 0, not all 0.

    Returns
    -------
    average : dict of str to tensor
        Summed in float64 and returned in the type of the first state. Whole numbers (counters of batches)
        are not averaged: the largest one is kept.

    Raises
    ------
    ValueError
        If names, shapes or numbers do not fit, or a weight is not finite: one broken site would spoil all.

    References
    ----------
    .. [1] McMahan et al., "Communication-efficient learning of deep networks from decentralized data",
       AISTATS 2017.
    """
    weights = torch.tensor([float(number) for number in n_samples], dtype=torch.float64)
    if not states or len(states) != len(weights):
        raise ValueError(
            f"average_states: states and n_samples must be equally long and hold something, "
            f"got {len(states)} and {len(weights)}"
        )
    if not ((weights >= 0) & weights.isfinite()).all() or weights.sum() == 0:
        raise ValueError(
            f"average_states: n_samples must be at least 0 and not all 0, got {weights.tolist()}"
        )
    for number, state in enumerate(states):
        _check_same_form(number, state, states[0])
    weights = weights / weights.sum()
    average = {}
    for name, first in states[0].items():
        values = [state[name].detach() for state in states]
        if not first.is_floating_point():
            average[name] = torch.stack([value.to(first.device) for value in values]).amax(0)
            continue
        total = torch.zeros_like(first, dtype=torch.float64)
        for weight, value in zip(weights.tolist(), values, strict=True):
            if weight:
                total += weight * value.to(first.device, torch.float64)
        average[name] = total.to(first.dtype)
    return average


def load_shared_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put averaged weights into a site's model; its private weights stay as they are.

    Raises
    ------
    ValueError
        If the model lacks one of the names, or has it with another shape.
    """
    own = model.state_dict()
    for name, value in state.items():
        if name not in own or own[name].shape != value.shape:
            has = tuple(own[name].shape) if name in own else "no such weight"
            raise ValueError(
                f"load_shared_state: {name} must have the model's shape ({has}), got {tuple(value.shape)}"
            )
    model.load_state_dict({**own, **state})


def _check_same_form(number: int, state: Mapping[str, Tensor], first: Mapping[str, Tensor]) -> None:
    if state.keys() != first.keys():
        different = sorted(state.keys() ^ first.keys())[:4]
        raise ValueError(
            f"average_states: state {number} does not have the names of the first: {different}; "
            "leave layers that differ between sites private"
        )
    for name, value in state.items():
        if value.shape != first[name].shape:
            raise ValueError(
                f"average_states: {name} must have one shape everywhere, got {tuple(first[name].shape)} and "
                f"{tuple(value.shape)} in state {number}"
            )
        if value.is_floating_point() and not value.isfinite().all():
            raise ValueError(f"average_states: {name} of state {number} holds NaN or infinity")
