"""Types of the ops' arguments, for annotations alone."""

from __future__ import annotations

from typing import Any, TypeAlias

Array: TypeAlias = Any  # numpy array, tensor, or what numpy.asarray takes
DType: TypeAlias = Any  # torch dtype, numpy dtype, or the name of one
