"""Linear read-outs with many targets."""

from neurokern.encoding.ridge import RidgeFit, fit_ridge

__all__ = ["RidgeFit", "fit_ridge"]
