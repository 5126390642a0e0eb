"""The MtM model, its masking schemes and its loss; tokens and codes for models of other kinds."""

from neurokern.models.channels import RegionTokens, region_tokens
from neurokern.models.codebook import Codebook
from neurokern.models.config import SCHEMES, MtMConfig
from neurokern.models.front_ends import MultiTaskMasking
from neurokern.models.losses import poisson_loss
from neurokern.models.masking import MaskedWindows, Masking, draw_scheme, draw_schemes, mask_batch
from neurokern.models.mtm import MtM
from neurokern.models.tokens import SpikeTokens, count_tokens, spike_tokens

__all__ = [
    "SCHEMES",
    "Codebook",
    "MaskedWindows",
    "Masking",
    "MtM",
    "MtMConfig",
    "MultiTaskMasking",
    "RegionTokens",
    "SpikeTokens",
    "count_tokens",
    "draw_scheme",
    "draw_schemes",
    "mask_batch",
    "poisson_loss",
    "region_tokens",
    "spike_tokens",
]
