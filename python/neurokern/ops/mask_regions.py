"""Hide parts of a batch of activity by bin, unit or region, as multi-task masking does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from neurokern._check import check_flag
from neurokern.ops import _mask_arguments as arguments
from neurokern.ops import _mask_kernel
from neurokern.ops._library import torch
from neurokern.ops._mask_reference import CAUSAL, INTER_REGION, INTRA_REGION, TEMPORAL
from neurokern.ops._target_kernel import pack_targets

if TYPE_CHECKING:
    from neurokern.ops._types import Array


@dataclass(frozen=True)
class MaskedBatch:
    """A masked batch; arrays are of the kind (torch or numpy) and on the device of the input.

    Attributes
    ----------
    inputs : array of shape (n_samples, n_bins, n_units), dtype of the input
        The activity with its hidden entries replaced.
    target_mask : array of shape (n_samples, n_bins, n_units), bool
        True where the loss counts. Padding is never a target.
    region : array of shape (n_samples,), int64
        The region that the sample's scheme was applied to; -1 where the scheme uses none, where the sample
        has no known region (per-sample choice), and in a batch without entries.
    unit_mask : array of shape (n_samples, n_units), bool, or None
        True for units that are not padding; None if nothing said which units are.
    bin_mask : array of shape (n_samples, n_bins), bool, or None
        True for bins that are not padding; None without ``n_bins``.
    index : array of shape (n_targets,) or (max_targets,), int64, or None
        Positions of the targets in ``inputs.flatten()``, ascending; only with ``return_index=True``. With
        ``max_targets`` -1 from the true number of targets on.
    cu_seqlens : array of shape (n_samples + 1,), int32, or None
        ``index[cu_seqlens[b] : cu_seqlens[b + 1]]`` are the targets of sample b; the true numbers, also where
        ``max_targets`` cut the index.
    """

    inputs: Any
    target_mask: Any
    region: Any
    unit_mask: Any = None
    bin_mask: Any = None
    index: Any = None
    cu_seqlens: Any = None

    @property
    def valid_mask(self) -> Any:
        """Bool, broadcastable to (n_samples, n_bins, n_units): False for padding; None if nothing said so."""
        units = None if self.unit_mask is None else self.unit_mask[:, None, :]
        bins = None if self.bin_mask is None else self.bin_mask[:, :, None]
        if units is None or bins is None:
            return bins if units is None else units
        return units & bins


def mask_regions(
    x: Array,
    regions: Array | Sequence[int] | None,
    scheme: str | Sequence[str] | Array,
    *,
    ratio: float | Mapping[str, float] = arguments.DEFAULT_RATIO,
    seed: int,
    offset: int = 0,
    n_units: Array | Sequence[int] | None = None,
    n_bins: Array | Sequence[int] | None = None,
    region: int | None = None,
    region_choice: str = "batch",
    span: int = 1,
    replacement: str | float = "zero",
    inplace: bool = False,
    return_index: bool = False,
    max_targets: int | None = None,
    backend: str | None = None,
) -> MaskedBatch:
    """Hide entries of a batch by one of the masking schemes of MtM, and say which of them the loss counts.

    Every sample draws for itself, and ``x`` is never written unless ``inplace`` asks for it.

    Parameters
    ----------
    x : tensor or array of shape (n_samples, n_bins, n_units)
        Activity, usually spike counts: floating point, integer or bool of 1, 2, 4 or 8 bytes, any strides.
    regions : int array of shape (n_units,) or (n_samples, n_units), or None
        Region number of each unit, in [0, 2**31); negative numbers mean unknown or padding. Needed by the
        region schemes. Units of negative region are never chosen and lie outside every region. Without
        ``n_units`` they count as padding; with it, those below ``n_units`` are units like all others.
    scheme : str, sequence of n_samples str, or int array of shape (n_samples,)
        One scheme for the batch or one per sample; numbers are positions in the list of the Notes.
    ratio : float or mapping of scheme to float, default 0.3
        Probability of being hidden, in [0, 1]; 0 and 1 are exact. A mapping gives schemes their own (MtM:
        ``{"causal": 0.6}``); those that it leaves out keep 0.3.
    seed : int in [0, 2**63)
        Key of the counter-based generator. The call reads and changes no other random state.
    offset : int, default 0
        Number of the first sample; sample b draws as number ``offset + b``. Give each batch of a run its own
        numbers, for example ``step * batch_size``.
    n_units, n_bins : int array of shape (n_samples,), optional
        Units and bins from these counts on are padding: never targets, and padded bins are left as they are.
    region : int, optional
        Use this region instead of drawing one.
    region_choice : {"batch", "sample"}, default "batch"
        "batch" draws one region for all samples, uniformly over those present in the batch, as MtM does; a
        sample that lacks it has no target (and is all hidden under "intra-region"). "sample" draws for each
        sample, uniformly over its own regions.
    span : int, default 1
        "temporal" and "causal" hide runs of this many bins. A run starts at each bin, also up to ``span - 1``
        bins before the first, with probability ``1 - (1 - ratio) ** (1 / span)``; runs may overlap, and every
        bin is hidden with probability ``ratio``.
    replacement : {"zero", "random"} or float, default "zero"
        What hidden entries become: 0, this value (which ``x.dtype`` must hold), or for "random", as in BERT:
        of the targets 80 % become 0, 10 % the value of the same unit in a bin drawn uniformly from the
        sample, 10 % stay as they are; hidden entries that are no targets become 0.
    inplace : bool, default False
        Write ``inputs`` over ``x``. Not possible with "random", for expanded or transposed ``x``, or where a
        gradient is needed.
    return_index : bool, default False
        Also return the positions of the targets, packed. Their number depends on the draws, so on a GPU this
        waits for the device, unless ``max_targets`` is given.
    max_targets : int, optional
        Size of ``index``, whatever the draws: -1 beyond the true number of targets, and targets beyond this
        size left out. Nothing waits for a GPU then, so that a CUDA graph or ``torch.compile`` can hold it.
    backend : {None, "native", "triton", "reference"}, default None
        None runs the compiled kernel of the device that holds ``x`` where there is one; on a GPU without it
        Triton's, if Triton is installed.

    Returns
    -------
    MaskedBatch
        ``inputs`` is differentiable in ``x``: hidden entries, replaced or not, pass no gradient.

    Raises
    ------
    ValueError
        If a shape, name, number or region does not fit, or a batch of 2**31 entries and more is to be
        indexed; also where a region scheme has no regions, or no unit
        of the batch has the region asked for. On a GPU the values of arrays are not looked at (that would
        wait for the device): counts are cut to the batch's size, and an absent region leaves samples without
        targets.
    TypeError
        If ``x`` is neither a tensor nor an array, or its dtype has no such size.

    Notes
    -----
    ======================  ==========================================  ===========================
    scheme                  hidden                                      in the loss
    ======================  ==========================================  ===========================
    ``"temporal"`` (0)      each bin, all units                         what is hidden
    ``"causal"`` (1)        as temporal; the model's attention differs  what is hidden
    ``"neuron"`` (2)        each unit, all bins                         what is hidden
    ``"intra-region"`` (3)  every unit outside one region, and each     hidden units of that region
                            unit inside it
    ``"inter-region"`` (4)  every unit of one region                    that region
    ``"random"`` (5)        each entry                                  what is hidden
    ======================  ==========================================  ===========================

    "each" means with probability ``ratio``, independently for each sample. Draws are Philox 4x32-10 words of
    (seed, sample number, what is drawn, unit, bin), compared with ``floor(probability * 2**32)``. So the same
    bits come from every backend, thread count, padding and cut of the data into batches; only a region chosen
    per batch depends on the batch. Each region present gets a draw, and the lowest is chosen.

    References
    ----------
    .. [1] Y. Zhang et al., "Towards a 'universal translator' for neural dynamics at single-cell, single-spike
       resolution", NeurIPS 2024, arXiv:2407.14668.
    .. [2] J. K. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.

    Examples
    --------
    >>> x = torch.ones(1, 2, 4)
    >>> batch = mask_regions(x, torch.tensor([0, 0, 1, 1]), "inter-region", region=1, seed=0)
    >>> batch.inputs
    tensor([[[1., 1., 0., 0.],
             [1., 1., 0., 0.]]])
    >>> batch.target_mask[0, 0]
    tensor([False, False,  True,  True])
    """
    is_torch = torch is not None and isinstance(x, torch.Tensor)
    if not (is_torch or isinstance(x, np.ndarray)):
        raise TypeError(f"mask_regions: x must be a torch tensor or a numpy array, got {type(x).__name__}")
    arguments.check_batch(x, is_torch)
    inplace = check_flag("mask_regions", "inplace", inplace)
    return_index = check_flag("mask_regions", "return_index", return_index)
    seed, offset = arguments.read_draws(x.shape[0], seed, offset, span, region, region_choice)

    schemes, code, used = arguments.read_schemes(scheme, x)
    if regions is None and used & {INTRA_REGION, INTER_REGION}:
        raise ValueError(f"mask_regions: regions must be given for scheme {scheme!r}, got None")
    if span > 1 and used and not used & {TEMPORAL, CAUSAL}:
        raise ValueError(
            f"mask_regions: span must be 1 but for 'temporal' and 'causal', got {span} with {scheme!r}"
        )
    max_targets = arguments.read_max_targets(max_targets, return_index, x)
    kind, value = arguments.read_replacement(replacement, x, is_torch)
    regions_of_units = arguments.read_regions(regions, x)
    unit_counts = arguments.read_per_sample("n_units", n_units, x)
    bin_counts = arguments.read_per_sample("n_bins", n_bins, x)
    if inplace:
        arguments.check_inplace(x, is_torch, kind)

    settings = (
        code,
        arguments.read_thresholds(ratio, span),
        seed,
        offset,
        -1 if region is None else region,
        region_choice == "sample",
        span,
        kind,
        value,
        backend,
    )
    run = _mask_kernel.mask_tensor if is_torch else _mask_kernel.mask_array
    inputs, target_mask, chosen = run(
        x, regions_of_units, unit_counts, bin_counts, schemes, settings, inplace
    )
    unit_mask, bin_mask = _padding(x, is_torch, regions_of_units, unit_counts, bin_counts)
    index, cu_seqlens = pack_targets(target_mask, max_targets, backend) if return_index else (None, None)
    return MaskedBatch(inputs, target_mask, chosen, unit_mask, bin_mask, index, cu_seqlens)


def _padding(x: Any, is_torch: bool, regions: Any, n_units: Any, n_bins: Any) -> tuple[Any, Any]:
    def below(counts: Any, size: int) -> Any:
        numbers = torch.arange(size, device=x.device) if is_torch else np.arange(size)
        return numbers < counts[:, None]

    unit_mask = bin_mask = None
    if n_units is not None:
        unit_mask = below(n_units, x.shape[2])
    elif regions is not None:
        known = regions >= 0
        shape = (x.shape[0], x.shape[2])
        unit_mask = known.expand(shape) if is_torch else np.broadcast_to(known, shape)
    if n_bins is not None:
        bin_mask = below(n_bins, x.shape[1])
    return unit_mask, bin_mask
