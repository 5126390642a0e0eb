// From woven elements to rows of the output: output order, byte order, type and scale.
// Part of decode_nifti_cpu.cpp, compiled once per instruction set: no STL, nothing with external linkage.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "decode_nifti/cpu_shuffle.h"
#include "decode_nifti/decode_nifti_body.h"

namespace neurokern {
namespace NEUROKERN_ISA {
namespace {

constexpr std::int64_t kChunk = 1024;    // voxels taken apart at once; all volumes of them stay in L1
constexpr std::int64_t kLineBytes = 64;  // streamed at once
constexpr std::int64_t kStreamBytes = std::int64_t{1} << 20;  // outputs above it bypass the caches

inline void stream_line(void* to, const void* from) {
#if defined(__AVX512F__)
  _mm512_stream_si512(static_cast<__m512i*>(to), _mm512_loadu_si512(from));
#elif defined(__AVX__)
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

struct Scale {
  float slope, inter;
  double wide_slope, wide_inter;
  bool none, in_float;

  Scale(VoxelType type, double by, double plus)
      : slope(static_cast<float>(by)),
        inter(static_cast<float>(plus)),
        wide_slope(by),
        wide_inter(plus),
        none(by == 1 && plus == 0),
        in_float(scales_in_float(type, by, plus)) {}
  explicit Scale(const DecodeVolumes& p) : Scale(p.type, p.slope, p.inter) {}
};

inline float fused(float a, float b, float c) {
#if defined(__FMA__) || defined(__aarch64__)
  return __builtin_fmaf(a, b, c);
#else
  return fused_by_double(a, b, c);
#endif
}

// Type is the file's; it is read from bits of its size.
template <typename Type, typename Bits>
inline void to_floats(const Bits* bits, std::int64_t n, const Scale& scale, float* out) {
  const auto value = [&](std::int64_t i) {
    Type raw;
    memcpy(&raw, bits + i, sizeof raw);
    return raw;
  };
  if (scale.none) {
    for (std::int64_t i = 0; i < n; ++i) out[i] = static_cast<float>(value(i));
  } else if (scale.in_float) {
    for (std::int64_t i = 0; i < n; ++i)
      out[i] = fused(static_cast<float>(value(i)), scale.slope, scale.inter);
  } else {
    for (std::int64_t i = 0; i < n; ++i)
      out[i] = scaled_in_double(static_cast<double>(value(i)), scale.wide_slope, scale.wide_inter);
  }
}

template <typename Bits>
inline void to_floats(VoxelType type, const Bits* bits, std::int64_t n, const Scale& scale, float* out) {
  if constexpr (sizeof(Bits) == 1) {
    return type == VoxelType::u8 ? to_floats<std::uint8_t>(bits, n, scale, out)
                                 : to_floats<std::int8_t>(bits, n, scale, out);
  } else if constexpr (sizeof(Bits) == 2) {
    return type == VoxelType::u16 ? to_floats<std::uint16_t>(bits, n, scale, out)
                                  : to_floats<std::int16_t>(bits, n, scale, out);
  } else if constexpr (sizeof(Bits) == 4) {
    return type == VoxelType::u32   ? to_floats<std::uint32_t>(bits, n, scale, out)
           : type == VoxelType::i32 ? to_floats<std::int32_t>(bits, n, scale, out)
                                    : to_floats<float>(bits, n, scale, out);
  } else {
    return type == VoxelType::u64   ? to_floats<std::uint64_t>(bits, n, scale, out)
           : type == VoxelType::i64 ? to_floats<std::int64_t>(bits, n, scale, out)
                                    : to_floats<double>(bits, n, scale, out);
  }
}

template <typename Bits, int kVolumes>
struct Rows {
  using L = Layout<Bits, kVolumes>;
  using Element = typename L::Element;
  static constexpr int kElementBytes = 8;
  static constexpr std::int64_t kStagedValues = kChunk + 2 * kLineBytes;  // with a line left over, and a tile

  Bits* staged = nullptr;     // (kVolumes, kStagedValues): taken apart, not yet written
  Element* picked = nullptr;  // (kChunk,): elements in output order
  std::int64_t pending[kVolumes] = {};

  bool allocate(const ParcelRuns*) {
    staged = static_cast<Bits*>(aligned_alloc(64, kVolumes * kStagedValues * sizeof(Bits)));
    picked = static_cast<Element*>(aligned_alloc(64, kChunk * sizeof(Element)));
    return staged != nullptr && picked != nullptr;
  }
  void release() {
    free(staged);
    free(picked);
  }

  // Rows volume ... of the output, from the elements of these volumes.
  void write(const DecodeVolumes& p, const Element* elements, std::int64_t volume) {
    const Scale scale(p);
    for (int k = 0; k < kVolumes; ++k) pending[k] = 0;
    for (std::int64_t i = 0; i < p.n_voxels; i += kChunk) {
      const std::int64_t n = p.n_voxels - i < kChunk ? p.n_voxels - i : kChunk;
      const Element* chunk = pick(p, elements, i, n);
      if (p.swapped) {
        take_apart<true>(chunk, n);
      } else {
        take_apart<false>(chunk, n);
      }
      for (int k = 0; k < kVolumes; ++k) {
        if (volume + k < p.n_volumes) {
          flush(p, scale, volume + k, k, i + n, i + n == p.n_voxels);
        } else {
          pending[k] = 0;  // the last volume again: nobody's
        }
      }
    }
  }

 private:
  const Element* pick(const DecodeVolumes& p, const Element* elements, std::int64_t i, std::int64_t n) {
    if (p.order == nullptr && n == kChunk) return elements + i;
    if (p.order == nullptr) {
      memcpy(picked, elements + i, static_cast<std::size_t>(n) * sizeof(Element));
    } else {
      const std::int32_t* order = p.order + i;
      for (std::int64_t j = 0; j < n; ++j) picked[j] = elements[order[j]];
    }
    return picked;
  }

  // Appends whole tiles; what lies beyond n is rubbish that the next chunk overwrites.
  template <bool kSwapped>
  void take_apart(const Element* chunk, std::int64_t n) {
    for (std::int64_t j = 0; j < n; j += L::kValues) {
      typename L::Vector tile[kVolumes];
      memcpy(tile, chunk + j, sizeof tile);
      if constexpr (kVolumes > 1) shuffle<log2_of(L::kValues)>(tile);
      for (int k = 0; k < kVolumes; ++k) {
        if (kSwapped) tile[k] = swap_bytes<sizeof(Bits)>(tile[k]);
        memcpy(staged + k * kStagedValues + pending[k] + j, &tile[k], kRegisterBytes);
      }
    }
    for (int k = 0; k < kVolumes; ++k) pending[k] += n;
  }

  // Writes what is staged of a row, which ends at voxel `end`; whole lines alone unless it is the last of it.
  void flush(const DecodeVolumes& p, const Scale& scale, std::int64_t row, int k, std::int64_t end,
             bool last) {
    Bits* from = staged + k * kStagedValues;
    const std::int64_t first = end - pending[k];
    std::int64_t written = 0;
    switch (p.decoded) {
      case DecodedType::f32:
        written = emit<float>(p, row, first, from, pending[k], last,
                              [&](const Bits* bits, std::int64_t n, float* out) {
                                to_floats<Bits>(p.type, bits, n, scale, out);
                              });
        break;
      case DecodedType::f16:
      case DecodedType::bf16:
        written = emit<std::uint16_t>(p, row, first, from, pending[k], last,
                                      [&](const Bits* bits, std::int64_t n, std::uint16_t* out) {
                                        float values[kStagedValues];
                                        to_floats<Bits>(p.type, bits, n, scale, values);
                                        if (p.decoded == DecodedType::f16) {
                                          for (std::int64_t i = 0; i < n; ++i) out[i] = half_of(values[i]);
                                        } else {
                                          for (std::int64_t i = 0; i < n; ++i)
                                            out[i] = bfloat16_of(values[i]);
                                        }
                                      });
        break;
      case DecodedType::raw:
        written = emit<Bits>(p, row, first, from, pending[k], last,
                             [](const Bits* bits, std::int64_t n, Bits* out) {
                               memcpy(out, bits, static_cast<std::size_t>(n) * sizeof(Bits));
                             });
        break;
    }
    pending[k] -= written;
    memmove(from, from + written, static_cast<std::size_t>(pending[k]) * sizeof(Bits));
  }

  template <typename Out, typename Convert>
  static std::int64_t emit(const DecodeVolumes& p, std::int64_t row, std::int64_t first, const Bits* bits,
                           std::int64_t n, bool last, Convert convert) {
    alignas(64) Out values[kStagedValues];
    Out* to = static_cast<Out*>(p.out) + row * p.out_stride + first;
    convert(bits, n, values);
    constexpr std::int64_t kLine = kLineBytes / static_cast<std::int64_t>(sizeof(Out));
    if (p.n_volumes * p.n_voxels * static_cast<std::int64_t>(sizeof(Out)) < kStreamBytes) {
      memcpy(to, values, static_cast<std::size_t>(n) * sizeof(Out));
      return n;
    }
    // Values before the first whole line: of the row's start alone, since later chunks begin with a line.
    std::int64_t i = static_cast<std::int64_t>(-reinterpret_cast<std::uintptr_t>(to) % kLineBytes) /
                     static_cast<std::int64_t>(sizeof(Out));
    i = i < n ? i : n;
    memcpy(to, values, static_cast<std::size_t>(i) * sizeof(Out));
    for (; i + kLine <= n; i += kLine) stream_line(to + i, values + i);
    if (last) {
      memcpy(to + i, values + i, static_cast<std::size_t>(n - i) * sizeof(Out));
      i = n;
    }
    return i;
  }
};

}  // namespace
}  // namespace NEUROKERN_ISA
}  // namespace neurokern
