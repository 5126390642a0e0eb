"""gather_regions, scatter_regions and the packed index of targets in Triton.

Every place of a result asks for its source, so that results are written once and wholly, zeros included.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from neurokern.ops import _library
from neurokern.ops._triton.launch import bits_of, launch

BINS, ROWS = 32, 32  # of a tile of gather and scatter
CELLS = 2048  # of a mask, counted by a program

# samples (n_rows,), units (n_rows,), rows (n_samples, n_units), cu_seqlens (n_samples + 1,)
Index = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


@triton.jit
def gather_tile(
    x, values, samples, units, cu_seqlens,
    n_values, n_rows, n_bins, x_stride_sample, x_stride_bin, x_stride_unit, max_rows,
    PADDED: tl.constexpr, BINS: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Write ROWS rows of ``values`` in BINS bins; neighbouring threads read neighbouring units of ``x``."""
    tiles = tl.cdiv(n_bins, BINS)
    place = (tl.program_id(0) // tiles).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    bins = tl.program_id(0) % tiles * BINS + tl.arange(0, BINS)
    row, there = place, place < n_values
    if PADDED:
        b = place // max_rows
        row = tl.load(cu_seqlens + b, mask=there, other=0) + place - b * max_rows
        there &= (row < tl.load(cu_seqlens + b + 1, mask=there, other=0)) & (row < n_rows)
    sample = tl.load(samples + row, mask=there, other=-1)
    unit = tl.load(units + row, mask=there, other=-1)
    there &= sample >= 0
    at = x + sample * x_stride_sample + unit * x_stride_unit
    in_bins = (bins < n_bins)[:, None]
    tile = tl.load(at[None, :] + bins[:, None].to(tl.int64) * x_stride_bin, in_bins & there[None, :], other=0)
    in_values = (place < n_values)[:, None] & (bins < n_bins)[None, :]
    tl.store(values + place[:, None] * n_bins + bins[None, :], tl.trans(tile), mask=in_values)


@triton.jit
def scatter_tile(
    values, x, rows, cu_seqlens, n_rows, n_bins, n_units, max_rows,
    PADDED: tl.constexpr, BINS: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Write BINS bins of ROWS units of one sample of ``x``."""
    bin_tiles, unit_tiles = tl.cdiv(n_bins, BINS), tl.cdiv(n_units, ROWS)
    tile = tl.program_id(0) % (bin_tiles * unit_tiles)
    b = (tl.program_id(0) // (bin_tiles * unit_tiles)).to(tl.int64)
    units = tile % unit_tiles * ROWS + tl.arange(0, ROWS)
    bins = tile // unit_tiles * BINS + tl.arange(0, BINS)
    row = tl.load(rows + b * n_units + units, mask=units < n_units, other=-1).to(tl.int64)
    there = row >= 0
    if PADDED:
        in_sample = row - tl.load(cu_seqlens + b)
        there &= in_sample < max_rows
        row = b * max_rows + in_sample
    there &= row < n_rows
    of_bins = bins[None, :] < n_bins
    block = tl.load(values + row[:, None] * n_bins + bins[None, :], mask=there[:, None] & of_bins, other=0)
    at = x + (b * n_bins + bins[:, None]) * n_units + units[None, :]
    tl.store(at, tl.trans(block), mask=(bins < n_bins)[:, None] & (units < n_units)[None, :])


def gather(x: torch.Tensor, index: Index, max_rows: int | None) -> torch.Tensor:
    """Return packed rows, or ``max_rows`` of each sample; rows that are not there are 0."""
    samples, units, _, cu_seqlens = index
    n_values = len(samples) if max_rows is None else x.shape[0] * max_rows
    values: torch.Tensor = _library.new_array(x, (n_values, x.shape[1]), x.dtype)
    launch(
        gather_tile, triton.cdiv(n_values, ROWS) * triton.cdiv(x.shape[1], BINS),
        bits_of(x), bits_of(values), samples.contiguous(), units.contiguous(), cu_seqlens.contiguous(),
        n_values, len(samples), x.shape[1], *x.stride(), max_rows or 0,
        PADDED=max_rows is not None, BINS=BINS, ROWS=ROWS,
    )  # fmt: skip
    return values


def scatter(values: torch.Tensor, index: Index, max_rows: int | None) -> torch.Tensor:
    """Return the batch that holds the rows, and zeros elsewhere."""
    _, _, rows, cu_seqlens = index
    (n_samples, n_units), n_bins = rows.shape, values.shape[1]
    x: torch.Tensor = _library.new_array(values, (n_samples, n_bins, n_units), values.dtype)
    launch(
        scatter_tile, n_samples * triton.cdiv(n_bins, BINS) * triton.cdiv(n_units, ROWS),
        bits_of(values.contiguous()), bits_of(x), rows.contiguous(), cu_seqlens.contiguous(),
        len(values), n_bins, n_units, max_rows or 0,
        PADDED=max_rows is not None, BINS=BINS, ROWS=ROWS,
    )  # fmt: skip
    return x


@triton.jit
def count_targets(target_mask, counts, sample_cells, chunks, CELLS: tl.constexpr):
    """Count the targets of a chunk of a sample."""
    b, chunk = (tl.program_id(0) // chunks).to(tl.int64), tl.program_id(0) % chunks
    cells = chunk.to(tl.int64) * CELLS + tl.arange(0, CELLS)
    flags = tl.load(target_mask + b * sample_cells + cells, mask=cells < sample_cells, other=0)
    tl.store(counts + tl.program_id(0), tl.sum((flags != 0).to(tl.int32)))


@triton.jit
def write_targets(
    target_mask, ends, index, cu_seqlens, n_samples, sample_cells, chunks, capacity, CELLS: tl.constexpr
):
    """Write the positions of a chunk's targets, and -1 into the places of the index beyond all targets."""
    program, n_chunks = tl.program_id(0).to(tl.int64), (n_samples * chunks).to(tl.int64)
    cells = tl.arange(0, CELLS)
    slots = program * CELLS + cells
    total = tl.load(ends + n_chunks - 1)
    tl.store(index + slots, tl.full([CELLS], -1, tl.int64), mask=(slots >= total) & (slots < capacity))
    if program < n_chunks:
        b, chunk = program // chunks, program % chunks
        in_sample = chunk * CELLS + cells
        at = b * sample_cells + in_sample
        flags = tl.load(target_mask + at, mask=in_sample < sample_cells, other=0) != 0
        end = tl.load(ends + program)
        number = tl.cumsum(flags.to(tl.int32), 0)
        place = end - tl.max(number) + number - 1
        tl.store(index + place, at, mask=flags & (place < capacity))
        tl.store(cu_seqlens + b + 1, end.to(tl.int32), mask=chunk == chunks - 1)
        tl.store(cu_seqlens, 0, mask=program == 0)


def pack_targets(target_mask: torch.Tensor, max_targets: int | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the positions of the targets and ``cu_seqlens``; waits for their number unless told the room."""
    n_samples, sample_cells = target_mask.shape[0], target_mask[0].numel() if len(target_mask) else 0
    if target_mask.numel() == 0:
        index = _library.new_array(target_mask, (max_targets or 0,), "int64", fill=-1)
        return index, _library.new_array(target_mask, (n_samples + 1,), "int32", fill=0)
    chunks = triton.cdiv(sample_cells, CELLS)
    flags = target_mask.view(torch.uint8)
    counts = _library.new_array(flags, (n_samples * chunks,), "int32")
    launch(count_targets, len(counts), flags, counts, sample_cells, chunks, CELLS=CELLS)
    ends = counts.cumsum(0)
    capacity = int(ends[-1]) if max_targets is None else max_targets
    index = _library.new_array(flags, (capacity,), "int64")
    cu_seqlens = _library.new_array(flags, (n_samples + 1,), "int32")
    launch(
        write_targets, max(len(counts), triton.cdiv(capacity, CELLS)),
        flags, ends, index, cu_seqlens, n_samples, sample_cells, chunks, capacity, CELLS=CELLS,
    )  # fmt: skip
    return index, cu_seqlens
