// A block of rows as narrow counters, and its way to the output: converted, streamed and cleared in one pass.
// Part of bin_spikes_cpu.cpp, compiled once per instruction set: no STL, nothing with external linkage.
#pragma once

#include <cstdlib>
#include <cstring>

#include "bin_spikes/bin_spikes_body.h"
#include "bin_spikes/cpu_formats.h"
#include "bin_spikes/cpu_vectors.h"

namespace neurokern {
namespace NEUROKERN_ISA {
namespace {

struct Tally {
  int64_t in_range = 0, unknown = 0, unmapped = 0;
  uint32_t largest = 0;
  bool disordered = false, out_of_memory = false;

  void add(const Tally& other) {
    in_range += other.in_range;
    unknown += other.unknown;
    unmapped += other.unmapped;
    largest = largest < other.largest ? other.largest : largest;
    disordered |= other.disordered;
    out_of_memory |= other.out_of_memory;
  }
};

// Spikes without a column add to one of these many counters, by their id: a single one would be a chain of
// dependent additions.
constexpr uint32_t kSpread = 32;

// How rows are cut into blocks.
struct Shape {
  int64_t rows, cells, n_units;  // of a block

  Shape(const BinSpikes& p, int64_t wanted_cells, int64_t max_rows) : n_units(p.n_units) {
    const int64_t fitting = wanted_cells / (p.n_units > 0 ? p.n_units : 1);
    rows = fitting < 1 ? 1 : fitting > max_rows ? max_rows : fitting;
    cells = rows * p.n_units;
  }
  // Columns of ids that have none: counter row * n_units + column lies past those of the block for each row.
  uint32_t unknown() const { return static_cast<uint32_t>(cells); }
  uint32_t unmapped() const { return static_cast<uint32_t>(2 * cells) + kSpread; }
};

// Everything a task needs to know. `columns` is unit_map, with Shape's columns for ids that have none; entry
// -1 is an unknown id. Null: the id is the column.
struct Job {
  const BinSpikes& p;
  const uint32_t* columns;
  Shape shape;
  bool stream;  // non-temporal stores
};

// Counters of a block of rows, of spikes without a column, and of spikes beyond the block. With 16 bits a
// block must not hold more than 65535 spikes.
template <typename Count>
struct Block {
  Count* cells = nullptr;

  bool allocate(const Shape& shape) {
    cells = static_cast<Count*>(calloc(size(shape), sizeof(Count)));
    return cells != nullptr;
  }
  void clear(const Shape& shape) { memset(cells, 0, size(shape) * sizeof(Count)); }
  void release() { free(cells); }

  static size_t size(const Shape& shape) { return static_cast<size_t>(beyond(shape)) + 1; }
  static int64_t beyond(const Shape& shape) { return 3 * shape.cells + 2 * kSpread; }

  // Sums and clears the counters of `rows` rows for ids that have no column.
  int64_t take_columnless(const Shape& shape, uint32_t column, int64_t rows) {
    int64_t sum = 0;
    for (int64_t row = 0; row < rows; ++row) {
      Count* from = cells + row * shape.n_units + column;
      for (uint32_t i = 0; i < kSpread; ++i) sum += from[i];
      memset(from, 0, kSpread * sizeof(Count));
    }
    return sum;
  }
};
<<<<<<< HEAD
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

// Elements counters, saturated; they are cleared, and the largest seen goes to `top`.
inline __attribute__((always_inline)) Cells take_cells(uint32_t* cells, uint32_t limit, Cells& top) {
  const Cells counts = load<Cells>(cells), zero{};
  memcpy(cells, &zero, sizeof zero);
  top = top < counts ? counts : top;
  return counts < limit ? counts : Cells{} + limit;
}

// Writes 64 bytes, or more for wide elements; returns how many counters went into them.
template <typename Format>
inline __attribute__((always_inline)) int convert_line(uint32_t* cells, void* to, uint32_t limit, Cells& top,
                                                       bool stream) {
  using Elements = typename Format::Elements;
  constexpr size_t kBytes = sizeof(Elements);
  const auto next = [&](int part) { return Format::convert(take_cells(cells + kCells * part, limit, top)); };
#if defined(__AVX512F__)
  if constexpr (kBytes == 16) {
    const U64x4 low = join(reinterpret_cast<U64x2>(next(0)), reinterpret_cast<U64x2>(next(1)));
    const U64x4 high = join(reinterpret_cast<U64x2>(next(2)), reinterpret_cast<U64x2>(next(3)));
    store_line(to, join(low, high), stream);
    return 4 * kCells;
  } else if constexpr (kBytes == 32) {
    store_line(to, join(reinterpret_cast<U64x4>(next(0)), reinterpret_cast<U64x4>(next(1))), stream);
    return 2 * kCells;
  }
#elif defined(__AVX2__)
  if constexpr (kBytes == 8) {  // 32 to 8 bits in one step would be done by scalars
    typedef uint16_t Half8 __attribute__((vector_size(16)));
    alignas(64) char line[64];
    for (int part = 0; part < 4; ++part) {
      const Half8 a = __builtin_convertvector(take_cells(cells + 2 * kCells * part, limit, top), Half8);
      const Half8 b =
          __builtin_convertvector(take_cells(cells + 2 * kCells * part + kCells, limit, top), Half8);
      const __m128i packed = _mm_packus_epi16(reinterpret_cast<__m128i>(a), reinterpret_cast<__m128i>(b));
      memcpy(line + 16 * part, &packed, sizeof packed);
    }
    store_line(to, load<Line>(line), stream);
    return 64;
  }
#endif
  constexpr int kVectors = kBytes < 64 ? 64 / kBytes : 1;
  alignas(64) char lines[kVectors * kBytes];
  for (int part = 0; part < kVectors; ++part) {
    const Elements elements = next(part);
    memcpy(lines + static_cast<size_t>(part) * kBytes, &elements, kBytes);
  }
  for (size_t i = 0; i < sizeof lines; i += 64)
    store_line(static_cast<char*>(to) + i, load<Line>(lines + i), stream);
  return kVectors * kCells;
}

// Converts n counters to the output type, saturating, and clears them. Returns the largest.
template <typename Format>
uint32_t convert_cells(uint32_t* cells, void* out, int64_t n, uint32_t limit, bool stream) {
  using Out = typename Format::Element;
  constexpr size_t kBytes = sizeof(typename Format::Elements);
  constexpr int64_t kPerStep = static_cast<int64_t>((kBytes < 64 ? 64 : kBytes) / sizeof(Out));
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
  Cells top{};
  while (i + kPerStep <= n) i += convert_line<Format>(cells + i, to + i, limit, top, stream);
  for (int j = 0; j < kCells; ++j) largest = largest < top[j] ? top[j] : largest;
  for (; i < n; ++i) one(i);
  return largest;
}

uint32_t convert_block(const BinSpikes& p, uint32_t* cells, void* out, int64_t n, bool stream) {
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
=======
>>>>>>> main

// Writes the block to rows [row, row + rows) of a window and leaves it clear.
template <typename Count>
void finish_block(const Job& job, Block<Count>& block, int64_t window, int64_t row, int64_t rows,
                  Tally& tally) {
  const BinSpikes& p = job.p;
  char* out =
      static_cast<char*>(p.counts) + (window * p.n_bins + row) * p.n_units * element_size(p.count_type);
  const uint32_t largest = convert_block(p, block.cells, out, rows * p.n_units, job.stream);
  tally.largest = tally.largest < largest ? largest : tally.largest;
  tally.unknown += block.take_columnless(job.shape, job.shape.unknown(), rows);
  if (job.columns != nullptr) tally.unmapped += block.take_columnless(job.shape, job.shape.unmapped(), rows);
  block.cells[block.beyond(job.shape)] = 0;
}

// Streamed lines are seen by other threads only after this.
void finish_stores(const Job& job) {
#if defined(__SSE2__)
  if (job.stream) _mm_sfence();
#else
  static_cast<void>(job);
#endif
}

}  // namespace
}  // namespace NEUROKERN_ISA
}  // namespace neurokern
