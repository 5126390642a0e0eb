// Launches: how each batch is cut into blocks. No call waits, allocates, or depends on values on the device.
#include <cstdint>

#include "common/launch.cuh"
#include "gather_regions/mask_entries.cuh"
#include "gather_regions/move_rows.cuh"
#include "gather_regions/pack_targets.cuh"

namespace neurokern {
namespace {

constexpr std::int64_t kTileItems = 2048;  // groups of a block: 8 a thread, so that its draws are shared
constexpr std::int64_t kFullGrid = 1024;   // blocks that fill a large GPU
constexpr std::int64_t kSharedBytes = 32 << 10;  // of codes: 6 blocks still fit a multiprocessor

// Blocks for so many tiles; beyond a fair number of them each block takes several.
unsigned blocks_for(std::int64_t n_tiles) {
  constexpr std::int64_t kMaxBlocks = 4 * kFullGrid;
  return static_cast<unsigned>(n_tiles < 1 ? 1 : (n_tiles < kMaxBlocks ? n_tiles : kMaxBlocks));
}

std::int64_t ceil_divide(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

bool is_multiple(std::int64_t number, std::int64_t of) { return number % of == 0; }

// ---- mask

// Do the addresses of two arrays agree, modulo `entries`, at the start of every row?
bool in_phase(const MaskRegions& p, std::int64_t first, std::int64_t stride_sample, std::int64_t stride_bin,
              std::int64_t entries) {
  return is_multiple(first, entries) && (p.n_samples == 1 || is_multiple(stride_sample, entries)) &&
         (p.n_bins == 1 || is_multiple(stride_bin, entries));
}

struct MaskLayout {
  std::int64_t inputs, x, targets;  // addresses, counted in elements
};

MaskLayout layout_of(const MaskRegions& p) {
  const auto number = [](const void* address, int size) {
    return static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(address) / static_cast<unsigned>(size));
  };
  return {number(p.inputs, p.element_size), number(p.x, p.element_size), number(p.target_mask, 1)};
}

Access access_of(const MaskRegions& p) {
  const MaskLayout at = layout_of(p);
  const bool targets_fit =
      in_phase(p, at.targets - at.inputs, p.n_bins * p.n_units - p.inputs_stride_sample,
               p.n_units - p.inputs_stride_bin, group_entries(p.element_size, Access::kWide));
  if (!targets_fit) return Access::kSingle;
  const bool x_fits = in_phase(p, at.x - at.inputs, p.x_stride_sample - p.inputs_stride_sample,
                               p.x_stride_bin - p.inputs_stride_bin, 16 / p.element_size);
  return x_fits ? Access::kWide : Access::kWideStores;
}

GroupPlan plan_groups(const MaskRegions& p, Access access, std::int64_t tile_units) {
  const std::int64_t entries = group_entries(p.element_size, access);
  const bool rows_aligned =
      in_phase(p, layout_of(p).inputs, p.inputs_stride_sample, p.inputs_stride_bin, entries);
  const std::int64_t slots = ceil_divide(tile_units + (rows_aligned ? 0 : entries - 1), entries);
  return {static_cast<std::uint32_t>(slots), static_cast<std::uint32_t>(0xFFFFFFFFu / slots + 1)};
}

MaskTiling tile_batch(const MaskRegions& p, GroupPlan plan, bool code_per_entry) {
  MaskTiling t{};
  t.units = static_cast<int>(p.n_units < kMaxTileUnits ? p.n_units : kMaxTileUnits);
  t.pitch = (t.units + kQuad - 1) / kQuad * kQuad + kQuad;
  t.unit_tiles = ceil_divide(p.n_units, t.units);
  const std::int64_t slots = plan.slots, n_items = p.n_samples * p.n_bins * t.unit_tiles * slots;
  std::int64_t items = n_items / kFullGrid;  // small batches are cut finer
  items = items < kMaskThreads ? kMaskThreads : (items > kTileItems ? kTileItems : items);
  std::int64_t bins = items / slots, room = code_per_entry ? kSharedBytes / t.pitch - 1 : kMaxTileBins;
  room = room < kMaxTileBins ? room : kMaxTileBins;
  room = room < p.n_bins ? room : p.n_bins;
  bins = bins < 1 ? 1 : (bins > room ? room : bins);
  t.bins = static_cast<int>(bins);
  t.bin_tiles = ceil_divide(p.n_bins, bins);
  t.n_tiles = p.n_samples * t.bin_tiles * t.unit_tiles;
  return t;
}

template <int kSize, Access kAccess>
void launch_mask(const MaskRegions& p, void* stream) {
  const std::int64_t tile_units = p.n_units < kMaxTileUnits ? p.n_units : kMaxTileUnits;
  const GroupPlan plan = plan_groups(p, kAccess, tile_units);
  const bool code_per_entry = p.replacement == kBertRandom || p.schemes != nullptr || p.scheme == kRandom;
  const MaskTiling t = tile_batch(p, plan, code_per_entry);
  const int bytes = t.pitch * (code_per_entry ? 1 + t.bins : 1);
  const auto kernel = mask_entries<kSize, kAccess>;
  NK_LAUNCH_SHARED(kernel, blocks_for(t.n_tiles), kMaskThreads, bytes, stream, p, t, plan);
}

template <int kSize>
void launch_mask_of(const MaskRegions& p, void* stream) {
  switch (access_of(p)) {
    case Access::kWide:
      return launch_mask<kSize, Access::kWide>(p, stream);
    case Access::kWideStores:
      return launch_mask<kSize, Access::kWideStores>(p, stream);
    default:
      return launch_mask<kSize, Access::kSingle>(p, stream);
  }
}

// ---- rows

template <template <int> class Launch, class Problem>
void launch_by_size(const Problem& p, void* stream) {
  switch (p.element_size) {
    case 1:
      return Launch<1>::run(p, stream);
    case 2:
      return Launch<2>::run(p, stream);
    case 4:
      return Launch<4>::run(p, stream);
    default:
      return Launch<8>::run(p, stream);
  }
}

template <int kSize>
struct LaunchMask {
  static void run(const MaskRegions& p, void* stream) { launch_mask_of<kSize>(p, stream); }
};

template <int kSize>
struct LaunchGather {
  static void run(const RegionRows& p, void* stream) {
    using Element = typename ElementOf<kSize>::Type;
    const std::int64_t n_tiles = ceil_divide(p.n_rows, kLanes) * ceil_divide(p.n_bins, kRowTileBins);
    if (n_tiles == 0) return;
    NK_LAUNCH(gather_rows<Element>, blocks_for(n_tiles), kRowThreads, stream, p, n_tiles);
  }
};

template <int kSize>
struct LaunchScatter {
  static void run(const RegionRows& p, void* stream) {
    using Element = typename ElementOf<kSize>::Type;
    const std::int64_t n_tiles =
        p.n_samples * ceil_divide(p.n_units, kLanes) * ceil_divide(p.n_bins, kRowTileBins);
    if (n_tiles == 0) return;
    NK_LAUNCH(scatter_rows<Element>, blocks_for(n_tiles), kRowThreads, stream, p, n_tiles);
  }
};

}  // namespace

void mask_regions_cuda(const MaskRegions& problem, void* stream) {
  MaskRegions p = problem;
  for (int bits = 8 * p.element_size; bits < 64; bits *= 2)
    p.fill |= p.fill << bits;  // entries are masked in words
  if (p.n_samples * p.n_bins * p.n_units == 0) return;
  if (p.best_ranks != nullptr)
    NK_LAUNCH(rank_regions, blocks_for(!p.choose_per_sample && same_regions(p) ? 1 : p.n_samples),
              kMaskThreads, stream, p);
  launch_by_size<LaunchMask>(p, stream);
}

void gather_regions_cuda(const RegionRows& p, void* stream) { launch_by_size<LaunchGather>(p, stream); }

void scatter_regions_cuda(const RegionRows& p, void* stream) { launch_by_size<LaunchScatter>(p, stream); }

std::int64_t target_chunks(std::int64_t n_samples, std::int64_t sample_cells) {
  return n_samples * ceil_divide(sample_cells, kChunkCells);
}

void count_targets_cuda(const PackTargets& p, void* stream) {
  const std::int64_t chunks = target_chunks(p.n_samples, p.sample_cells);
  if (chunks > 0) NK_LAUNCH(count_chunks, blocks_for(chunks), kChunkThreads, stream, p, chunks);
  NK_LAUNCH(sum_chunks, 1, kSumThreads, stream, p, chunks);
}

void write_targets_cuda(const PackTargets& p, void* stream) {
  const std::int64_t chunks = target_chunks(p.n_samples, p.sample_cells);
  if (p.capacity == 0) return;
  const std::int64_t ends =
      ceil_divide(p.capacity, kChunkCells);  // the -1 behind the last target may be many
  const unsigned blocks = blocks_for(chunks > ends ? chunks : ends);
  NK_LAUNCH(write_chunks, blocks, kChunkThreads, stream, p, chunks);
}

}  // namespace neurokern
