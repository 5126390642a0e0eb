"""Read-outs that are solved, not trained, for one support set or for whole stacks of episodes."""

from neurokern.adapters.closed_form.head import RidgeHead
from neurokern.adapters.closed_form.lda import LDAProbe
from neurokern.adapters.closed_form.prototypes import PrototypeProbe
from neurokern.adapters.closed_form.reduced_rank import ReducedRankProbe, ReducedRankReadout
from neurokern.adapters.closed_form.ridge import RidgeProbe, RidgeReadout

__all__ = [
    "LDAProbe",
    "PrototypeProbe",
    "ReducedRankProbe",
    "ReducedRankReadout",
    "RidgeHead",
    "RidgeProbe",
    "RidgeReadout",
]
