// Moves a tile's entries from x to the inputs, 16 bytes or more at a time, and writes the target mask.
//
// A group is what one thread moves: the entries between two aligned addresses of the inputs. Groups at both
// ends of a row that is not aligned belong to it only in part, and go entry by entry.
#pragma once

#include <cstdint>

#include "common/launch.cuh"
#include "gather_regions/mask_codes.cuh"

namespace neurokern {
namespace {

// How rows may be accessed. kWide: x, inputs and target mask all in groups; kWideStores: x entry by entry;
// kSingle: inputs and target mask are aligned differently, so each thread takes one entry.
enum class Access { kWide, kWideStores, kSingle };

constexpr int kInFlight = 2;  // groups that a thread loads before it stores the first

// A group has 4 entries at least, so that the target mask is written in words.
constexpr int group_entries(int size, Access access) {
  return access == Access::kSingle ? 1 : (size == 8 ? 4 : 16 / size);
}

struct alignas(16) Vector {
  std::uint32_t word[4];
};

template <int kSize>
struct ElementOf;
template <>
struct ElementOf<1> {
  using Type = std::uint8_t;
};
template <>
struct ElementOf<2> {
  using Type = std::uint16_t;
};
template <>
struct ElementOf<4> {
  using Type = std::uint32_t;
};
template <>
struct ElementOf<8> {
  using Type = std::uint64_t;
};

template <int kSize, Access kAccess>
struct Group {
  using Element = typename ElementOf<kSize>::Type;
  static constexpr int kEntries = group_entries(kSize, kAccess);
  static constexpr int kWords = kEntries * kSize < 4 ? 1 : kEntries * kSize / 4;
  static constexpr int kCodeWords = kEntries < 4 ? 1 : kEntries / 4;
  std::uint32_t word[kWords];
  std::uint32_t codes[kCodeWords];
  int row, unit;  // of the tile; the unit of the first entry, below 0 where the row begins inside the group
};

template <class G>
__device__ typename G::Element entry_of(const G& group, int i) {
  constexpr int kSize = sizeof(typename G::Element);
  if constexpr (kSize == 8) {
    return group.word[2 * i] | static_cast<std::uint64_t>(group.word[2 * i + 1]) << 32;
  } else {
    constexpr int kPerWord = 4 / kSize;
    return static_cast<typename G::Element>(group.word[i / kPerWord] >> (8 * kSize * (i % kPerWord)));
  }
}

// Into a word that is 0 there.
template <class G>
__device__ void put_entry(G& group, int i, typename G::Element value) {
  constexpr int kSize = sizeof(typename G::Element);
  if constexpr (kSize == 8) {
    group.word[2 * i] = static_cast<std::uint32_t>(value);
    group.word[2 * i + 1] = static_cast<std::uint32_t>(value >> 32);
  } else {
    constexpr int kPerWord = 4 / kSize;
    group.word[i / kPerWord] |= std::uint32_t{value} << (8 * kSize * (i % kPerWord));
  }
}

// All bits of the entries that are hidden, for word k of a group.
template <int kSize>
__device__ std::uint32_t hidden_bits(const std::uint32_t* codes, int k) {
  const auto hidden = [&](int i) { return codes[i / 4] >> (8 * (i % 4) + 7) & 1u; };
  if constexpr (kSize == 1) {
    return (codes[k] >> 7 & kEachByte) * 0xFFu;
  } else if constexpr (kSize == 2) {
    return hidden(2 * k) * 0xFFFFu | hidden(2 * k + 1) * 0xFFFF0000u;
  } else {
    return 0u - hidden(kSize == 4 ? k : k / 2);
  }
}

template <int kSize>
struct MaskRow {
  using Element = typename ElementOf<kSize>::Type;
  const Element* x;
  Element* inputs;
  std::uint8_t* targets;
};

template <int kSize>
__device__ MaskRow<kSize> row_of(const MaskRegions& p, const MaskTile& tile, int row) {
  using Element = typename ElementOf<kSize>::Type;
  const std::int64_t bin = tile.first_bin + row;
  MaskRow<kSize> at;
  at.x =
      static_cast<const Element*>(p.x) + tile.b * p.x_stride_sample + bin * p.x_stride_bin + tile.first_unit;
  at.inputs = static_cast<Element*>(p.inputs) + tile.b * p.inputs_stride_sample + bin * p.inputs_stride_bin +
              tile.first_unit;
  at.targets = p.target_mask + (tile.b * p.n_bins + bin) * p.n_units + tile.first_unit;
  return at;
}

// ---- the steps of a group

template <class G>
__device__ bool is_whole(const G& group, const MaskTile& tile) {
  return group.unit >= 0 && group.unit + G::kEntries <= tile.n_units;
}

template <class G>
__device__ bool holds(const G& group, const MaskTile& tile, int i) {
  return group.unit + i >= 0 && group.unit + i < tile.n_units;
}

// Reads the codes of a whole group, at any offset, by the words that they lie in.
template <class G>
__device__ void read_whole_codes(const std::uint8_t* codes, G& group) {
  const auto* words = reinterpret_cast<const std::uint32_t*>(codes) + group.unit / 4;
  const int shift = 8 * (group.unit % 4);
  std::uint32_t low = words[0];
#pragma unroll
  for (int k = 0; k < G::kCodeWords; ++k) {
    const std::uint32_t high = words[k + 1];
    group.codes[k] = static_cast<std::uint32_t>((std::uint64_t{high} << 32 | low) >> shift);
    low = high;
  }
}

template <class G>
__device__ void read_codes(const TileCodes& tile_codes, const MaskTile& tile, G& group) {
#pragma unroll
  for (int k = 0; k < G::kCodeWords; ++k) group.codes[k] = 0;
  if (!(tile_codes.active >> group.row & 1u)) return;
  const std::uint8_t* codes = tile_codes.rows + group.row * tile_codes.pitch;
  if (G::kEntries >= 4 && is_whole(group, tile)) return read_whole_codes(codes, group);
#pragma unroll
  for (int i = 0; i < G::kEntries; ++i)
    if (holds(group, tile, i)) group.codes[i / 4] |= std::uint32_t{codes[group.unit + i]} << (8 * (i % 4));
}

template <class G>
__device__ bool is_hidden_wholly(const G& group) {
  std::uint32_t common = group.codes[0];
#pragma unroll
  for (int k = 1; k < G::kCodeWords; ++k) common &= group.codes[k];
  return (common & 0x80808080u) == 0x80808080u;
}

// Reads the entries; not where all are hidden, since their memory need not be touched at all.
template <int kSize, Access kAccess>
__device__ void read_entries(const MaskRow<kSize>& row, const MaskTile& tile, Group<kSize, kAccess>& group) {
#pragma unroll
  for (int k = 0; k < (Group<kSize, kAccess>::kWords); ++k) group.word[k] = 0;
  if (is_hidden_wholly(group)) return;
  const bool whole = is_whole(group, tile);
  if (kAccess == Access::kWide && whole) {
    const auto* vectors = reinterpret_cast<const Vector*>(row.x + group.unit);
#pragma unroll
    for (int k = 0; k < (Group<kSize, kAccess>::kWords) / 4; ++k) {
      const Vector vector = vectors[k];
#pragma unroll
      for (int w = 0; w < 4; ++w) group.word[4 * k + w] = vector.word[w];
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < (Group<kSize, kAccess>::kEntries); ++i)
    if (whole || holds(group, tile, i)) put_entry(group, i, row.x[group.unit + i]);
}

template <int kSize, Access kAccess>
__device__ void write_whole(const MaskRow<kSize>& row, const Group<kSize, kAccess>& group) {
  using G = Group<kSize, kAccess>;
  auto* vectors = reinterpret_cast<Vector*>(row.inputs + group.unit);
#pragma unroll
  for (int k = 0; k < (Group<kSize, kAccess>::kWords) / 4; ++k) {
    Vector vector;
#pragma unroll
    for (int w = 0; w < 4; ++w) vector.word[w] = group.word[4 * k + w];
    vectors[k] = vector;
  }
  struct alignas(G::kEntries) Flags {
    std::uint32_t word[G::kCodeWords];
  } flags;
#pragma unroll
  for (int k = 0; k < (Group<kSize, kAccess>::kCodeWords); ++k) flags.word[k] = group.codes[k] & kEachByte;
  *reinterpret_cast<Flags*>(row.targets + group.unit) = flags;
}

template <int kSize, Access kAccess>
__device__ void write_entries(const MaskRegions& p, const MaskRow<kSize>& row, const MaskTile& tile,
                              Group<kSize, kAccess>& group) {
  const std::uint32_t fill[2] = {static_cast<std::uint32_t>(p.fill),
                                 static_cast<std::uint32_t>(p.fill >> 32)};
#pragma unroll
  for (int k = 0; k < (Group<kSize, kAccess>::kWords); ++k) {
    const std::uint32_t hidden = hidden_bits<kSize>(group.codes, k);
    group.word[k] = (group.word[k] & ~hidden) | (fill[k % 2] & hidden);
  }
  if constexpr (kAccess != Access::kSingle)
    if (is_whole(group, tile)) return write_whole(row, group);
#pragma unroll
  for (int i = 0; i < (Group<kSize, kAccess>::kEntries); ++i) {
    if (!holds(group, tile, i)) continue;
    row.inputs[group.unit + i] = entry_of(group, i);
    row.targets[group.unit + i] = static_cast<std::uint8_t>(group.codes[i / 4] >> (8 * (i % 4)) & 1u);
  }
}

// BERT-style: writes over the few targets that take another bin's value. Their draw is made once more, which
// is cheaper than keeping the words of all.
template <int kSize, Access kAccess>
__device__ void write_others(const MaskRegions& p, const MaskRow<kSize>& row, const MaskTile& tile,
                             const Group<kSize, kAccess>& group) {
  const std::int64_t bin = tile.first_bin + group.row;
  const std::uint64_t sample = p.offset + static_cast<std::uint64_t>(tile.b);
#pragma unroll
  for (int k = 0; k < (Group<kSize, kAccess>::kCodeWords); ++k) {
    std::uint32_t others = group.codes[k] >> 1 & ~(group.codes[k] >> 7) & kEachByte;
    for (; others != 0; others &= others - 1) {
      const int i = group.unit + 4 * k + (__ffs(static_cast<int>(others)) - 1) / 8;
      const std::int64_t unit = tile.first_unit + i;
      const Philox4 draw = draw_quad(p.seed, sample, kStageReplace, unit / kQuad, bin);
      const int place = static_cast<int>(unit % kQuad);
      const std::uint32_t word =
          place < 2 ? (place == 0 ? draw.word[0] : draw.word[1]) : (place == 2 ? draw.word[2] : draw.word[3]);
      const std::int64_t source = source_bin(word, bins_of(p, tile.b));
      row.inputs[i] = row.x[(source - bin) * p.x_stride_bin + i];
    }
  }
}

// ---- the kernel

// Groups of a row, and 2^32 / slots rounded up, by which an item number (below 2^16) is divided.
struct GroupPlan {
  std::uint32_t slots, reciprocal;
};

template <int kSize, Access kAccess>
__device__ void place_group(const MaskRegions& p, const MaskTile& tile, GroupPlan plan, std::uint32_t item,
                            Group<kSize, kAccess>& group) {
  constexpr int kEntries = Group<kSize, kAccess>::kEntries;
  const std::uint32_t row = plan.slots == 1 ? item : __umulhi(item, plan.reciprocal);
  group.row = static_cast<int>(row);
  group.unit = static_cast<int>(item - row * plan.slots) * kEntries;
  const auto address = reinterpret_cast<std::uintptr_t>(row_of<kSize>(p, tile, group.row).inputs);
  group.unit -= static_cast<int>(address / kSize % kEntries);
}

template <int kSize, Access kAccess>
__device__ void mask_tile(const MaskRegions& p, const MaskTile& tile, const TileCodes& codes,
                          GroupPlan plan) {
  const std::uint32_t n_items = static_cast<std::uint32_t>(tile.n_bins) * plan.slots;
  for (std::uint32_t first = threadIdx.x; first < n_items; first += kMaskThreads * kInFlight) {
    Group<kSize, kAccess> groups[kInFlight];
#pragma unroll
    for (int k = 0; k < kInFlight; ++k) {
      const std::uint32_t item = first + static_cast<std::uint32_t>(k) * kMaskThreads;
      if (item >= n_items) break;
      place_group(p, tile, plan, item, groups[k]);
      read_codes(codes, tile, groups[k]);
      read_entries(row_of<kSize>(p, tile, groups[k].row), tile, groups[k]);
    }
#pragma unroll
    for (int k = 0; k < kInFlight; ++k) {
      if (first + static_cast<std::uint32_t>(k) * kMaskThreads >= n_items) break;
      const MaskRow<kSize> row = row_of<kSize>(p, tile, groups[k].row);
      write_entries(p, row, tile, groups[k]);
      if (p.replacement == kBertRandom) write_others(p, row, tile, groups[k]);
    }
  }
}

template <int kSize, Access kAccess>
__global__ void __launch_bounds__(kMaskThreads, 3) mask_entries(MaskRegions p, MaskTiling t, GroupPlan plan) {
  NK_DYNAMIC_SHARED(std::uint32_t, shared);
  NK_SHARED(unsigned long long, of_warps, kMaskThreads / kWarp);
  NK_SHARED(unsigned, hidden_bins, 1);
  for (std::int64_t number = blockIdx.x; number < t.n_tiles; number += gridDim.x) {
    const MaskTile tile = tile_of(p, t, number);
    const std::int64_t chosen = chosen_region(p, tile, of_warps);
    if (threadIdx.x == 0 && tile.first_bin == 0 && tile.first_unit == 0) p.region[tile.b] = chosen;
    const unsigned active = active_bins(p, tile, hidden_bins);
    const TileCodes codes = tile_codes(p, t, tile, chosen, active, shared);
    mask_tile<kSize, kAccess>(p, tile, codes, plan);
    __syncthreads();  // the next tile writes the shared memory anew
  }
}

}  // namespace
}  // namespace neurokern
