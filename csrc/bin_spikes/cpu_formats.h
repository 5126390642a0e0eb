// How counters become elements of the output. Part of bin_spikes_cpu.cpp, compiled once per instruction set:
// no STL, nothing with external linkage.
#pragma once

#include <cstring>

#include "bin_spikes/bin_spikes_body.h"
#include "bin_spikes/cpu_vectors.h"

namespace neurokern {
namespace NEUROKERN_ISA {
namespace {

// One count, and kCells of them at a time.
template <typename Out>
struct Plain {
  typedef Out Element;
  typedef Out Elements __attribute__((vector_size(kCells * sizeof(Out))));
  static Out convert(uint32_t count) { return static_cast<Out>(count); }
  static inline __attribute__((always_inline)) Elements convert(Cells counts) {
    // Counts are below 2^31. Without a change of sign the conversion is one instruction, with one it is
    // scalar.
    if constexpr (Out(-1) > Out(0)) {
      return __builtin_convertvector(counts, Elements);
    } else {
      return __builtin_convertvector(reinterpret_cast<SignedCells>(counts), Elements);
    }
  }
};
struct Half {
  typedef uint16_t Element;
  typedef uint16_t Elements __attribute__((vector_size(kCells * sizeof(uint16_t))));
  static uint16_t convert(uint32_t count) { return half_bits(count); }
  static inline __attribute__((always_inline)) Elements convert(Cells counts) {
    const Cells bits =
        reinterpret_cast<Cells>(__builtin_convertvector(reinterpret_cast<SignedCells>(counts), Floats));
    return __builtin_convertvector(counts == 0 ? Cells{} : (bits >> 13) - (112u << 10), Elements);
  }
};
struct BFloat16 {
  typedef uint16_t Element;
  typedef uint16_t Elements __attribute__((vector_size(kCells * sizeof(uint16_t))));
  static uint16_t convert(uint32_t count) { return bfloat16_bits(count); }
  static inline __attribute__((always_inline)) Elements convert(Cells counts) {
    const Cells bits =
        reinterpret_cast<Cells>(__builtin_convertvector(reinterpret_cast<SignedCells>(counts), Floats));
    return __builtin_convertvector(bits >> 16, Elements);
  }
};

// Counters are cleared as they are taken; `top` sees them before they are saturated.
template <typename Vector, typename Count>
inline __attribute__((always_inline)) Vector take(Count* cells, Vector limit, Vector& top) {
  const Vector counts = load_counters<Vector>(cells);
  memset(cells, 0, sizeof(Vector) / sizeof(counts[0]) * sizeof(Count));
  top = larger(top, counts);
  return smaller(counts, limit);
}

// Lines of 64 bytes from counters: how many counters go into one step, and how.
template <typename Format, typename Count>
struct Lines {
  using Elements = typename Format::Elements;
  static constexpr size_t kBytes = sizeof(Elements);
  static constexpr int kVectors = kBytes < 64 ? static_cast<int>(64 / kBytes) : 1;
  static constexpr int kStep = kVectors * kCells;
  typedef Cells Counts;
  typedef uint32_t Number;

  static inline __attribute__((always_inline)) void write(Count* cells, char* to, Cells limit, Cells& top,
                                                          bool stream) {
    U64 lines[kVectors * kBytes / sizeof(U64)];
    for (int part = 0; part < kVectors; ++part) {
      const Elements elements = Format::convert(take(cells + kCells * part, limit, top));
      memcpy(reinterpret_cast<char*>(lines) + static_cast<size_t>(part) * kBytes, &elements, kBytes);
    }
    for (size_t i = 0; i < kVectors * kBytes / 64; ++i)
      store_line(to + 64 * i, lines + i * kRegisters, stream);
  }
};

template <>
struct Lines<Plain<uint8_t>, uint16_t> {
  static constexpr int kStep = 64;
  typedef Shorts Counts;
  typedef uint16_t Number;

  static inline __attribute__((always_inline)) void write(uint16_t* cells, char* to, Shorts limit,
                                                          Shorts& top, bool stream) {
    U64 line[kRegisters];
    for (int i = 0; i < kRegisters; ++i) {
      const Shorts low = take(cells + 2 * i * kShorts, limit, top);
      const Shorts high = take(cells + (2 * i + 1) * kShorts, limit, top);
      line[i] = pack_bytes(low, high);
    }
    store_line(to, line, stream);
  }
};

template <>
struct Lines<Plain<uint16_t>, uint16_t> {
  static constexpr int kStep = 32;
  typedef Shorts Counts;
  typedef uint16_t Number;

  static inline __attribute__((always_inline)) void write(uint16_t* cells, char* to, Shorts limit,
                                                          Shorts& top, bool stream) {
    U64 line[kRegisters];
    for (int i = 0; i < kRegisters; ++i)
      line[i] = reinterpret_cast<U64>(take(cells + i * kShorts, limit, top));
    store_line(to, line, stream);
  }
};

// Converts n counters to the output type, saturating, and clears them. Returns the largest.
template <typename Format, typename Count>
uint32_t convert_cells(Count* cells, void* out, int64_t n, uint32_t limit, bool stream) {
  using Out = typename Format::Element;
  using To = Lines<Format, Count>;
  using Counts = typename To::Counts;
  using Number = typename To::Number;
  Out* to = static_cast<Out*>(out);
  uint32_t largest = 0;
  int64_t i = 0;
  const auto one = [&](int64_t at) {
    const uint32_t count = cells[at];
    largest = largest < count ? count : largest;
    to[at] = Format::convert(count < limit ? count : limit);
    cells[at] = 0;
  };
  for (; i < n && reinterpret_cast<uintptr_t>(to + i) % 64 != 0; ++i) one(i);
  Counts top{};
  const Number most = static_cast<Number>(-1), lowered = limit < most ? static_cast<Number>(limit) : most;
  const Counts limits = Counts{} + lowered;
  for (; i + To::kStep <= n; i += To::kStep)
    To::write(cells + i, reinterpret_cast<char*>(to + i), limits, top, stream);
  for (size_t j = 0; j < sizeof top / sizeof top[0]; ++j) largest = largest < top[j] ? top[j] : largest;
  for (; i < n; ++i) one(i);
  return largest;
}

template <typename Count>
uint32_t convert_block(const BinSpikes& p, Count* cells, void* out, int64_t n, bool stream) {
  const uint32_t limit = p.largest_exact > 0x7FFFFFFF ? 0x7FFFFFFF : static_cast<uint32_t>(p.largest_exact);
  switch (p.count_type) {
    case CountType::u8:
      return convert_cells<Plain<uint8_t>>(cells, out, n, limit, stream);
    case CountType::i16:  // below 32768 the two are the same bits
    case CountType::u16:
      return convert_cells<Plain<uint16_t>>(cells, out, n, limit, stream);
    case CountType::i32:
      return convert_cells<Plain<uint32_t>>(cells, out, n, limit, stream);
    case CountType::i64:
      return convert_cells<Plain<int64_t>>(cells, out, n, limit, stream);
    case CountType::f16:
      return convert_cells<Half>(cells, out, n, limit, stream);
    case CountType::bf16:
      return convert_cells<BFloat16>(cells, out, n, limit, stream);
    case CountType::f32:
      return convert_cells<Plain<float>>(cells, out, n, limit, stream);
    case CountType::f64:
      return convert_cells<Plain<double>>(cells, out, n, limit, stream);
  }
  return 0;
}

}  // namespace
}  // namespace NEUROKERN_ISA
}  // namespace neurokern
