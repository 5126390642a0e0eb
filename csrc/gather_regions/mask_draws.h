// The draws of a row of up to 1024 units: which entries are hit, and which targets BERT-style masking shows.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/philox_block.h"
#include "gather_regions/gather_regions_body.h"
#include "gather_regions/mask_bits.h"

namespace neurokern {
namespace NEUROKERN_ISA {
namespace {

constexpr int kChunk = 4 * kPhiloxQuads;  // units or bins that a table of quads decides

inline std::int64_t chunk_size(std::int64_t first, std::int64_t size) {
  return size - first < kChunk ? size - first : kChunk;
}

inline int rounded_up(std::int64_t count, int block) {
  return static_cast<int>((count + block - 1) / block) * block;
}

inline void prepare_quads(const MaskRegions& p, std::int64_t b, std::uint32_t stage,
                          const std::uint32_t* quads, int n, PhiloxTable& table) {
  const DrawCounter at = draw_counter(p.offset + static_cast<std::uint64_t>(b), stage);
  prepare_table(table, p.seed, quads, n, at.c2, at.c3);
}

// For the indices first ... first + count - 1; `first` is a multiple of kChunk.
inline void prepare_indices(const MaskRegions& p, std::int64_t b, std::uint32_t stage, std::int64_t first,
                            std::int64_t count, PhiloxTable& table) {
  std::uint32_t quads[kPhiloxQuads];
  const int n = rounded_up(count, 4) / 4, padded = rounded_up(n, kPairQuads);
  for (int i = 0; i < padded; ++i) quads[i] = static_cast<std::uint32_t>(first / 4 + i);
  prepare_quads(p, b, stage, quads, n, table);
}

// A byte for each word of a pair of chains: 0xFF where it is at most `last`, else 0.
NK_INLINE MaskBytes flag_at_most(const PhiloxWords (&words)[4], std::uint32_t last) {
  const PhiloxWords limit = PhiloxWords{} + last;
#if defined(__AVX512BW__)
  std::uint64_t bits = 0;
  for (int i = 0; i < 4; ++i)
    bits |= std::uint64_t{_mm512_cmple_epu32_mask((__m512i)words[i], (__m512i)limit)} << 16 * i;
  return (MaskBytes)_mm512_movm_epi8(bits);
#elif defined(__AVX2__)
  const auto hits = [&](int i) { return (__m256i)(words[i] <= limit); };
  const __m256i packed =
      _mm256_packs_epi16(_mm256_packs_epi32(hits(0), hits(1)), _mm256_packs_epi32(hits(2), hits(3)));
  return (MaskBytes)_mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
#elif defined(__SSE2__)
  const auto hits = [&](int i) { return (__m128i)(words[i] <= limit); };
  return (MaskBytes)_mm_packs_epi16(_mm_packs_epi32(hits(0), hits(1)), _mm_packs_epi32(hits(2), hits(3)));
#else
  MaskBytes flags;
  for (int i = 0; i < kVectorBytes; ++i) flags[i] = words[i / 4][i % 4] <= last ? 0xFF : 0;
  return flags;
#endif
}

// flags[i] = codes[i] where the table's entry i is hit, else 0; both have room for whole pairs of chains.
inline void draw_hits(const PhiloxTable& table, std::uint32_t bin, std::uint64_t threshold,
                      const std::uint8_t* codes, std::uint8_t* flags) {
  if (threshold == 0) {
    __builtin_memset(flags, 0, static_cast<std::size_t>(table.n_pairs) * kVectorBytes);
    return;
  }
  const std::uint32_t last = static_cast<std::uint32_t>(threshold - 1);
  draw_words(table, bin, [&](int pair, const PhiloxWords(&words)[4]) __attribute__((always_inline)) {
    store_bytes(flags + pair * kVectorBytes,
                load_bytes(codes + pair * kVectorBytes) & flag_at_most(words, last));
  });
}

// Writes the positions of flags that are set, and returns their number. Four at a time, whether so many
// are left or not: a loop that ends with the last bit ends where no predictor expects it. `places` has room
// for kMaskBlock more than are found.
inline int list_flags(const std::uint8_t* flags, int n_blocks, std::uint16_t* places) {
  int n = 0;
  for (int block = 0; block < n_blocks; ++block) {
    std::uint64_t bits = mask_bits(flags + block * kMaskBlock);
    const int count = __builtin_popcountll(bits);
    for (int done = 0; done < count; done += 4) {
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        places[n + done + i] =
            static_cast<std::uint16_t>(block * kMaskBlock + __builtin_ctzll(bits | std::uint64_t{1} << 63));
        bits &= bits - 1;
      }
    }
    n += count;
  }
  return n;
}

// ---- BERT-style replacement

// What is drawn for up to 1024 units of a sample: words for the quads of units with a target, alone.
struct Replacements {
  PhiloxTable table;
  bool every_quad;
  alignas(64) std::uint8_t codes[kChunk];  // of the listed quads' entries
  std::uint16_t units[kChunk];             // of the listed quads' entries, counted from the chunk's first
  // Where listed quads stand in the row, by vector of the row: the first of them, and the order.
  std::uint16_t first_listed[kChunk / kVectorBytes];
  PhiloxWords order[kChunk / kVectorBytes];
};

// The quads of `bytes` in the order of an entry of Replacements::order.
NK_INLINE MaskBytes order_quads(MaskBytes bytes, PhiloxWords order) {
#if defined(__AVX512F__) || defined(__AVX2__) || !defined(__SSE2__)
  return (MaskBytes)__builtin_shuffle((PhiloxWords)bytes, order);
#else  // without a permutation of words, one of bytes
  return (MaskBytes)_mm_shuffle_epi8((__m128i)bytes, (__m128i)(order * 0x04040404u + 0x03020100u));
#endif
}

// Lists every quad if entries draw for themselves, since then each row has targets of its own.
inline void prepare_replacements(const MaskRegions& p, std::int64_t b, std::int64_t first,
                                 const std::uint8_t* codes, std::int64_t count, bool draws_entries,
                                 Replacements& r) {
  std::uint32_t quads[kPhiloxQuads + kPairQuads] = {};
  std::uint32_t order[kPhiloxQuads + kPairQuads] = {};
  const int n_quads = rounded_up(count, 4) / 4;
  int n = 0;
  for (int quad = 0; quad < n_quads; ++quad) {
    std::uint32_t four;
    __builtin_memcpy(&four, codes + 4 * quad, sizeof four);
    __builtin_memcpy(r.codes + 4 * n, &four, sizeof four);
    quads[n] = static_cast<std::uint32_t>(first / 4 + quad);
    for (int i = 0; i < 4; ++i) r.units[4 * n + i] = static_cast<std::uint16_t>(4 * quad + i);
    const int vector = quad / kPairQuads;
    if (quad % kPairQuads == 0) r.first_listed[vector] = static_cast<std::uint16_t>(n);
    order[quad] = static_cast<std::uint32_t>(n - r.first_listed[vector]);
    n += draws_entries || (four & 0x01010101u * kTargetBit) != 0;
  }
  r.every_quad = n == n_quads;
  __builtin_memcpy(r.order, order, sizeof r.order);
  __builtin_memset(r.codes + 4 * n, kShown, static_cast<std::size_t>(rounded_up(4 * n, kMaskBlock) - 4 * n));
  prepare_quads(p, b, kStageReplace, quads, n, r.table);
}

// Draws for the targets of a row: `shown` gets the row's codes, kShown where a target is shown as it is;
// `places` the listed entries that get another bin's value, and `words` what is drawn for those. Returns the
// number of places.
inline int draw_replacements(const Replacements& r, const std::uint8_t* codes, std::int64_t count,
                             std::uint32_t bin, std::uint8_t* shown, std::uint16_t* places,
                             std::uint32_t* words) {
  alignas(64) std::uint8_t others[kChunk], kept[kChunk + kVectorBytes];
  const std::uint8_t* listed = r.every_quad ? codes : r.codes;
  draw_words(r.table, bin, [&](int pair, const PhiloxWords(&drawn)[4]) __attribute__((always_inline)) {
    const int at = pair * kVectorBytes;
    const MaskBytes code = load_bytes(listed + at), targets = (MaskBytes)(code == kTarget);
    const MaskBytes below = flag_at_most(drawn, kReplaceOtherBelow - 1);
    store_bytes(others + at, targets & below & ~flag_at_most(drawn, kReplaceZeroBelow - 1));
    store_bytes(r.every_quad ? shown + at : kept + at, r.every_quad ? code & ~(targets & ~below) : ~below);
    __builtin_memcpy(words + at, drawn, sizeof drawn);
  });
  for (int at = 0; !r.every_quad && at < count; at += kVectorBytes) {
    const int vector = at / kVectorBytes;
    const MaskBytes code = load_bytes(codes + at);
    const MaskBytes flags = order_quads(load_bytes(kept + 4 * r.first_listed[vector]), r.order[vector]);
    store_bytes(shown + at, code & ~(flags & (MaskBytes)(code == kTarget)));
  }
  const int end = r.table.n_pairs * kVectorBytes, n_flags = rounded_up(end, kMaskBlock);
  __builtin_memset(others + end, 0, static_cast<std::size_t>(n_flags - end));
  return list_flags(others, n_flags / kMaskBlock, places);
}

}  // namespace
}  // namespace NEUROKERN_ISA
}  // namespace neurokern
