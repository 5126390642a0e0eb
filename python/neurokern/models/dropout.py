"""Dropout whose draws do not take longer than what they are for."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurokern import ops


class Dropout(nn.Dropout):
    """:class:`torch.nn.Dropout` with :func:`dropout`."""

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.p) if self.training else x


def dropout(x: Tensor, p: float) -> Tensor:
    """Drop entries as :func:`torch.nn.functional.dropout` does.

    On a CPU the entries are drawn by :func:`neurokern.ops.mask_regions` from one number of torch's generator:
    torch draws them one after the other, which took a tenth of a training step. There they do not depend on
    the number of threads.
    """
    if p == 0.0:
        return x
    if x.device.type != "cpu" or p == 1.0 or torch.compiler.is_compiling():
        return F.dropout(x, p)
    seed = int(torch.randint(2**62, ()))
    kept = x.new_full(
        (1, x.numel() // max(x.shape[-1], 1), x.shape[-1]), 1.0 / (1.0 - p), requires_grad=False
    )
    ops.mask_regions(kept, None, "random", ratio=p, seed=seed, inplace=True)
    return x * kept.view(x.shape)
