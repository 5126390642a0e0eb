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
constexpr int kCells = 2 * kLanes;   // 32-bit counters of one register
constexpr int kShorts = 4 * kLanes;  // 16-bit ones

typedef double F64 __attribute__((vector_size(8 * kLanes)));
typedef int64_t I64 __attribute__((vector_size(8 * kLanes)));
typedef uint64_t U64 __attribute__((vector_size(8 * kLanes)));
typedef int32_t I32 __attribute__((vector_size(4 * kLanes)));
typedef uint32_t U32 __attribute__((vector_size(4 * kLanes)));
typedef uint32_t Cells __attribute__((vector_size(8 * kLanes)));  // counters
typedef uint16_t Shorts __attribute__((vector_size(8 * kLanes)));
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

// A line of 64 bytes in registers.
constexpr int kRegisters = 8 / kLanes;

// Stores a line to an aligned address; `stream` goes past the caches. Whole lines: parts of one written one
// after the other cost twice the time.
inline __attribute__((always_inline)) void store_line(void* to, const U64 line[kRegisters], bool stream) {
#if defined(__SSE2__)
  if (stream) {
    for (int i = 0; i < kRegisters; ++i) {
#if defined(__AVX512F__)
      _mm512_stream_si512(static_cast<__m512i*>(to) + i, reinterpret_cast<__m512i>(line[i]));
#elif defined(__AVX__)
      _mm256_stream_si256(static_cast<__m256i*>(to) + i, reinterpret_cast<__m256i>(line[i]));
#else
      _mm_stream_si128(static_cast<__m128i*>(to) + i, reinterpret_cast<__m128i>(line[i]));
#endif
    }
    return;
  }
#endif
  static_cast<void>(stream);
  memcpy(to, line, 64);
}

// Of two vectors in variables: with a constant among them the compiler finds no instruction for it.
template <typename Vector>
inline __attribute__((always_inline)) Vector smaller(Vector a, Vector b) {
  return a < b ? a : b;
}
template <typename Vector>
inline __attribute__((always_inline)) Vector larger(Vector a, Vector b) {
  return a < b ? b : a;
}

// Counters as a vector of wider or the same numbers. By hand, since the compiler widens a register in halves.
template <typename Vector>
inline __attribute__((always_inline)) Vector load_counters(const uint32_t* cells) {
  return load<Vector>(cells);
}
template <typename Vector>
inline __attribute__((always_inline)) Vector load_counters(const uint16_t* cells) {
  if constexpr (sizeof(Vector{}[0]) == sizeof *cells) {
    return load<Vector>(cells);
  } else {
#if defined(__AVX512F__)
    return reinterpret_cast<Vector>(_mm512_maskz_cvtepu16_epi32(0xFFFF, load<__m256i>(cells)));
#elif defined(__AVX2__)
    return reinterpret_cast<Vector>(_mm256_cvtepu16_epi32(load<__m128i>(cells)));
#elif defined(__SSE4_1__)
    return reinterpret_cast<Vector>(_mm_cvtepu16_epi32(_mm_cvtsi64_si128(load<int64_t>(cells))));
#else
    typedef uint16_t HalfShorts __attribute__((vector_size(4 * kLanes)));
    return __builtin_convertvector(load<HalfShorts>(cells), Vector);
#endif
  }
}

// Numbers up to 255 as bytes, in order.
inline __attribute__((always_inline)) U64 pack_bytes(Shorts low, Shorts high) {
#if defined(__AVX512F__)
  const U64 packed = reinterpret_cast<U64>(
      _mm512_packus_epi16(reinterpret_cast<__m512i>(low), reinterpret_cast<__m512i>(high)));
  return __builtin_shufflevector(packed, packed, 0, 2, 4, 6, 1, 3, 5, 7);
#elif defined(__AVX2__)
  const __m256i packed = _mm256_packus_epi16(reinterpret_cast<__m256i>(low), reinterpret_cast<__m256i>(high));
  return reinterpret_cast<U64>(_mm256_permute4x64_epi64(packed, 0xD8));
#elif defined(__SSE2__)
  return reinterpret_cast<U64>(
      _mm_packus_epi16(reinterpret_cast<__m128i>(low), reinterpret_cast<__m128i>(high)));
#else
  typedef uint8_t Bytes __attribute__((vector_size(4 * kLanes)));
  const Bytes halves[2] = {__builtin_convertvector(low, Bytes), __builtin_convertvector(high, Bytes)};
  return load<U64>(halves);
#endif
}

// True if the highest bit of some lane is set.
inline __attribute__((always_inline)) bool any_negative(I64 x) {
#if defined(__AVX512F__)
  return _mm512_movepi64_mask(reinterpret_cast<__m512i>(x)) != 0;
#elif defined(__AVX__)
  return _mm256_movemask_pd(reinterpret_cast<__m256d>(x)) != 0;
#elif defined(__SSE2__)
  return _mm_movemask_pd(reinterpret_cast<__m128d>(x)) != 0;
#else
  int64_t merged = 0;
  for (int i = 0; i < kLanes; ++i) merged |= x[i];
  return merged < 0;
#endif
}
inline __attribute__((always_inline)) bool any_negative(SignedCells x) {
#if defined(__AVX512F__)
  return _mm512_movepi32_mask(reinterpret_cast<__m512i>(x)) != 0;
#elif defined(__AVX__)
  return _mm256_movemask_ps(reinterpret_cast<__m256>(x)) != 0;
#elif defined(__SSE2__)
  return _mm_movemask_ps(reinterpret_cast<__m128>(x)) != 0;
#else
  int32_t merged = 0;
  for (int i = 0; i < kCells; ++i) merged |= x[i];
  return merged < 0;
#endif
}

#if defined(__AVX512F__)
// Lanes of `mask` with low <= t < high. The compiler would make vectors of masks, and masks of them again.
inline __attribute__((always_inline)) __mmask8 lanes_within(__mmask8 mask, const double* times, double low,
                                                            double high) {
  const __m512d t = load<__m512d>(times);
  mask = _mm512_mask_cmp_pd_mask(mask, t, _mm512_set1_pd(low), _CMP_GE_OQ);
  return _mm512_mask_cmp_pd_mask(mask, t, _mm512_set1_pd(high), _CMP_LT_OQ);
}
inline __attribute__((always_inline)) __mmask8 lanes_within(__mmask8 mask, const int64_t* times, int64_t low,
                                                            int64_t high) {
  const __m512i t = load<__m512i>(times);
  mask = _mm512_mask_cmpge_epi64_mask(mask, t, _mm512_set1_epi64(low));
  return _mm512_mask_cmplt_epi64_mask(mask, t, _mm512_set1_epi64(high));
}
#endif

// True if low <= t < high for all kGroup numbers; false for a NaN.
template <typename T>
inline __attribute__((always_inline)) bool all_within(const T* times, T low, T high) {
#if defined(__AVX512F__)
  __mmask8 mask = 0xFF;
  for (int i = 0; i < kGroup; i += kLanes) mask = lanes_within(mask, times + i, low, high);
  return mask == 0xFF;
#else
  typedef T Times __attribute__((vector_size(8 * kLanes)));
  I64 inside = ~I64{};
  for (int i = 0; i < kGroup; i += kLanes) {
    const Times t = load<Times>(times + i);
    inside &= (t >= low) & (t < high);
  }
  return !any_negative(~inside);
#endif
}

// True if 0 <= id < n for all kGroup numbers; n <= 2^31.
inline __attribute__((always_inline)) bool all_below(const int32_t* ids, int64_t n) {
  SignedCells signs{};  // of id and n - 1 - id
  for (int i = 0; i < kGroup; i += kCells) {
    const Cells id = load<Cells>(ids + i);
    signs |= reinterpret_cast<SignedCells>(id | (static_cast<uint32_t>(n - 1) - id));
  }
  return !any_negative(signs);
}
inline __attribute__((always_inline)) bool all_below(const int64_t* ids, int64_t n) {
  I64 signs{};
  for (int i = 0; i < kGroup; i += kLanes) {
    const U64 id = load<U64>(ids + i);
    signs |= reinterpret_cast<I64>(id | (static_cast<uint64_t>(n - 1) - id));
  }
  return !any_negative(signs);
}

}  // namespace
}  // namespace NEUROKERN_ISA
}  // namespace neurokern
