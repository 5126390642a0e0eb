"""Write what ``neurokern encode`` needs to tell signal from noise in responses to repeated conditions.

Run it with ``python examples/responses_to_objects.py zd7_rasters.npz FOLDER``: 132 units of macaque
inferotemporal cortex, recorded one after another, each about 20 times with 7 objects at 3 positions (Zhang et
al. 2011, doi:10.1073/pnas.1100999108). It prints the command that comes next.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

FIRST, LAST = 600, 900  # ms in the raster: 100 to 400 ms after the object appears


def main(rasters: str, folder: str) -> None:
    """Write responses (repeats, conditions, units), the same as samples, and a design with three spaces."""
    with np.load(rasters) as file:
        unit, number, position, packed = (
            file[f"{name}"] for name in ("row_neuron", "row_stimulus", "row_position", "raster_packed")
        )
    counts = np.unpackbits(packed, axis=1)[:, FIRST:LAST].sum(1)
    objects, number = np.unique(number, return_inverse=True)
    positions, position = np.unique(position, return_inverse=True)
    condition = number * len(positions) + position
    n_conditions = len(objects) * len(positions)
    units = np.unique(unit)
    trials = [[counts[(unit == one) & (condition == c)] for one in units] for c in range(n_conditions)]
    n_repeats = min(len(some) for row in trials for some in row)
    repeats = np.sqrt([[some[:n_repeats] for some in row] for row in trials]).transpose(2, 0, 1)
    each = np.arange(n_conditions)
    design = np.hstack(
        [
            np.eye(len(objects))[each // len(positions)],
            np.eye(len(positions))[each % len(positions)],
            np.eye(n_conditions),
        ]
    )
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    np.save(out / "repeats.npy", repeats)
    np.save(out / "y.npy", repeats.reshape(-1, len(units)))
    np.save(out / "x.npy", np.tile(design, (n_repeats, 1)))
    np.save(out / "runs.npy", np.repeat(np.arange(n_repeats), n_conditions))
    print(f"{len(units)} units, {n_conditions} conditions, {n_repeats} repeats")
    n_objects, n_first = len(objects), len(objects) + len(positions)
    print(
        f"neurokern encode --x {out}/x.npy --y {out}/y.npy --runs {out}/runs.npy --repeats {out}/repeats.npy "
        f"--spaces object=0:{n_objects} position={n_objects}:{n_first}"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
