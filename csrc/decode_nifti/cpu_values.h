// Values of the file become values of the output: type and scale, and lines written past the caches.
// Part of decode_nifti_cpu.cpp, compiled once per instruction set: no STL, nothing with external linkage.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "decode_nifti/decode_nifti_body.h"

namespace neurokern {
namespace NEUROKERN_ISA {
namespace {

constexpr std::int64_t kLineBytes = 64;   // streamed at once
constexpr std::int64_t kBlockLines = 16;  // made at once

// In halves with AVX-512, too: the compiler makes the values in registers of 32 bytes.
inline __attribute__((always_inline)) void stream_line(void* to, const void* from) {
#if defined(__AVX__)
  for (int i = 0; i < 2; ++i)
    _mm256_stream_si256(static_cast<__m256i*>(to) + i,
                        _mm256_loadu_si256(static_cast<const __m256i*>(from) + i));
#elif defined(__SSE2__)
  for (int i = 0; i < 4; ++i)
    _mm_stream_si128(static_cast<__m128i*>(to) + i, _mm_loadu_si128(static_cast<const __m128i*>(from) + i));
#else
  memcpy(to, from, kLineBytes);
#endif
}

inline void finish_rows() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

inline float fused(float a, float b, float c) {
#if defined(__FMA__) || defined(__aarch64__)
  return __builtin_fmaf(a, b, c);
#else
  return fused_by_double(a, b, c);
#endif
}

enum class Scaling { none, in_float, in_double };

struct Scale {
  float slope, inter;
  double wide_slope, wide_inter;
  Scaling scaling;

  Scale(VoxelType type, double by, double plus)
      : slope(static_cast<float>(by)),
        inter(static_cast<float>(plus)),
        wide_slope(by),
        wide_inter(plus),
        scaling(by == 1 && plus == 0              ? Scaling::none
                : scales_in_float(type, by, plus) ? Scaling::in_float
                                                  : Scaling::in_double) {}
  explicit Scale(const DecodeVolumes& p) : Scale(p.type, p.slope, p.inter) {}
};

// A value as float32. Type is the file's; it is read from bits of its size.
template <typename Type, Scaling kScaling>
struct AsFloat {
  const Scale& scale;

  template <typename Bits>
  inline __attribute__((always_inline)) float operator()(Bits bits) const {
    Type raw;
    memcpy(&raw, &bits, sizeof raw);
    if constexpr (kScaling == Scaling::none) {
      return static_cast<float>(raw);
    } else if constexpr (kScaling == Scaling::in_float) {
      return fused(static_cast<float>(raw), scale.slope, scale.inter);
    } else {
      return scaled_in_double(static_cast<double>(raw), scale.wide_slope, scale.wide_inter);
    }
  }
};

template <typename Type, typename Work>
inline std::int64_t with_scaling(const Scale& scale, Work work) {
  switch (scale.scaling) {
    case Scaling::none:
      return work(AsFloat<Type, Scaling::none>{scale});
    case Scaling::in_float:
      return work(AsFloat<Type, Scaling::in_float>{scale});
    default:
      return work(AsFloat<Type, Scaling::in_double>{scale});
  }
}

// Calls work with the function that makes a float of a value; chosen once, not at each value.
template <typename Bits, typename Work>
inline std::int64_t with_floats(VoxelType type, const Scale& scale, Work work) {
  if constexpr (sizeof(Bits) == 1) {
    return type == VoxelType::u8 ? with_scaling<std::uint8_t>(scale, work)
                                 : with_scaling<std::int8_t>(scale, work);
  } else if constexpr (sizeof(Bits) == 2) {
    return type == VoxelType::u16 ? with_scaling<std::uint16_t>(scale, work)
                                  : with_scaling<std::int16_t>(scale, work);
  } else if constexpr (sizeof(Bits) == 4) {
    return type == VoxelType::u32   ? with_scaling<std::uint32_t>(scale, work)
           : type == VoxelType::i32 ? with_scaling<std::int32_t>(scale, work)
                                    : with_scaling<float>(scale, work);
  } else {
    return type == VoxelType::u64   ? with_scaling<std::uint64_t>(scale, work)
           : type == VoxelType::i64 ? with_scaling<std::int64_t>(scale, work)
                                    : with_scaling<double>(scale, work);
  }
}

// Where values of a row go.
struct Target {
  void* to;
  bool streamed;  // past the caches, in whole lines
  bool last;      // no more values of this row follow: write part of a line, too
};

// Writes value(bits[0]), value(bits[1]), ...; returns how many: all but a last part of a line, if streamed.
template <typename Out, typename Bits, typename Value>
std::int64_t emit(const Target& target, const Bits* bits, std::int64_t n, Value value) {
  Out* to = static_cast<Out*>(target.to);
  constexpr std::int64_t kLine = kLineBytes / static_cast<std::int64_t>(sizeof(Out));
  std::int64_t i = 0;
  if (target.streamed) {
    // Values before the first whole line: of the row's start alone, since later pieces begin with a line.
    const auto head = static_cast<std::int64_t>(-reinterpret_cast<std::uintptr_t>(to) % kLineBytes) /
                      static_cast<std::int64_t>(sizeof(Out));
    for (; i < head && i < n; ++i) to[i] = value(bits[i]);
    // By way of a block in L1: within one line's 16 values the compiler finds no vectors.
    alignas(kLineBytes) Out block[kBlockLines * kLine];
    for (std::int64_t lines; (lines = (n - i) / kLine) > 0; i += lines * kLine) {
      lines = lines < kBlockLines ? lines : kBlockLines;
      for (std::int64_t j = 0; j < lines * kLine; ++j) block[j] = value(bits[i + j]);
      for (std::int64_t j = 0; j < lines * kLine; j += kLine) stream_line(to + i + j, block + j);
    }
    if (!target.last) return i;
  }
  for (; i < n; ++i) to[i] = value(bits[i]);
  return n;
}

}  // namespace
}  // namespace NEUROKERN_ISA
}  // namespace neurokern
