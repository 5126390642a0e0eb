// The draws of a row of up to 1024 units: which entries are hit, and which targets BERT-style masking shows.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/philox_block.h"
#include "gather_regions/gather_regions_body.h"

namespace neurokern {
namespace NEUROKERN_ISA {
namespace {

constexpr int kChunk = 4 * kPhiloxQuads;  // units or bins that a table of quads decides
constexpr int kFlagBlock = 64;            // flags that sign_bits packs

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

// The four bytes of each quad, in order: 0xFF where its word is at most `last`, else 0.
NK_INLINE PhiloxWords flag_at_most(const PhiloxWords (&words)[4], std::uint32_t last) {
  PhiloxWords flags = {};
  for (int w = 0; w < 4; ++w) flags |= (PhiloxWords)(words[w] <= PhiloxWords{} + last) & 0xFFu << 8 * w;
  return flags;
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
    PhiloxWords hits;
    __builtin_memcpy(&hits, codes + pair * kVectorBytes, sizeof hits);
    hits &= flag_at_most(words, last);
    __builtin_memcpy(flags + pair * kVectorBytes, &hits, sizeof hits);
  });
}

// Bit i of 64: the sign bit of bytes[i].
inline std::uint64_t sign_bits(const std::uint8_t* bytes) {
#if defined(__AVX512BW__)
  return _mm512_movepi8_mask(_mm512_loadu_si512(bytes));
#elif defined(__SSE2__)
  std::uint64_t bits = 0;
  for (int k = 0; k < 4; ++k) {
    const __m128i part = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes) + k);
    bits |= static_cast<std::uint64_t>(static_cast<std::uint32_t>(_mm_movemask_epi8(part))) << (16 * k);
  }
  return bits;
#else
  std::uint64_t bits = 0;
  for (int i = 0; i < 64; ++i) bits |= static_cast<std::uint64_t>(bytes[i] >> 7) << i;
  return bits;
#endif
}

// Writes the positions of flags with a sign bit, and returns their number. Eight at a time, whether so many
// are left or not: a loop that ends with the last bit ends where no predictor expects it. `places` has room
// for kFlagBlock more than are found.
inline int list_flags(const std::uint8_t* flags, int n_blocks, std::uint16_t* places) {
  int n = 0;
  for (int block = 0; block < n_blocks; ++block) {
    std::uint64_t bits = sign_bits(flags + block * kFlagBlock);
    const int count = __builtin_popcountll(bits);
    for (int done = 0; done < count; done += 8) {
      for (int i = 0; i < 8; ++i) {
        places[n + done + i] =
            static_cast<std::uint16_t>(block * kFlagBlock + __builtin_ctzll(bits | std::uint64_t{1} << 63));
        bits &= bits - 1;
      }
    }
    n += count;
  }
  return n;
}

// What BERT-style masking draws for up to 1024 units of a sample: words for the quads with a target, alone.
struct Replacements {
  PhiloxTable table;
  std::uint16_t units[kPhiloxQuads];        // first unit of each such quad, counted from the chunk's first
  alignas(64) std::uint8_t targets[kChunk];  // of its entries: 0xFF for a target
};

// Lists every quad if entries draw for themselves, since then each row has targets of its own.
inline void prepare_replacements(const MaskRegions& p, std::int64_t b, std::int64_t first,
                                 const std::uint8_t* codes, std::int64_t count, bool draws_entries,
                                 Replacements& r) {
  std::uint32_t quads[kPhiloxQuads + kPairQuads] = {};
  int n = 0;
  for (int quad = 0; 4 * quad < count; ++quad) {
    std::uint32_t four;
    __builtin_memcpy(&four, codes + 4 * quad, sizeof four);
    const std::uint32_t targets = (four & 0x01010101u) * 0xFFu;
    __builtin_memcpy(r.targets + 4 * n, &targets, sizeof targets);
    quads[n] = static_cast<std::uint32_t>(first / 4 + quad);
    r.units[n] = static_cast<std::uint16_t>(4 * quad);
    n += draws_entries || targets != 0;
  }
  __builtin_memset(r.targets + 4 * n, 0, static_cast<std::size_t>(rounded_up(4 * n, kFlagBlock) - 4 * n));
  prepare_quads(p, b, kStageReplace, quads, n, r.table);
}

// Targets of a row that are shown after all, and the bins whose values they show.
struct Shown {
  std::uint16_t places[kChunk + kFlagBlock];
  std::uint32_t words[kPhiloxQuads / kPairQuads][4][kPairQuads];

  inline int draw(const Replacements& r, const std::uint8_t* targets, std::uint32_t bin) {
    alignas(64) std::uint8_t flags[kChunk];
    draw_words(r.table, bin, [&](int pair, const PhiloxWords(&drawn)[4]) __attribute__((always_inline)) {
      PhiloxWords flagged;
      __builtin_memcpy(&flagged, targets + pair * kVectorBytes, sizeof flagged);
      flagged &= ~flag_at_most(drawn, kReplaceZeroBelow - 1);
      __builtin_memcpy(flags + pair * kVectorBytes, &flagged, sizeof flagged);
      __builtin_memcpy(words[pair], drawn, sizeof drawn);
    });
    const int end = r.table.n_pairs * kVectorBytes, n_flags = rounded_up(end, kFlagBlock);
    __builtin_memset(flags + end, 0, static_cast<std::size_t>(n_flags - end));
    return list_flags(flags, n_flags / kFlagBlock, places);
  }

  std::uint32_t word(int place) const {
    return words[place / 4 / kPairQuads][place % 4][place / 4 % kPairQuads];
  }
};

}  // namespace
}  // namespace NEUROKERN_ISA
}  // namespace neurokern
