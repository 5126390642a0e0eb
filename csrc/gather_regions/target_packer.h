// Counts the targets of a sample and writes their positions.
#pragma once

#include <cstdint>

#include "gather_regions/gather_regions.h"
#include "gather_regions/mask_bits.h"

namespace neurokern {
namespace NEUROKERN_ISA {
namespace {

constexpr std::int64_t kSerialCells = 1 << 19;  // about 200 us: threads cost more than they bring

inline int threads_for(const PackTargets& p, int n_threads) {
  return p.n_samples * p.sample_cells < kSerialCells ? 1 : n_threads;
}

void count_sample(void* context, std::int64_t b) {
  const auto& p = *static_cast<const PackTargets*>(context);
  const std::uint8_t* cells = p.target_mask + b * p.sample_cells;
  const std::uint8_t* end = cells + p.sample_cells;
  std::int32_t count = 0;
  constexpr std::int64_t kSum = 255 * kVectorBytes;  // that bytes can sum up without overflow
  while (end - cells >= kVectorBytes) {
    const std::uint8_t* stop = end - cells < kSum ? end - kVectorBytes : cells + kSum - kVectorBytes;
    MaskBytes sums = {};
    for (; cells <= stop; cells += kVectorBytes) sums += load_bytes(cells);
    for (int i = 0; i < kVectorBytes; ++i) count += sums[i];
  }
  for (; cells < end; ++cells) count += *cells;
  p.cu_seqlens[b + 1] = count;
}

// By eight bits: the positions of those that are set, in order, a byte each.
struct SetBits {
  std::uint64_t positions[256];
  constexpr SetBits() : positions() {
    for (int bits = 0; bits < 256; ++bits) {
      int n = 0;
      for (int i = 0; i < 8; ++i)
        if (bits >> i & 1) positions[bits] |= static_cast<std::uint64_t>(i) << 8 * n++;
    }
  }
};
constexpr SetBits kSetBits;

typedef std::int64_t CellNumbers __attribute__((vector_size(kVectorBytes)));

// kVectorBytes / 8 bytes, each in a number of its own.
NK_INLINE CellNumbers widen_bytes(const void* from) {
#if defined(__AVX512F__)
  return (CellNumbers)_mm512_maskz_cvtepu8_epi64(0xFF, _mm_loadl_epi64(static_cast<const __m128i*>(from)));
#elif defined(__AVX2__)
  return (CellNumbers)_mm256_cvtepu8_epi64(_mm_loadu_si32(from));
#elif defined(__SSE4_1__)
  return (CellNumbers)_mm_cvtepu8_epi64(_mm_loadu_si16(from));
#else
  const auto* bytes = static_cast<const std::uint8_t*>(from);
  return CellNumbers{bytes[0], bytes[1]};
#endif
}

// Writes eight numbers, of which those of set bits come first; returns how many those are.
NK_INLINE int write_eight(std::int64_t first, unsigned bits, std::int64_t* index) {
  const auto* positions = reinterpret_cast<const char*>(&kSetBits.positions[bits]);
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += kVectorBytes / 8) {
    const CellNumbers numbers = widen_bytes(positions + i) + first;
    __builtin_memcpy(index + i, &numbers, sizeof numbers);
  }
  return __builtin_popcount(bits);
}

// No branch that a random mask could mispredict: eight cells always write eight numbers, and only as many as
// there are targets stay. Near the end of the sample's part of the index, beyond which another thread may
// write, cells go one by one.
void write_sample(void* context, std::int64_t b) {
  const auto& p = *static_cast<const PackTargets*>(context);
  const std::uint8_t* mask = p.target_mask;
  std::int64_t* index = p.index;
  const std::int64_t cells = (b + 1) * p.sample_cells;
  std::int64_t at = p.cu_seqlens[b], end = p.cu_seqlens[b + 1], cell = b * p.sample_cells;
  end = end < p.capacity ? end : p.capacity;
  for (; cell + kMaskBlock <= cells && at + kMaskBlock <= end; cell += kMaskBlock) {
    const std::uint64_t bits = mask_bits(mask + cell);
    if (bits == 0) continue;
#pragma GCC unroll 8
    for (int i = 0; i < kMaskBlock; i += 8)
      at += write_eight(cell + i, static_cast<unsigned>(bits >> i & 0xFF), index + at);
  }
  for (; at < end; ++cell) {
    index[at] = cell;
    at += mask[cell];
  }
}

}  // namespace
}  // namespace NEUROKERN_ISA
}  // namespace neurokern
