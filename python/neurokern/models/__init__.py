"""The MtM model, its masking schemes and its loss."""

from neurokern.models.config import SCHEMES, MtMConfig
from neurokern.models.losses import poisson_loss
from neurokern.models.masking import MaskedWindows, Masking, draw_scheme, draw_schemes, mask_batch
from neurokern.models.mtm import MtM

__all__ = [
    "SCHEMES",
    "MaskedWindows",
    "Masking",
    "MtM",
    "MtMConfig",
    "draw_scheme",
    "draw_schemes",
    "mask_batch",
    "poisson_loss",
]
