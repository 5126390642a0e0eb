// Counters of a block of threads in shared memory, and their way to the output: converted, and stored once,
// 16 bytes a thread. Sixteen bits a counter where the spikes are few enough that none can overflow.
#pragma once

#include "bin_spikes/bin_spikes_body.h"
#include "bin_spikes/cuda_plan.h"
#include "common/launch.cuh"

namespace neurokern {
namespace {

constexpr int kThreads = 256;
constexpr unsigned kWholeWarp = 0xFFFFFFFFu;
constexpr std::int64_t kMostPacked = 0xFFFF;  // spikes that 16-bit counters are sure to hold

__device__ std::int64_t first_item() { return std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; }
__device__ std::int64_t item_stride() { return std::int64_t{gridDim.x} * blockDim.x; }

// Counters of n_cells neighbouring elements of the output. `pad` counters before the first are left out, so
// that the counters of 16 aligned bytes of output lie aligned too.
struct Tile {
  std::uint32_t* words;
  std::uint32_t n_cells, pad;
  bool packed;

  __device__ std::uint32_t n_words() const { return packed ? (pad + n_cells + 1) / 2 : pad + n_cells; }

  // Up to the end of the last 16 bytes, which are read whole.
  __device__ void clear() const {
    const std::uint32_t n = (n_words() + 15) & ~15u;
    for (std::uint32_t i = threadIdx.x; i < n; i += kThreads) words[i] = 0;
  }
  __device__ void add(std::uint32_t cell) const {
    const std::uint32_t at = cell + pad;
    atomicAdd(&words[packed ? at >> 1 : at], packed && (at & 1) != 0 ? 0x10000u : 1u);
  }
  __device__ std::uint32_t count(std::uint32_t cell) const {
    const std::uint32_t at = cell + pad;
    return packed ? (words[at >> 1] >> (at & 1) * 16) & 0xFFFFu : words[at];
  }
};

// How a count becomes the bits of an element.
template <typename Bits>
struct Whole {
  using Element = Bits;
  static __device__ Bits bits(std::uint32_t count) { return static_cast<Bits>(count); }
};
struct Half {
  using Element = std::uint16_t;
  static __device__ std::uint16_t bits(std::uint32_t count) { return half_bits(count); }
};
struct BFloat16 {
  using Element = std::uint16_t;
  static __device__ std::uint16_t bits(std::uint32_t count) { return bfloat16_bits(count); }
};
struct Single {
  using Element = std::uint32_t;
  static __device__ std::uint32_t bits(std::uint32_t count) { return float_bits(static_cast<float>(count)); }
};
struct Double {
  using Element = std::uint64_t;
  static __device__ std::uint64_t bits(std::uint32_t count) {
    const double x = static_cast<double>(count);
    std::uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
  }
};

struct alignas(16) Line {
  std::uint32_t words[4];
};

// 16 bytes of output from as many counts as they hold.
template <typename Format>
__device__ Line line_of(const std::uint32_t* counts) {
  constexpr int kSize = sizeof(typename Format::Element);
  Line line;
  NK_UNROLL
  for (int i = 0; i < 4; ++i) {
    if constexpr (kSize == 8) {
      line.words[i] = static_cast<std::uint32_t>(Format::bits(counts[i / 2]) >> (i % 2) * 32);
    } else {
      std::uint32_t word = 0;
      NK_UNROLL
      for (int j = 0; j < 4 / kSize; ++j)
        word |= static_cast<std::uint32_t>(Format::bits(counts[i * (4 / kSize) + j])) << (j * kSize * 8);
      line.words[i] = word;
    }
  }
  return line;
}

// The counts of 16 bytes of output. Read as aligned groups of words.
template <int kCounts, bool kPacked>
__device__ void load_counts(const std::uint32_t* words, std::uint32_t group, std::uint32_t* counts) {
  constexpr int kWords = kPacked ? kCounts / 2 : kCounts;
  constexpr int kTogether = kWords < 4 ? kWords : 4;
  struct alignas(4 * kTogether) Some {
    std::uint32_t words[kTogether];
  };
  const Some* from = reinterpret_cast<const Some*>(words + group * kWords);
  NK_UNROLL
  for (int i = 0; i < kWords / kTogether; ++i) {
    const Some some = from[i];
    NK_UNROLL
    for (int j = 0; j < kTogether; ++j) {
      const int word = i * kTogether + j;
      if constexpr (kPacked) {
        counts[2 * word] = some.words[j] & 0xFFFFu;
        counts[2 * word + 1] = some.words[j] >> 16;
      } else {
        counts[word] = some.words[j];
      }
    }
  }
}

// Stores groups of 16 bytes, saturated; returns the largest count this thread saw.
template <typename Format, bool kPacked>
__device__ std::uint32_t store_groups(const Tile& tile, void* out, std::uint32_t limit, std::uint32_t first,
                                      std::uint32_t stride) {
  using Element = typename Format::Element;
  constexpr int kCounts = 16 / sizeof(Element);
  Element* aligned = static_cast<Element*>(out) - tile.pad;
  std::uint32_t largest = 0;
  const std::uint32_t end = tile.pad + tile.n_cells;
  for (std::uint32_t group = first; group * kCounts < end; group += stride) {
    std::uint32_t counts[kCounts];
    load_counts<kCounts, kPacked>(tile.words, group, counts);
    NK_UNROLL
    for (int i = 0; i < kCounts; ++i) {
      largest = largest < counts[i] ? counts[i] : largest;
      counts[i] = counts[i] < limit ? counts[i] : limit;
    }
    const std::uint32_t cell = group * kCounts;
    if (cell >= tile.pad && cell + kCounts <= end) {
      *reinterpret_cast<Line*>(aligned + cell) = line_of<Format>(counts);
      continue;
    }
    NK_UNROLL
    for (int i = 0; i < kCounts; ++i)
      if (cell + i >= tile.pad && cell + i < end) aligned[cell + i] = Format::bits(counts[i]);
  }
  return largest;
}

template <typename Format>
__device__ std::uint32_t store_tile(const Tile& tile, void* out, std::uint32_t limit, std::uint32_t first,
                                    std::uint32_t stride) {
  return tile.packed ? store_groups<Format, true>(tile, out, limit, first, stride)
                     : store_groups<Format, false>(tile, out, limit, first, stride);
}

// Stores every stride-th group of 16 bytes of the tile from `first` on to element `at` of the output.
__device__ std::uint32_t store_tile(const BinSpikes& p, const Tile& tile, std::int64_t at,
                                    std::uint32_t first, std::uint32_t stride) {
  const std::uint32_t limit =
      p.largest_exact > 0x7FFFFFFF ? 0x7FFFFFFFu : static_cast<std::uint32_t>(p.largest_exact);
  char* out = static_cast<char*>(p.counts) + at * element_size(p.count_type);
  switch (p.count_type) {
    case CountType::u8:
      return store_tile<Whole<std::uint8_t>>(tile, out, limit, first, stride);
    case CountType::i16:  // below 32768 the two are the same bits
    case CountType::u16:
      return store_tile<Whole<std::uint16_t>>(tile, out, limit, first, stride);
    case CountType::i32:
      return store_tile<Whole<std::uint32_t>>(tile, out, limit, first, stride);
    case CountType::i64:
      return store_tile<Whole<std::uint64_t>>(tile, out, limit, first, stride);
    case CountType::f16:
      return store_tile<Half>(tile, out, limit, first, stride);
    case CountType::bf16:
      return store_tile<BFloat16>(tile, out, limit, first, stride);
    case CountType::f32:
      return store_tile<Single>(tile, out, limit, first, stride);
    case CountType::f64:
      return store_tile<Double>(tile, out, limit, first, stride);
  }
  return 0;
}

// The tile for n_cells elements from element `at` of the output on.
__device__ Tile make_tile(const BinSpikes& p, std::uint32_t* words, std::int64_t at, std::uint32_t n_cells,
                          bool packed) {
  const std::uint32_t size = element_size(p.count_type);
  const std::uint64_t address =
      reinterpret_cast<std::uint64_t>(p.counts) + static_cast<std::uint64_t>(at) * size;
  return {words, n_cells, static_cast<std::uint32_t>(address / size % (16 / size)), packed};
}

}  // namespace
}  // namespace neurokern
