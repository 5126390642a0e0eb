// Philox for many counters that differ in their first word, in vector registers; the same words as philox4x32
// (common/philox.h).
//
// Every 64-bit lane carries one 32-bit counter word. The multiplication reads the lower half alone, so the
// upper half may hold anything until the end, and no round needs a shuffle. Several chains of rounds run side
// by side, since one alone would wait for its multiplications.
//
// Rows of one table differ in their second counter word alone. It reaches every lane as the same two numbers
// until the third round: PhiloxTable keeps what does not depend on it, and a row starts in that round.
#pragma once

#include <cstdint>

#include "common/isa.h"
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#if !defined(NEUROKERN_ISA)
#error \
    "common/philox_block.h belongs in kernel files: define NEUROKERN_ISA, the namespace of the instruction set"
#endif

#define NK_INLINE static inline __attribute__((always_inline))

namespace neurokern {
namespace NEUROKERN_ISA {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64, kPhiloxPairs = 3;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32, kPhiloxPairs = 2;
#else
constexpr int kVectorBytes = 16, kPhiloxPairs = 2;
#endif

constexpr int kPhiloxQuads = 256;              // counters of a table, at most
constexpr int kChainQuads = kVectorBytes / 8;  // counters that a chain of rounds draws
constexpr int kPairQuads = 2 * kChainQuads;    // whose words fill a vector of bytes, if one decides a byte

typedef std::uint64_t PhiloxLanes __attribute__((vector_size(kVectorBytes)));
typedef std::uint32_t PhiloxWords __attribute__((vector_size(kVectorBytes)));

constexpr std::uint32_t kPhiloxMultiplier0 = 0xD2511F53u, kPhiloxMultiplier1 = 0xCD9E8D57u;
constexpr std::uint32_t kPhiloxWeyl0 = 0x9E3779B9u, kPhiloxWeyl1 = 0xBB67AE85u;

// The 64-bit products of the lower halves.
NK_INLINE PhiloxLanes multiply_lower(PhiloxLanes a, std::uint32_t factor) {
  const PhiloxLanes b = PhiloxLanes{} + factor;
#if defined(__AVX512F__)  // the zero-masked form: GCC 12 warns about the plain one's undefined operand
  return (PhiloxLanes)_mm512_maskz_mul_epu32(0xFF, (__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
  return (PhiloxLanes)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#elif defined(__SSE2__)
  return (PhiloxLanes)_mm_mul_epu32((__m128i)a, (__m128i)b);
#else
  return (a & 0xFFFFFFFFu) * b;
#endif
}

// The calls philox4x32(key, c0[i], bin, c2, c3) of any bin.
struct PhiloxTable {
  alignas(64) PhiloxLanes lanes[2 * kPhiloxQuads / kPairQuads][4];
  std::uint32_t k0, k1, c0;  // the key, and the first counter word after a round but for the bin
  int n_pairs;
};

NK_INLINE void prepare_chain(PhiloxTable& table, int chain, PhiloxLanes c0, std::uint32_t c1,
                             std::uint32_t c3) {
  const std::uint32_t k0 = table.k0 + kPhiloxWeyl0, k1 = table.k1 + kPhiloxWeyl1;
  const PhiloxLanes first = multiply_lower(c0, kPhiloxMultiplier0);
  const PhiloxLanes second =
      multiply_lower((first >> 32) ^ (PhiloxLanes{} + (c3 ^ table.k1)), kPhiloxMultiplier1);
  const PhiloxLanes third = multiply_lower((second >> 32) ^ (PhiloxLanes{} + (c1 ^ k0)), kPhiloxMultiplier0);
  table.lanes[chain][0] = first ^ (PhiloxLanes{} + k1);
  table.lanes[chain][1] = second ^ (PhiloxLanes{} + (k0 + kPhiloxWeyl0));
  table.lanes[chain][2] = (third >> 32) ^ (PhiloxLanes{} + (k1 + kPhiloxWeyl1));
  table.lanes[chain][3] = third;
}

// Spreads counters over the lanes so that pack_words finds the words of neighbours in order.
NK_INLINE PhiloxLanes spread_counters(const std::uint32_t* c0) {
  PhiloxLanes lanes;
  for (int i = 0; i < kChainQuads; ++i) lanes[2 * i % kChainQuads + 2 * i / kChainQuads] = c0[i];
  return lanes;
}

// `c0` must be readable up to a multiple of kPairQuads; n is at most kPhiloxQuads.
NK_INLINE void prepare_table(PhiloxTable& table, std::uint64_t key, const std::uint32_t* c0, int n,
                             std::uint32_t c2, std::uint32_t c3) {
  const std::uint64_t product = std::uint64_t{kPhiloxMultiplier1} * c2;
  table.k0 = static_cast<std::uint32_t>(key);
  table.k1 = static_cast<std::uint32_t>(key >> 32);
  table.c0 = static_cast<std::uint32_t>(product >> 32) ^ table.k0;
  table.n_pairs = (n + kPairQuads - 1) / kPairQuads;
  for (int chain = 0; chain < 2 * table.n_pairs; ++chain)
    prepare_chain(table, chain, spread_counters(c0 + chain * kChainQuads),
                  static_cast<std::uint32_t>(product), c3);
}

// Of every four words the same: `first` and `first + 2` of a, then of b. As a shuffle of floats, since GCC 12
// makes three instructions of it for integers.
template <int first>
NK_INLINE PhiloxWords every_other(PhiloxWords a, PhiloxWords b) {
  constexpr int kChoice = first == 0 ? 0x88 : 0xDD;
#if defined(__AVX512F__)
  return (PhiloxWords)_mm512_maskz_shuffle_ps(0xFFFF, (__m512)a, (__m512)b, kChoice);
#elif defined(__AVX2__)
  return (PhiloxWords)_mm256_shuffle_ps((__m256)a, (__m256)b, kChoice);
#elif defined(__SSE2__)
  return (PhiloxWords)_mm_shuffle_ps((__m128)a, (__m128)b, kChoice);
#else
  return PhiloxWords{a[first], a[first + 2], b[first], b[first + 2]};
#endif
}

// The words of a chain in order, four of each counter: w0 w1 w2 w3 w0 w1 ...
NK_INLINE void pack_words(const PhiloxLanes (&c)[4], PhiloxWords* words) {
  const PhiloxWords a = every_other<0>((PhiloxWords)c[0], (PhiloxWords)c[1]);
  const PhiloxWords b = every_other<0>((PhiloxWords)c[2], (PhiloxWords)c[3]);
  words[0] = every_other<0>(a, b);
  words[1] = every_other<1>(a, b);
}

// Hands the words of kPairs pairs of chains from `first` on to `use(pair, words)`.
template <int kPairs, class Use>
NK_INLINE void draw_pairs(const PhiloxTable& table, std::uint32_t bin, int first, const Use& use) {
  const std::uint64_t product = std::uint64_t{kPhiloxMultiplier0} * (table.c0 ^ bin);
  const PhiloxLanes upper = PhiloxLanes{} + (product >> 32), lower = PhiloxLanes{} + (product & 0xFFFFFFFFu);
  PhiloxLanes c[2 * kPairs][4];
#pragma GCC unroll 8
  for (int j = 0; j < 2 * kPairs; ++j) {
    const auto& lanes = table.lanes[2 * first + j];
    c[j][1] = multiply_lower(lanes[0] ^ upper, kPhiloxMultiplier1);
    c[j][0] = (c[j][1] >> 32) ^ lanes[1];
    c[j][2] = lanes[2] ^ lower;
    c[j][3] = lanes[3];
  }
  std::uint32_t k0 = table.k0 + 3 * kPhiloxWeyl0, k1 = table.k1 + 3 * kPhiloxWeyl1;
#pragma GCC unroll 7
  for (int round = 3; round < 10; ++round, k0 += kPhiloxWeyl0, k1 += kPhiloxWeyl1) {
    PhiloxLanes p[2 * kPairs][2];
#pragma GCC unroll 8
    for (int j = 0; j < 2 * kPairs; ++j) {
      p[j][0] = multiply_lower(c[j][0], kPhiloxMultiplier0);
      p[j][1] = multiply_lower(c[j][2], kPhiloxMultiplier1);
    }
#pragma GCC unroll 8
    for (int j = 0; j < 2 * kPairs; ++j) {
      c[j][0] = (p[j][1] >> 32) ^ c[j][1] ^ (PhiloxLanes{} + k0);
      c[j][1] = p[j][1];
      c[j][2] = (p[j][0] >> 32) ^ c[j][3] ^ (PhiloxLanes{} + k1);
      c[j][3] = p[j][0];
    }
  }
#pragma GCC unroll 4
  for (int j = 0; j < kPairs; ++j) {
    PhiloxWords words[4];
    pack_words(c[2 * j], words);
    pack_words(c[2 * j + 1], words + 2);
    use(first + j, words);
  }
}

// Hands the words of `bin` to `use(pair, words)`: in order, the words of the counters from pair * kPairQuads.
template <class Use>
NK_INLINE void draw_words(const PhiloxTable& table, std::uint32_t bin, const Use& use) {
  int pair = 0;
  for (; pair + kPhiloxPairs <= table.n_pairs; pair += kPhiloxPairs)
    draw_pairs<kPhiloxPairs>(table, bin, pair, use);
  if (kPhiloxPairs > 2 && pair + 2 <= table.n_pairs) {
    draw_pairs<2>(table, bin, pair, use);
    pair += 2;
  }
  if (pair < table.n_pairs) draw_pairs<1>(table, bin, pair, use);
}

}  // namespace NEUROKERN_ISA
}  // namespace neurokern
