// From float32 to an output of any float type, streamed. Part of bin_spikes_cpu.cpp, compiled once per
// instruction set: no STL, nothing with external linkage.
#pragma once

#include <cstring>

#include "bin_spikes/bin_spikes_body.h"
#include "bin_spikes/cpu_vectors.h"

namespace neurokern {
namespace NEUROKERN_ISA {
namespace {

// How a float32 becomes an element: one, and kCells at a time.
struct AsFloat {
  typedef float Element;
  typedef Floats Elements;
  static float convert(float x) { return x; }
  static inline __attribute__((always_inline)) Floats convert(Floats x) { return x; }
};
struct AsDouble {
  typedef double Element;
  typedef double Elements __attribute__((vector_size(8 * kCells)));
  static double convert(float x) { return static_cast<double>(x); }
  static inline __attribute__((always_inline)) Elements convert(Floats x) {
    return __builtin_convertvector(x, Elements);
  }
};
typedef uint16_t ShortElements __attribute__((vector_size(2 * kCells)));
struct AsHalf {  // as nearest_half_bits
  typedef uint16_t Element;
  typedef ShortElements Elements;
  static uint16_t convert(float x) { return nearest_half_bits(x); }
  static inline __attribute__((always_inline)) Elements convert(Floats x) {
    const Cells bits = reinterpret_cast<Cells>(x);
    const Cells subnormal = reinterpret_cast<Cells>(x + 0.5f) - 0x3F000000u;
    const Cells normal = ((bits + 0xFFFu + (bits >> 13 & 1u)) >> 13) - (112u << 10);
    return __builtin_convertvector(x < 0x1p-14f ? subnormal : normal, Elements);
  }
};
struct AsBFloat16 {  // as nearest_bfloat16_bits
  typedef uint16_t Element;
  typedef ShortElements Elements;
  static uint16_t convert(float x) { return nearest_bfloat16_bits(x); }
  static inline __attribute__((always_inline)) Elements convert(Floats x) {
    const Cells bits = reinterpret_cast<Cells>(x);
    return __builtin_convertvector((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16, Elements);
  }
};

constexpr int kFloatLine = 16;  // float32 of a line of 64 bytes

template <typename Format>
void write_as(const float* from, void* out, int64_t n, bool stream) {
  using Elements = typename Format::Elements;
  constexpr size_t kBytes = sizeof(Elements);
  constexpr int kVectors = kBytes < 64 ? 64 / kBytes : 1;
  auto* to = static_cast<typename Format::Element*>(out);
  int64_t i = 0;
  for (; i < n && reinterpret_cast<uintptr_t>(to + i) % 64 != 0; ++i) to[i] = Format::convert(from[i]);
  for (; i + kVectors * kCells <= n; i += kVectors * kCells) {
    U64 lines[kVectors * kBytes / sizeof(U64)];
    for (int part = 0; part < kVectors; ++part) {
      const Elements elements = Format::convert(load<Floats>(from + i + part * kCells));
      memcpy(reinterpret_cast<char*>(lines) + static_cast<size_t>(part) * kBytes, &elements, kBytes);
    }
    for (size_t line = 0; line < kVectors * kBytes / 64; ++line)
      store_line(reinterpret_cast<char*>(to + i) + 64 * line, lines + line * kRegisters, stream);
  }
  for (; i < n; ++i) to[i] = Format::convert(from[i]);
}

// Writes n numbers >= 0 to an output of a float type.
void write_floats(CountType type, const float* from, void* out, int64_t n, bool stream) {
  if (type == CountType::f16) return write_as<AsHalf>(from, out, n, stream);
  if (type == CountType::bf16) return write_as<AsBFloat16>(from, out, n, stream);
  if (type == CountType::f64) return write_as<AsDouble>(from, out, n, stream);
  write_as<AsFloat>(from, out, n, stream);
}

}  // namespace
}  // namespace NEUROKERN_ISA
}  // namespace neurokern
