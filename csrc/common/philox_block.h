// Sixteen Philox calls side by side in vector registers; the same words as philox4x32 (common/philox.h).
//
// Every 64-bit lane carries one 32-bit counter word. The multiplication reads the lower half alone, so the
// upper half may hold anything until the end, and no round needs a shuffle.
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

namespace neurokern {
namespace NEUROKERN_ISA {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif
constexpr int kPhiloxLanes = 16;

typedef std::uint64_t PhiloxLanes __attribute__((vector_size(kVectorBytes)));

// The 64-bit products of the lower halves.
static inline __attribute__((always_inline)) PhiloxLanes multiply_lower(PhiloxLanes a, PhiloxLanes b) {
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

static inline __attribute__((always_inline)) void philox_rounds(std::uint64_t key, PhiloxLanes (&c)[4]) {
  const PhiloxLanes multiplier0 = PhiloxLanes{} + 0xD2511F53u, multiplier1 = PhiloxLanes{} + 0xCD9E8D57u;
  std::uint32_t k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
#pragma GCC unroll 10
  for (int round = 0; round < 10; ++round) {
    const PhiloxLanes p0 = multiply_lower(c[0], multiplier0), p1 = multiply_lower(c[2], multiplier1);
    c[0] = (p1 >> 32) ^ c[1] ^ (PhiloxLanes{} + k0);
    c[1] = p1;
    c[2] = (p0 >> 32) ^ c[3] ^ (PhiloxLanes{} + k1);
    c[3] = p0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
}

using PhiloxWords = std::uint32_t[4][kPhiloxLanes];

// Stores the words of the counters `even` and `odd` at every second place from `at` on.
static inline __attribute__((always_inline)) void philox_pair(std::uint64_t key, PhiloxLanes even0,
                                                              PhiloxLanes odd0, std::uint32_t c1,
                                                              std::uint32_t c2, std::uint32_t c3,
                                                              PhiloxWords& words, int at) {
  PhiloxLanes even[4] = {even0, PhiloxLanes{} + c1, PhiloxLanes{} + c2, PhiloxLanes{} + c3};
  PhiloxLanes odd[4] = {odd0, even[1], even[2], even[3]};
  philox_rounds(key, even);
  philox_rounds(key, odd);
  for (int w = 0; w < 4; ++w) {  // little-endian: the even counter's word comes first
    const PhiloxLanes pair = (even[w] & 0xFFFFFFFFu) | (odd[w] << 32);
    __builtin_memcpy(words[w] + at, &pair, sizeof pair);
  }
}

// words[w][i] = word w of philox4x32(key, first + i, c1, c2, c3) for i in [0, 16).
static inline __attribute__((always_inline)) void philox_block(std::uint64_t key, std::uint32_t first,
                                                               std::uint32_t c1, std::uint32_t c2,
                                                               std::uint32_t c3, PhiloxWords& words) {
  PhiloxLanes even = PhiloxLanes{} + first;
  for (int j = 0; j < kVectorBytes / 8; ++j) even[j] += 2 * static_cast<std::uint32_t>(j);
  for (int i = 0; i < kPhiloxLanes; i += kVectorBytes / 4, even += kVectorBytes / 4)
    philox_pair(key, even, even + 1, c1, c2, c3, words, i);
}

// words[w][i] = word w of philox4x32(key, c0[i], c1, c2, c3) for i in [0, 16).
static inline __attribute__((always_inline)) void philox_block(std::uint64_t key, const std::uint32_t* c0,
                                                               std::uint32_t c1, std::uint32_t c2,
                                                               std::uint32_t c3, PhiloxWords& words) {
  for (int i = 0; i < kPhiloxLanes; i += kVectorBytes / 4) {
    PhiloxLanes pair;
    __builtin_memcpy(&pair, c0 + i, sizeof pair);
    philox_pair(key, pair, pair >> 32, c1, c2, c3, words, i);
  }
}

}  // namespace NEUROKERN_ISA
}  // namespace neurokern
