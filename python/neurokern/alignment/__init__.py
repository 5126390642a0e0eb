"""How alike the representations of models and brains are: RSA, CKA, kernel analysis, linear maps, tables."""

from neurokern.alignment.ceilings import response_ceilings
from neurokern.alignment.cka import CKA_KERNELS, CkaAccumulator, cka
from neurokern.alignment.features import POOLINGS, layer_features, layer_names
from neurokern.alignment.gaussian_fields import GaussianFieldEncoder
from neurokern.alignment.geo_topological import geo_topological, geodesic_rdm
from neurokern.alignment.inference import RsaResult, evaluate_models
from neurokern.alignment.kernel_analysis import KernelAnalysis, kernel_analysis
from neurokern.alignment.rdm import (
    RDM_METRICS,
    compute_rdm,
    cross_validated_rdm,
    noise_covariance,
    square_rdm,
)
from neurokern.alignment.rdm_comparison import RDM_COMPARISONS, compare_rdms, rdm_noise_ceiling
from neurokern.alignment.shape import PlsFit, canonical_correlations, fit_pls, procrustes_distance
from neurokern.alignment.storage import read_tables, write_tables
from neurokern.alignment.table import ALIGNMENT_METHODS, alignment_table

__all__ = [
    "ALIGNMENT_METHODS",
    "CKA_KERNELS",
    "POOLINGS",
    "RDM_COMPARISONS",
    "RDM_METRICS",
    "CkaAccumulator",
    "GaussianFieldEncoder",
    "KernelAnalysis",
    "PlsFit",
    "RsaResult",
    "alignment_table",
    "canonical_correlations",
    "cka",
    "compare_rdms",
    "compute_rdm",
    "cross_validated_rdm",
    "evaluate_models",
    "fit_pls",
    "geo_topological",
    "geodesic_rdm",
    "kernel_analysis",
    "layer_features",
    "layer_names",
    "noise_covariance",
    "procrustes_distance",
    "rdm_noise_ceiling",
    "read_tables",
    "response_ceilings",
    "square_rdm",
    "write_tables",
]
