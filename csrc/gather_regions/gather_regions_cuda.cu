// Every thread owns 4 units x 4 bins: one Philox call then serves 4 units (or 4 bins), accesses are 16 bytes
// wide for float32, and neither shared memory nor barriers are needed.
#include <cstdint>

#include "common/launch.cuh"
#include "gather_regions/gather_regions_body.h"

namespace neurokern {
namespace {

constexpr int kThreads = 256;
constexpr int kQuad = 4;
constexpr int kBinsPerThread =
    8;  // gather, scatter: 8 bins of float32 are one 32-byte sector of a packed row

__device__ std::int64_t first_item() { return blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x; }
__device__ std::int64_t item_step() { return gridDim.x * std::int64_t{blockDim.x}; }

// ---- the choice of a region
// ---------------------------------------------------------------------------------

__global__ void rank_regions(MaskRegions p, std::int64_t n_items) {
  for (std::int64_t item = first_item(); item < n_items; item += item_step()) {
    const std::int64_t b = item / p.n_units, unit = item % p.n_units;
    const std::int64_t region = region_of(p, b, unit);
    if (region < 0 || unit >= units_of(p, b)) continue;
    if (unit > 0 && region_of(p, b, unit - 1) == region) continue;  // its neighbour takes part for it
    const std::uint64_t sample = p.choose_per_sample ? p.offset + static_cast<std::uint64_t>(b) : p.offset;
    const DrawCounter at = draw_counter(sample, p.choose_per_sample ? kStageRegion : kStageBatchRegion);
    const Philox4 draw = philox4x32(p.seed, static_cast<std::uint32_t>(region), 0, at.c2, at.c3);
    const std::uint64_t rank = region_rank(draw.word[0], region);
    auto* best = reinterpret_cast<unsigned long long*>(p.best_ranks + (p.choose_per_sample ? b : 0));
    // A minimum does not depend on the order, so the result is the same in every run.
    atomicMin(best, static_cast<unsigned long long>(rank));
  }
}

__device__ std::int64_t chosen_region(const MaskRegions& p, std::int64_t b, int scheme) {
  if (!needs_region(scheme)) return -1;
  if (p.forced_region >= 0 || p.best_ranks == nullptr) return p.forced_region;
  return region_of_rank(p.best_ranks[p.choose_per_sample ? b : 0]);
}

// ---- masking
// ------------------------------------------------------------------------------------------------

// Bit i: is bin 4 * group + i active, that is, do the codes of the units hold in it?
__device__ unsigned active_bins(const MaskRegions& p, std::int64_t b, int scheme, std::int64_t group) {
  const std::int64_t first = group * kQuad, n_bins = bins_of(p, b);
  unsigned active = 0;
  for (int i = 0; i < kQuad; ++i) active |= (first + i < n_bins ? 1u : 0u) << i;
  if (scheme != kTemporal && scheme != kCausal) return active;
  unsigned hidden = 0;
  for (std::int64_t quad = group; quad * kQuad < first + kQuad - 1 + p.span; ++quad) {
    const Philox4 draw = draw_quad(p.seed, p.offset + static_cast<std::uint64_t>(b), kStageBin, quad, 0);
    for (int w = 0; w < kQuad; ++w) {
      if (!is_hit(draw.word[w], p.thresholds[scheme])) continue;
      const std::int64_t start = quad * kQuad + w;
      for (int i = 0; i < kQuad; ++i) {
        const std::int64_t bin = first + i;
        if (bin <= start && start < bin + p.span) hidden |= 1u << i;
      }
    }
  }
  return active & hidden;
}

struct QuadCodes {
  std::uint8_t code[kQuad];
};

__device__ QuadCodes quad_codes(const MaskRegions& p, std::int64_t b, int scheme, std::int64_t chosen,
                                std::int64_t quad) {
  Philox4 draw{};
  const bool draws = scheme == kNeuron || scheme == kIntraRegion;
  if (draws) draw = draw_quad(p.seed, p.offset + static_cast<std::uint64_t>(b), kStageUnit, quad, 0);
  QuadCodes codes{};
  for (int i = 0; i < kQuad; ++i) {
    const std::int64_t unit = quad * kQuad + i;
    if (unit >= p.n_units) continue;
    const std::int64_t region = region_of(p, b, unit);
    const bool hit = draws && is_hit(draw.word[i], p.thresholds[scheme]);
    codes.code[i] = unit_code(scheme, hit, region >= 0 && region == chosen, is_counted(p, b, unit, region));
  }
  return codes;
}

__device__ QuadCodes entry_codes(const MaskRegions& p, std::int64_t b, QuadCodes codes, std::int64_t quad,
                                 std::int64_t bin) {
  const Philox4 draw = draw_quad(p.seed, p.offset + static_cast<std::uint64_t>(b), kStageEntry, quad, bin);
  for (int i = 0; i < kQuad; ++i)
    if (!is_hit(draw.word[i], p.thresholds[kRandom])) codes.code[i] = kShown;
  return codes;
}

template <class Element>
struct alignas(kQuad * sizeof(Element)) Pack {
  Element entry[kQuad];
};

struct alignas(kQuad) PackedFlags {
  std::uint8_t entry[kQuad];
};

// The four entries of a quad in one bin. `kWide`: every row starts at an address that allows one wide access.
template <class Element, bool kWide>
__device__ void mask_quad(const MaskRegions& p, std::int64_t b, std::int64_t bin, std::int64_t quad,
                          QuadCodes codes) {
  const std::int64_t unit = quad * kQuad;
  const Element* sample = static_cast<const Element*>(p.x) + b * p.x_stride_sample + unit;
  const Element* x = sample + bin * p.x_stride_bin;
  Element* inputs =
      static_cast<Element*>(p.inputs) + b * p.inputs_stride_sample + bin * p.inputs_stride_bin + unit;
  std::uint8_t* targets = p.target_mask + (b * p.n_bins + bin) * p.n_units + unit;
  const int count = kWide || p.n_units - unit >= kQuad ? kQuad : static_cast<int>(p.n_units - unit);

  Pack<Element> entries{};
  if constexpr (kWide) {
    entries = *reinterpret_cast<const Pack<Element>*>(x);
  } else {
    for (int i = 0; i < count; ++i) entries.entry[i] = x[i];
  }
  Philox4 draw{};
  const bool bert = p.replacement == kBertRandom;
  if (bert) draw = draw_quad(p.seed, p.offset + static_cast<std::uint64_t>(b), kStageReplace, quad, bin);
  PackedFlags flags{};
  for (int i = 0; i < count; ++i) {
    flags.entry[i] = codes.code[i] & kTargetBit;
    if (!(codes.code[i] & kHiddenBit)) continue;
    const bool draws = bert && codes.code[i] == kTarget && draw.word[i] >= kReplaceZeroBelow;
    if (!draws) {
      entries.entry[i] = static_cast<Element>(p.fill);
    } else if (draw.word[i] < kReplaceOtherBelow) {
      entries.entry[i] = sample[source_bin(draw.word[i], bins_of(p, b)) * p.x_stride_bin + i];
    }
  }
  if constexpr (kWide) {
    *reinterpret_cast<Pack<Element>*>(inputs) = entries;
    *reinterpret_cast<PackedFlags*>(targets) = flags;
  } else {
    for (int i = 0; i < count; ++i) inputs[i] = entries.entry[i];
    for (int i = 0; i < count; ++i) targets[i] = flags.entry[i];
  }
}

template <class Element, bool kWide>
__global__ void mask_entries(MaskRegions p, std::int64_t n_quads, std::int64_t n_groups) {
  for (std::int64_t item = first_item(); item < p.n_samples * n_groups * n_quads; item += item_step()) {
    const std::int64_t quad = item % n_quads, group = item / n_quads % n_groups,
                       b = item / n_quads / n_groups;
    const int scheme = scheme_of(p, b);
    const std::int64_t chosen = chosen_region(p, b, scheme);
    if (quad == 0 && group == 0) p.region[b] = chosen;
    const QuadCodes units = quad_codes(p, b, scheme, chosen, quad);
    const unsigned active = active_bins(p, b, scheme, group);
    for (int i = 0; i < kQuad && group * kQuad + i < p.n_bins; ++i) {
      const std::int64_t bin = group * kQuad + i;
      QuadCodes codes{};
      if (active >> i & 1u) codes = scheme == kRandom ? entry_codes(p, b, units, quad, bin) : units;
      mask_quad<Element, kWide>(p, b, bin, quad, codes);
    }
  }
}

template <class Element>
void launch_mask(const MaskRegions& p, void* stream) {
  const std::int64_t n_quads = (p.n_units + kQuad - 1) / kQuad, n_groups = (p.n_bins + kQuad - 1) / kQuad;
  const auto misaligned = reinterpret_cast<std::uintptr_t>(p.x) | reinterpret_cast<std::uintptr_t>(p.inputs);
  const bool wide =
      misaligned % sizeof(Pack<Element>) == 0 &&
      reinterpret_cast<std::uintptr_t>(p.target_mask) % kQuad == 0 &&
      (p.n_units | p.x_stride_sample | p.x_stride_bin | p.inputs_stride_sample | p.inputs_stride_bin) %
              kQuad ==
          0;
  const auto kernel = wide ? mask_entries<Element, true> : mask_entries<Element, false>;
  NK_LAUNCH(kernel, grid_size(p.n_samples * n_groups * n_quads, kThreads), kThreads, stream, p, n_quads,
            n_groups);
}

// ---- packing
// ------------------------------------------------------------------------------------------------

// Neighbouring threads take neighbouring units of x; each thread takes a stretch of bins that fills a sector
// of its row.
template <class Element, bool kGather>
__global__ void move_rows(RegionRows p, std::int64_t n_groups) {
  for (std::int64_t item = first_item(); item < p.n_rows * n_groups; item += item_step()) {
    const std::int64_t i = item % p.n_rows, first = item / p.n_rows * kBinsPerThread;
    const std::int64_t row = p.positions ? p.positions[i] : i;
    const std::int64_t end = first + kBinsPerThread < p.n_bins ? first + kBinsPerThread : p.n_bins;
    auto* packed = static_cast<Element*>(p.rows) + row * p.n_bins;
    for (std::int64_t bin = first; bin < end; ++bin) {
      if constexpr (kGather) {
        packed[bin] = static_cast<const Element*>(
            p.x)[p.samples[i] * p.x_stride_sample + bin * p.x_stride_bin + p.units[i] * p.x_stride_unit];
      } else {
        static_cast<Element*>(p.y)[(p.samples[i] * p.n_bins + bin) * p.n_units + p.units[i]] = packed[bin];
      }
    }
  }
}

template <bool kGather>
void launch_rows(const RegionRows& p, void* stream) {
  const std::int64_t n_groups = (p.n_bins + kBinsPerThread - 1) / kBinsPerThread;
  if (p.n_rows * n_groups == 0) return;
  const auto kernel = p.element_size == 1   ? move_rows<std::uint8_t, kGather>
                      : p.element_size == 2 ? move_rows<std::uint16_t, kGather>
                      : p.element_size == 4 ? move_rows<std::uint32_t, kGather>
                                            : move_rows<std::uint64_t, kGather>;
  NK_LAUNCH(kernel, grid_size(p.n_rows * n_groups, kThreads), kThreads, stream, p, n_groups);
}

}  // namespace

void mask_regions_cuda(const MaskRegions& p, void* stream) {
  if (p.n_samples * p.n_bins * p.n_units == 0) return;
  if (p.best_ranks != nullptr) {
    const bool once = !p.choose_per_sample && p.regions_stride_sample == 0 && p.unit_counts == nullptr;
    const std::int64_t n_items = (once ? 1 : p.n_samples) * p.n_units;
    NK_LAUNCH(rank_regions, grid_size(n_items, kThreads), kThreads, stream, p, n_items);
  }
  switch (p.element_size) {
    case 1:
      return launch_mask<std::uint8_t>(p, stream);
    case 2:
      return launch_mask<std::uint16_t>(p, stream);
    case 4:
      return launch_mask<std::uint32_t>(p, stream);
    default:
      return launch_mask<std::uint64_t>(p, stream);
  }
}

void gather_regions_cuda(const RegionRows& p, void* stream) { launch_rows<true>(p, stream); }

void scatter_regions_cuda(const RegionRows& p, void* stream) { launch_rows<false>(p, stream); }

}  // namespace neurokern
