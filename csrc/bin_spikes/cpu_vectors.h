// Vectors of 64 bytes, whatever the machine has: the compiler cuts them up.
// Part of bin_spikes_cpu.cpp, compiled once per instruction set: no STL, nothing with external linkage.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace neurokern {
namespace NEUROKERN_ISA {
namespace {

using std::int32_t;
using std::int64_t;
using std::uint16_t;
using std::uint32_t;
using std::uint64_t;
using std::uint8_t;

// Doubles of one register. Of wider vectors the compiler makes scalars: on AVX2 that was seven times slower.
#if defined(__AVX512F__)
constexpr int kLanes = 8;
#elif defined(__AVX__)
constexpr int kLanes = 4;
#else
constexpr int kLanes = 2;
#endif
constexpr int kGroup = 16;  // spikes handled together
constexpr int kParts = kGroup / kLanes;
constexpr int kCells = 2 * kLanes;  // counters of one register

typedef double F64 __attribute__((vector_size(8 * kLanes)));
typedef int64_t I64 __attribute__((vector_size(8 * kLanes)));
typedef uint64_t U64 __attribute__((vector_size(8 * kLanes)));
typedef int32_t I32 __attribute__((vector_size(4 * kLanes)));
typedef uint32_t U32 __attribute__((vector_size(4 * kLanes)));
typedef uint64_t Line __attribute__((vector_size(64)));
typedef uint32_t Cells __attribute__((vector_size(8 * kLanes)));  // counters
typedef int32_t SignedCells __attribute__((vector_size(8 * kLanes)));
typedef float Floats __attribute__((vector_size(8 * kLanes)));

template <typename Vector, typename T>
inline __attribute__((always_inline)) Vector load(const T* p) {
  Vector v;
  memcpy(&v, p, sizeof v);
  return v;
}

inline __attribute__((always_inline)) F64 magnitude(F64 x) {
  return reinterpret_cast<F64>(reinterpret_cast<I64>(x) & INT64_MAX);
}

// True if some lane is above the bound, or NaN.
inline __attribute__((always_inline)) bool any_above(F64 x, double bound) {
#if defined(__AVX512F__)
  return _mm512_cmp_pd_mask(reinterpret_cast<__m512d>(x), _mm512_set1_pd(bound), _CMP_NLE_UQ) != 0;
#else
  const I64 above = ~(x <= bound);
#if defined(__AVX__)
  const __m256i mask = reinterpret_cast<__m256i>(above);
  return _mm256_testz_si256(mask, mask) == 0;
#elif defined(__SSE4_1__)
  const __m128i mask = reinterpret_cast<__m128i>(above);
  return _mm_testz_si128(mask, mask) == 0;
#else
  int64_t merged = 0;
  for (int i = 0; i < kLanes; ++i) merged |= above[i];
  return merged != 0;
#endif
#endif
}

// Stores a line of 64 bytes to an aligned address; `stream` goes past the caches. Whole lines: parts of one
// written one after the other cost twice the time.
inline __attribute__((always_inline)) void store_line(void* to, Line line, bool stream) {
#if defined(__AVX512F__)
  if (stream) return _mm512_stream_si512(static_cast<__m512i*>(to), reinterpret_cast<__m512i>(line));
#elif defined(__AVX__)
  if (stream) {
    for (int i = 0; i < 2; ++i)
      _mm256_stream_si256(static_cast<__m256i*>(to) + i, reinterpret_cast<const __m256i*>(&line)[i]);
    return;
  }
#elif defined(__SSE2__)
  if (stream) {
    for (int i = 0; i < 4; ++i)
      _mm_stream_si128(static_cast<__m128i*>(to) + i, reinterpret_cast<const __m128i*>(&line)[i]);
    return;
  }
#endif
  static_cast<void>(stream);
  memcpy(to, &line, sizeof line);
}

typedef uint64_t U64x2 __attribute__((vector_size(16)));
typedef uint64_t U64x4 __attribute__((vector_size(32)));
inline __attribute__((always_inline)) U64x4 join(U64x2 a, U64x2 b) {
  return __builtin_shufflevector(a, b, 0, 1, 2, 3);
}
inline __attribute__((always_inline)) Line join(U64x4 a, U64x4 b) {
  return __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7);
}

}  // namespace
}  // namespace NEUROKERN_ISA
}  // namespace neurokern
