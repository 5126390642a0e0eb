// mask_regions, gather_regions, scatter_regions: hide parts of a batch of activity by region, unit or time
// bin, and pack the units of a region.
#pragma once

#include <cstdint>

#include "common/isa.h"

namespace neurokern {

enum MaskScheme : int { kTemporal, kCausal, kNeuron, kIntraRegion, kInterRegion, kRandom, kMaskSchemes };
enum MaskReplacement : int { kFill, kBertRandom };

// All arrays are the caller's; `int64` arrays are contiguous unless a stride is given. Strides count
// elements.
struct MaskRegions {
  const void* x;              // (n_samples, n_bins, n_units), of element_size bytes, units next to each other
  void* inputs;               // same shape and kind of layout; may be x itself
  std::uint8_t* target_mask;  // (n_samples, n_bins, n_units), contiguous: 1 where the loss counts
  std::int64_t* region;       // (n_samples,): the chosen region, -1 where the scheme needs none or finds none

  const std::int64_t*
      regions;  // (n_units,) or (n_samples, n_units): ids in [0, 2^31), negative unknown; or null
  const std::int64_t* unit_counts;  // (n_samples,): units from here on are padding; or null
  const std::int64_t* bin_counts;   // (n_samples,): bins from here on are padding; or null
  const std::int64_t* schemes;      // (n_samples,) of MaskScheme; or null for `scheme` everywhere

  std::uint8_t* unit_codes;  // scratch of the CPU: (n_samples, n_units)
  std::uint8_t* bin_states;  // scratch of the CPU: (n_samples, n_bins)
  // CUDA: (n_samples,), or (1,) for one choice per batch, all bits set: the choice gets a kernel of its own.
  // Null: every block looks at the units itself, which is better unless they are many.
  std::uint64_t* best_ranks;

  std::int64_t n_samples, n_bins, n_units;
  std::int64_t x_stride_sample, x_stride_bin, inputs_stride_sample, inputs_stride_bin, regions_stride_sample;
  int element_size;  // 1, 2, 4 or 8: hiding copies bits, whatever they mean

  int scheme;
  std::uint64_t thresholds[kMaskSchemes];  // a 32-bit word below it hides: floor(probability * 2^32)
  std::uint64_t seed, offset;              // sample b draws as number offset + b, below 2^56
  std::int64_t forced_region;              // or -1: draw it
  bool choose_per_sample;
  std::int64_t span;   // bins hidden from each start on (temporal, causal)
  int replacement;     // MaskReplacement
  std::uint64_t fill;  // bits of the value for hidden entries, in the lower element_size bytes
};

// Rows of units: packed, (n_index, n_bins), or padded, (n_samples * max_rows, n_bins). Everything is
// contiguous but x. A row or unit without its other side is 0; entries of the index outside of the batch
// count as such.
struct RegionRows {
  const void* x;                      // gather reads it: (n_samples, n_bins, n_units) by strides
  void* y;                            // scatter writes it: (n_samples, n_bins, n_units)
  void* rows;                         // gather writes it, scatter reads it: (n_rows, n_bins)
  const std::int64_t* samples;        // (n_index,): sample of packed row i, -1 if there is no such row
  const std::int64_t* units;          // (n_index,)
  const std::int32_t* rows_of_units;  // (n_samples, n_units): packed row of the unit, or -1
  const std::int32_t* cu_seqlens;     // (n_samples + 1,): first packed row of each sample
  std::int64_t n_index, n_rows, n_samples, n_bins, n_units, max_rows;
  std::int64_t x_stride_sample, x_stride_bin, x_stride_unit;
  int element_size;
  bool padded;
};

// Positions of the targets, packed by sample: index[cu_seqlens[b]] ... index[cu_seqlens[b + 1] - 1] are those
// of sample b, ascending. All arrays contiguous; fewer than 2^31 cells.
struct PackTargets {
  const std::uint8_t* target_mask;  // (n_samples, sample_cells): 0 or 1
  std::int64_t* index;              // (capacity,): positions in target_mask, -1 beyond the last target
  std::int32_t* cu_seqlens;         // (n_samples + 1,): counted whatever the capacity
  std::int32_t* chunk_starts;       // scratch of CUDA: (target_chunks,)
  std::int64_t n_samples, sample_cells, capacity;
};

NK_DECLARE_KERNEL(void mask_regions_cpu(const MaskRegions& p, int n_threads))
// Two steps, since the caller may size the index by what the first one counts: count_targets fills
// cu_seqlens, write_targets reads it and fills index.
NK_DECLARE_KERNEL(void count_targets_cpu(const PackTargets& p, int n_threads))
NK_DECLARE_KERNEL(void write_targets_cpu(const PackTargets& p, int n_threads))

void mask_regions_cuda(const MaskRegions& p, void* stream);
void gather_regions_cuda(const RegionRows& p, void* stream);
void scatter_regions_cuda(const RegionRows& p, void* stream);
std::int64_t target_chunks(std::int64_t n_samples, std::int64_t sample_cells);
void count_targets_cuda(const PackTargets& p, void* stream);
void write_targets_cuda(const PackTargets& p, void* stream);

}  // namespace neurokern
