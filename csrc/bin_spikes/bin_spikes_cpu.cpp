// Counting on the CPU. Sorted spikes: a few rows of 32-bit counters live in L1; sixteen spikes at a time
// become counter numbers, and a finished block is converted, streamed to the output and cleared in one pass,
// so that the output is written once and never read. Unsorted spikes: first thrown into buckets of time, then
// the same.
//
// Compiled once per instruction set (common/isa.h): no STL, nothing with external linkage but the kernel.

#include <cstdlib>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "bin_spikes/bin_spikes.h"
#include "bin_spikes/bin_spikes_body.h"
#include "common/thread_pool.h"

namespace neurokern {
namespace NEUROKERN_ISA {
namespace {

using std::int32_t;
using std::int64_t;
using std::uint16_t;
using std::uint32_t;
using std::uint64_t;
using std::uint8_t;

constexpr int kLanes = 8;                 // one vector of doubles
constexpr int kGroup = 16;                // spikes handled together
#ifndef BC
#define BC 3200
#endif
constexpr int64_t kBlockCells = BC;     // sorted: counters of a block, 16 KiB of L1
constexpr int64_t kBucketCells = 131072;  // unsorted: counters of a block, half of a 1 MiB L2
constexpr int64_t kMaxBuckets = 4096;
constexpr int64_t kStreamBytes = int64_t{4} << 20;  // outputs above it bypass the caches
constexpr int64_t kParallelSpikes = 100000;  // about 100 us of work: below it a second thread costs more

typedef double F64 __attribute__((vector_size(64)));
typedef int64_t I64 __attribute__((vector_size(64)));
typedef uint64_t U64 __attribute__((vector_size(64)));
typedef int32_t I32 __attribute__((vector_size(32)));
typedef uint32_t U32 __attribute__((vector_size(32)));
typedef uint32_t Cells __attribute__((vector_size(64)));  // 16 counters
typedef int32_t SignedCells __attribute__((vector_size(64)));
typedef float Floats __attribute__((vector_size(64)));

template <typename Vector, typename T>
inline __attribute__((always_inline)) Vector load(const T* p) {
  Vector v;
  memcpy(&v, p, sizeof v);
  return v;
}

inline __attribute__((always_inline)) F64 magnitude(F64 x) {
  return reinterpret_cast<F64>(reinterpret_cast<I64>(x) & INT64_MAX);
}

inline __attribute__((always_inline)) bool any_above(F64 x, double bound) {
#if defined(__AVX512F__)
  return _mm512_cmp_pd_mask(reinterpret_cast<__m512d>(x), _mm512_set1_pd(bound), _CMP_GT_OQ) != 0;
#else
  const I64 above = x > bound;
#if defined(__AVX__)
  __m256i part[2];
  memcpy(part, &above, sizeof part);
  return _mm256_testz_si256(part[0], part[0]) == 0 || _mm256_testz_si256(part[1], part[1]) == 0;
#elif defined(__SSE4_1__)
  __m128i part[4];
  memcpy(part, &above, sizeof part);
  const __m128i merged = _mm_or_si128(_mm_or_si128(part[0], part[1]), _mm_or_si128(part[2], part[3]));
  return _mm_testz_si128(merged, merged) == 0;
#else
  int64_t merged = 0;
  for (int i = 0; i < kLanes; ++i) merged |= above[i];
  return merged != 0;
#endif
#endif
}

// ---- One block of rows
// ------------------------------------------------------------------------------------------

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

// Counters of `rows` rows, then three that are no cell: a spike beyond the block, an unknown id, an unmapped
// id.
struct Block {
  uint32_t* cells = nullptr;
  int64_t capacity_rows = 0, n_cells = 0;

  bool allocate(const BinSpikes& p, int64_t wanted_cells, int64_t max_rows) {
    const int64_t rows = wanted_cells / (p.n_units > 0 ? p.n_units : 1);
    capacity_rows = rows < 1 ? 1 : rows > max_rows ? max_rows : rows;
    n_cells = capacity_rows * p.n_units;
    cells = static_cast<uint32_t*>(calloc(static_cast<size_t>(n_cells) + 3, sizeof(uint32_t)));
    return cells != nullptr;
  }
  int64_t beyond() const { return n_cells; }
  int64_t unknown() const { return n_cells + 1; }
  int64_t unmapped() const { return n_cells + 2; }
};

// Everything a task needs to know; `columns` is unit_map as int32, or null.
struct Job {
  const BinSpikes& p;
  const int32_t* columns;
  bool stream;  // non-temporal stores
};

// Stores a line of 64 bytes to an aligned address; `stream` goes past the caches. Whole lines: parts of one written
// one after the other cost twice the time.
inline __attribute__((always_inline)) void store_line(void* to, U64 line, bool stream) {
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
inline __attribute__((always_inline)) U64x4 join(U64x2 a, U64x2 b) { return __builtin_shufflevector(a, b, 0, 1, 2, 3); }
inline __attribute__((always_inline)) U64 join(U64x4 a, U64x4 b) {
  return __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7);
}

// How a count becomes an element: one, and sixteen at a time.
template <typename Out>
struct Plain {
  typedef Out Element;
  typedef Out Sixteen __attribute__((vector_size(16 * sizeof(Out))));
  static Out convert(uint32_t count) { return static_cast<Out>(count); }
  static inline __attribute__((always_inline)) Sixteen convert(Cells counts) {
    // Counts are below 2^31. Without a change of sign the conversion is one instruction, with one it is scalar.
    if constexpr (Out(-1) > Out(0)) {
      return __builtin_convertvector(counts, Sixteen);
    } else {
      return __builtin_convertvector(reinterpret_cast<SignedCells>(counts), Sixteen);
    }
  }
};
struct Half {
  typedef uint16_t Element;
  typedef uint16_t Sixteen __attribute__((vector_size(32)));
  static uint16_t convert(uint32_t count) { return half_bits(count); }
  static inline __attribute__((always_inline)) Sixteen convert(Cells counts) {
    const Cells bits = reinterpret_cast<Cells>(__builtin_convertvector(reinterpret_cast<SignedCells>(counts), Floats));
    return __builtin_convertvector(counts == 0 ? Cells{} : (bits >> 13) - (112u << 10), Sixteen);
  }
};
struct BFloat16 {
  typedef uint16_t Element;
  typedef uint16_t Sixteen __attribute__((vector_size(32)));
  static uint16_t convert(uint32_t count) { return bfloat16_bits(count); }
  static inline __attribute__((always_inline)) Sixteen convert(Cells counts) {
    const Cells bits = reinterpret_cast<Cells>(__builtin_convertvector(reinterpret_cast<SignedCells>(counts), Floats));
    return __builtin_convertvector(bits >> 16, Sixteen);
  }
};

// Sixteen counters, saturated; they are cleared, and the largest seen goes to `top`.
inline __attribute__((always_inline)) Cells take_cells(uint32_t* cells, uint32_t limit, Cells& top) {
  const Cells counts = load<Cells>(cells), zero{};
  memcpy(cells, &zero, sizeof zero);
  top = top < counts ? counts : top;
  return counts < limit ? counts : Cells{} + limit;
}

// Writes 64 bytes, or two lines for elements of 8 bytes; returns how many counters went into them.
template <typename Format>
inline __attribute__((always_inline)) int convert_line(uint32_t* cells, void* to, uint32_t limit, Cells& top,
                                                       bool stream) {
  constexpr size_t kBytes = sizeof(typename Format::Sixteen);
  const auto next = [&](int part) { return Format::convert(take_cells(cells + 16 * part, limit, top)); };
  if constexpr (kBytes == 16) {
    const U64x4 low = join(reinterpret_cast<U64x2>(next(0)), reinterpret_cast<U64x2>(next(1)));
    const U64x4 high = join(reinterpret_cast<U64x2>(next(2)), reinterpret_cast<U64x2>(next(3)));
    store_line(to, join(low, high), stream);
    return 64;
  } else if constexpr (kBytes == 32) {
    store_line(to, join(reinterpret_cast<U64x4>(next(0)), reinterpret_cast<U64x4>(next(1))), stream);
    return 32;
  } else {
    const auto lines = next(0);
    for (size_t i = 0; i < kBytes; i += sizeof(U64))
      store_line(static_cast<char*>(to) + i, load<U64>(reinterpret_cast<const char*>(&lines) + i), stream);
    return 16;
  }
}

// Converts n counters to the output type, saturating, and clears them. Returns the largest.
template <typename Format>
uint32_t convert_cells(uint32_t* cells, void* out, int64_t n, uint32_t limit, bool stream) {
  using Out = typename Format::Element;
  constexpr int64_t kPerStep = sizeof(Out) == 8 ? 16 : 64 / sizeof(Out);
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
  for (int j = 0; j < 16; ++j) largest = largest < top[j] ? top[j] : largest;
  for (; i < n; ++i) one(i);
  return largest;
}

int64_t element_size(CountType type) {
  switch (type) {
    case CountType::u8:
      return 1;
    case CountType::i16:
    case CountType::u16:
    case CountType::f16:
    case CountType::bf16:
      return 2;
    case CountType::i32:
    case CountType::f32:
      return 4;
    default:
      return 8;
  }
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

// Writes the block to rows [row, row + rows) of a window and leaves it clear.
void finish_block(const Job& job, Block& block, int64_t window, int64_t row, int64_t rows, Tally& tally) {
  const BinSpikes& p = job.p;
  char* out =
      static_cast<char*>(p.counts) + (window * p.n_bins + row) * p.n_units * element_size(p.count_type);
  const uint32_t largest = convert_block(p, block.cells, out, rows * p.n_units, job.stream);
  tally.largest = tally.largest < largest ? largest : tally.largest;
  tally.unknown += block.cells[block.unknown()];
  tally.unmapped += block.cells[block.unmapped()];
  for (int64_t i = block.beyond(); i <= block.unmapped(); ++i) block.cells[i] = 0;
}

// ---- Which counter
// ------------------------------------------------------------------------------------------------

template <typename U>
inline int64_t scalar_cell(const Job& job, const Block& block, U id, int64_t row_in_block) {
  const int64_t column = column_of(job.p, static_cast<int64_t>(id));
  if (column >= 0) return row_in_block * job.p.n_units + column;
  return column == kUnknown ? block.unknown() : block.unmapped();
}

// Equal bins by arithmetic: x = (t - origin) * scale - row lies in [r, r + 1) for row r of the block, up to
// an error far below `slack`; only a spike that close to an edge needs the comparison.
template <typename T>
struct Quotient;

template <>
struct Quotient<double> {
  double origin, scale, slack, start;
  bool usable;

  Quotient(const BinSpikes& p, double window_start, int64_t)
      : origin(window_start - p.tolerance), scale(p.step_is_rate ? p.step : 1 / p.step), start(window_start) {
    // Edges, times and the quotient are each rounded a few times, relative to the largest time and bin.
    const double end = plain_edge(p, start, p.n_bins);
    const double reach = (start < 0 ? -start : start) + (end < 0 ? -end : end) + p.tolerance;
    slack = 16 * 2.3e-16 * (scale * reach + static_cast<double>(p.n_bins));
    usable = p.edges == nullptr && slack < 0.01;
  }
  inline __attribute__((always_inline)) F64 position(const double* times, int64_t row) const {
    return (load<F64>(times) - origin) * scale - static_cast<double>(row);
  }
  void set_block(const BinSpikes&, int64_t, int64_t) {}
};

template <>
struct Quotient<int64_t> {
  int64_t start, block_start = 0, span = 0;
  double scale, offset = 0, slack = 0;
  bool usable;

  // With half a step of the smallest fraction added, no quotient of integers comes near an edge.
  Quotient(const BinSpikes& p, int64_t window_start, int64_t rows)
      : start(window_start),
        scale(static_cast<double>(p.width_denominator) / static_cast<double>(p.width_numerator)),
        usable(p.edges == nullptr && p.width_numerator / p.width_denominator < (int64_t{1} << 30) / rows &&
               p.width_numerator < (int64_t{1} << 48) / rows) {}
  void set_block(const BinSpikes& p, int64_t row, int64_t rows) {
    block_start = bin_edge(p, start, row);
    span = bin_edge(p, start, row + rows) - block_start;
    const int64_t ahead = (block_start - start) * p.width_denominator - row * p.width_numerator;
    offset = (static_cast<double>(ahead) + 0.5) / static_cast<double>(p.width_numerator);
  }
  inline __attribute__((always_inline)) F64 position(const int64_t* times, int64_t) const {
    const U64 distance = load<U64>(times) - static_cast<uint64_t>(block_start);  // before the block: huge
    const U64 inside = distance < static_cast<uint64_t>(span) ? distance : U64{} + 0x80000000u;  // INT32_MIN
    return __builtin_convertvector(__builtin_convertvector(inside, I32), F64) * scale + offset;
  }
};

template <typename U>
struct Columns;

template <>
struct Columns<int32_t> {
  static inline __attribute__((always_inline)) I32 load8(const int32_t* units, int64_t n) {
    const I32 id = load<I32>(units);
    return reinterpret_cast<U32>(id) < static_cast<uint32_t>(n) ? id : I32{} - 1;
  }
};
template <>
struct Columns<int64_t> {
  static inline __attribute__((always_inline)) I32 load8(const int64_t* units, int64_t n) {
    const I64 id = load<I64>(units);
    const I64 checked = reinterpret_cast<U64>(id) < static_cast<uint64_t>(n) ? id : I64{} - 1;
    return __builtin_convertvector(checked, I32);
  }
};

// Counts kGroup spikes at `times`, `units` into the block of `rows` rows from `row`.
template <bool kMapped, typename T, typename U>
inline __attribute__((always_inline)) void count_group(const Job& job, const Quotient<T>& quotient,
                                                       Block& block, const T* times, const U* units,
                                                       int64_t row, int32_t rows) {
  const BinSpikes& p = job.p;
  const uint32_t n_units = static_cast<uint32_t>(p.n_units);
  const int32_t beyond = static_cast<int32_t>(block.beyond()),
                unknown = static_cast<int32_t>(block.unknown());
  F64 x[2];
  I32 r[2];
  for (int half = 0; half < 2; ++half) {
    x[half] = quotient.position(times + half * kLanes, row);
    r[half] = __builtin_convertvector(x[half], I32);
  }
  if (quotient.slack > 0) {
    // How far from the middle of its bin; above 1/2 also for a spike just before the block, cut to row 0.
    const F64 a = magnitude(x[0] - __builtin_convertvector(r[0], F64) - 0.5);
    const F64 b = magnitude(x[1] - __builtin_convertvector(r[1], F64) - 0.5);
    if (__builtin_expect(any_above(a > b ? a : b, 0.5 - quotient.slack), 0)) {
      for (int i = 0; i < kGroup; ++i) {
        const int64_t bin = bin_of(p, quotient.start, times[i]);
        r[i / kLanes][i % kLanes] = bin >= row && bin < row + rows ? static_cast<int32_t>(bin - row) : -1;
      }
    }
  }
  alignas(64) int32_t cell[kGroup];
  for (int half = 0; half < 2; ++half) {
    I32 column;
    if (kMapped) {
      const I32 id = Columns<U>::load8(units + half * kLanes, p.n_ids);
      for (int i = 0; i < kLanes; ++i) column[i] = job.columns[id[i]];  // entry -1 is kUnknown
    } else {
      column = Columns<U>::load8(units + half * kLanes, p.n_units);
    }
    // unknown() and unmapped() follow each other as kUnknown = -1 and kUnmapped = -2 do.
    const U32 row_of = reinterpret_cast<U32>(r[half]);
    const I32 known = column >= 0 ? reinterpret_cast<I32>(row_of * n_units) + column : unknown - 1 - column;
    const I32 at = row_of < static_cast<uint32_t>(rows) ? known : I32{} + beyond;
    memcpy(cell + half * kLanes, &at, sizeof at);
  }
  for (int i = 0; i < kGroup; ++i) ++block.cells[cell[i]];
}

// ---- Sorted spikes
// --------------------------------------------------------------------------------------------------

template <typename T>
int64_t first_at_least(const T* times, int64_t n, T value) {
  int64_t low = 0, high = n;
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (times[middle] < value) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

// True if times[i] <= times[i + 1] for all i in [first, last - 1). NaN is never sorted.
template <typename T>
bool is_sorted(const T* times, int64_t first, int64_t last) {
  constexpr int64_t kChunk = 512;
  for (int64_t i = first; i + 1 < last;) {
    const int64_t stop = i + kChunk < last - 1 ? i + kChunk : last - 1;
    bool fine = true;
    for (; i < stop; ++i) fine &= times[i] <= times[i + 1];
    if (!fine) return false;
  }
  return true;
}

template <typename T, typename U>
int64_t count_scalar(const Job& job, Block& block, T start, int64_t row, int64_t rows, int64_t i,
                     bool& disordered) {
  const BinSpikes& p = job.p;
  const T* times = static_cast<const T*>(p.times);
  const U* units = static_cast<const U*>(p.units);
  const T limit = bin_limit(p, start, row + rows);
  T previous = bin_edge(p, start, row);
  int64_t r = row;
  for (; i < p.n_spikes && times[i] < limit; ++i) {
    disordered |= !(times[i] >= previous);
    previous = times[i];
    while (r + 1 < row + rows && times[i] >= bin_edge(p, start, r + 1)) ++r;
    ++block.cells[scalar_cell(job, block, units[i], r - row)];
  }
  return i;
}

// Counts the spikes of one block of rows from spike i on; returns the first spike beyond the block.
template <bool kMapped, typename T, typename U>
int64_t count_sorted(const Job& job, Quotient<T>& quotient, Block& block, int64_t row, int64_t rows,
                     int64_t i, bool& disordered) {
  const BinSpikes& p = job.p;
  const T* times = static_cast<const T*>(p.times);
  const U* units = static_cast<const U*>(p.units);
  const T limit = bin_limit(p, quotient.start, row + rows);
  quotient.set_block(p, row, rows);
  // Order is seen by where spikes fall: all of a group but the last belong into the block, and of the last group those
  // below the limit. A spike out of place is met again, or missed, by another block, and there shows as `beyond`.
  const uint32_t& beyond = block.cells[block.beyond()];
  while (i + kGroup <= p.n_spikes) {
    count_group<kMapped>(job, quotient, block, times + i, units + i, row, static_cast<int32_t>(rows));
    if (times[i + kGroup - 1] < limit) {
      i += kGroup;
      continue;
    }
    int inside = 0;
    for (int j = 0; j < kGroup; ++j) inside += times[i + j] < limit;
    disordered |= beyond != static_cast<uint32_t>(kGroup - inside);
    return i + inside;
  }
  disordered |= beyond != 0;
  return count_scalar<T, U>(job, block, quotient.start, row, rows, i, disordered);
}

// Rows [first_row, last_row) of one window.
template <typename T, typename U>
void bin_sorted_rows(const Job& job, Block& block, int64_t window, int64_t first_row, int64_t last_row,
                     Tally& tally) {
  const BinSpikes& p = job.p;
  const T* times = static_cast<const T*>(p.times);
  const T start = window_start(p, window, T{});
  const bool empty = !usable_start(start);
  Quotient<T> quotient(p, empty ? T{} : start, block.capacity_rows);
  const int64_t first = empty ? 0 : first_at_least(times, p.n_spikes, bin_edge(p, start, first_row));
  int64_t i = first;
  for (int64_t row = first_row; row < last_row; row += block.capacity_rows) {
    const int64_t rows = row + block.capacity_rows < last_row ? block.capacity_rows : last_row - row;
    const bool closed_end =
        p.closed_last && row + rows == p.n_bins;  // the closed edge is a matter of comparison
    if (!empty && quotient.usable && !closed_end) {
      i = job.columns != nullptr
              ? count_sorted<true, T, U>(job, quotient, block, row, rows, i, tally.disordered)
              : count_sorted<false, T, U>(job, quotient, block, row, rows, i, tally.disordered);
    } else if (!empty) {
      i = count_scalar<T, U>(job, block, start, row, rows, i, tally.disordered);
    }
    finish_block(job, block, window, row, rows, tally);
  }
  tally.in_range += i - first;
  if (empty || p.starts != nullptr) return;
  // One window: its row ranges meet, and together with what lies outside they are all spikes.
  if (last_row < p.n_bins) {
    tally.disordered |= first_at_least(times, p.n_spikes, bin_edge(p, start, last_row)) != i;
  } else if (p.order == SpikeOrder::unknown) {
    tally.disordered |= !is_sorted(times, i > 0 ? i - 1 : 0, p.n_spikes);
  }
  if (first_row == 0 && p.order == SpikeOrder::unknown) {
    tally.disordered |= !is_sorted(times, 0, first < p.n_spikes ? first + 1 : first);
  }
}

// ---- Unsorted spikes
// ------------------------------------------------------------------------------------------------

// Spikes thrown into buckets of time; within one they keep no order, and need none.
template <typename T, typename U>
struct Buckets {
  T* times = nullptr;
  U* units = nullptr;
  int64_t* begin = nullptr;  // (n + 1,)
  int64_t n = 1;
  T low{}, high{};
  double scale = 0;

  // Monotonic in t by the rounding of each step, so that a range of times is a range of buckets.
  int64_t bucket_of(T t) const {
    const double x = (static_cast<double>(t) - static_cast<double>(low)) * scale;
    return !(x > 0) ? 0 : x < static_cast<double>(n) ? static_cast<int64_t>(x) : n - 1;
  }
  bool holds(T t) const { return t >= low && t < high; }

  bool fill(const BinSpikes& p) {
    const T* all_times = static_cast<const T*>(p.times);
    const U* all_units = static_cast<const U*>(p.units);
    bool any_window = false;
    for (int64_t w = 0; w < p.n_windows; ++w) {
      const T start = window_start(p, w, T{});
      if (!usable_start(start)) continue;
      const T first = bin_edge(p, start, 0), last = bin_limit(p, start, p.n_bins);
      low = !any_window || first < low ? first : low;
      high = !any_window || last > high ? last : high;
      any_window = true;
    }
    n = p.n_spikes / 256 + 1;
    n = n > kMaxBuckets ? kMaxBuckets : n;
    const double width = static_cast<double>(high) - static_cast<double>(low);
    scale = width > 0 ? static_cast<double>(n) / width : 0;
    begin = static_cast<int64_t*>(calloc(static_cast<size_t>(n) + 2, sizeof(int64_t)));
    if (begin == nullptr) return false;
    for (int64_t i = 0; i < p.n_spikes; ++i)
      if (holds(all_times[i])) ++begin[bucket_of(all_times[i]) + 2];
    for (int64_t b = 2; b <= n + 1; ++b) begin[b] += begin[b - 1];
    const size_t n_kept = static_cast<size_t>(begin[n + 1]) + 1;
    times = static_cast<T*>(malloc(n_kept * sizeof(T)));
    units = static_cast<U*>(malloc(n_kept * sizeof(U)));
    if (times == nullptr || units == nullptr) return false;
    for (int64_t i = 0; i < p.n_spikes; ++i) {
      if (!holds(all_times[i])) continue;
      const int64_t at = begin[bucket_of(all_times[i]) + 1]++;
      times[at] = all_times[i];
      units[at] = all_units[i];
    }
    return true;
  }
  void release() {
    free(times);
    free(units);
    free(begin);
  }
};

template <typename T, typename U>
void bin_bucketed_rows(const Job& job, const Buckets<T, U>& buckets, Block& block, int64_t window,
                       int64_t first_row, int64_t last_row, Tally& tally) {
  const BinSpikes& p = job.p;
  const T start = window_start(p, window, T{});
  for (int64_t row = first_row; row < last_row; row += block.capacity_rows) {
    const int64_t rows = row + block.capacity_rows < last_row ? block.capacity_rows : last_row - row;
    if (usable_start(start)) {
      const int64_t end = buckets.begin[buckets.bucket_of(bin_limit(p, start, row + rows)) + 1];
      for (int64_t i = buckets.begin[buckets.bucket_of(bin_edge(p, start, row))]; i < end; ++i) {
        const int64_t bin = bin_of(p, start, buckets.times[i]);
        if (bin < row || bin >= row + rows) continue;
        ++block.cells[scalar_cell(job, block, buckets.units[i], bin - row)];
        ++tally.in_range;
      }
    }
    finish_block(job, block, window, row, rows, tally);
  }
}

// ---- Tasks
// ------------------------------------------------------------------------------------------------------------

// A task is some windows, or some rows of the only window.
template <typename T, typename U>
struct Plan {
  Job job;
  const Buckets<T, U>* buckets;  // null: sorted
  Tally* tallies;
  int64_t n_tasks;

  static void run(void* context, int64_t task) {
    const Plan& plan = *static_cast<const Plan*>(context);
    const BinSpikes& p = plan.job.p;
    Tally& tally = plan.tallies[task];
    const bool by_window = p.n_windows > 1;
    const int64_t n_items = by_window ? p.n_windows : p.n_bins;
    const int64_t first = n_items * task / plan.n_tasks, last = n_items * (task + 1) / plan.n_tasks;
    Block block;
    if (!block.allocate(p, plan.buckets == nullptr ? kBlockCells : kBucketCells, p.n_bins)) {
      tally.out_of_memory = true;
      return;
    }
    for (int64_t w = by_window ? first : 0; w < (by_window ? last : 1); ++w) {
      const int64_t first_row = by_window ? 0 : first, last_row = by_window ? p.n_bins : last;
      if (plan.buckets == nullptr) {
        bin_sorted_rows<T, U>(plan.job, block, w, first_row, last_row, tally);
      } else {
        bin_bucketed_rows<T, U>(plan.job, *plan.buckets, block, w, first_row, last_row, tally);
      }
    }
#if defined(__SSE2__)
    if (plan.job.stream) _mm_sfence();
#endif
    free(block.cells);
  }
};

template <typename T>
struct OrderCheck {
  const T* times;
  int64_t n, n_tasks;
  bool* disordered;

  static void run(void* context, int64_t task) {
    const OrderCheck& c = *static_cast<const OrderCheck*>(context);
    const int64_t last = c.n * (task + 1) / c.n_tasks;
    c.disordered[task] = !is_sorted(c.times, c.n * task / c.n_tasks, last < c.n ? last + 1 : last);
  }
};

constexpr int kMaxTasks = 256;

template <typename T, typename U>
Tally run_tasks(const Job& job, const Buckets<T, U>* buckets, int n_threads, int64_t work) {
  const BinSpikes& p = job.p;
  Tally tallies[kMaxTasks];
  const int64_t n_items = p.n_windows > 1 ? p.n_windows : p.n_bins;
  const int threads = work < kParallelSpikes ? 1 : n_threads < kMaxTasks / 4 ? n_threads : kMaxTasks / 4;
  const int64_t wanted = threads > 1 ? 4 * threads : 1;
  Plan<T, U> plan{job, buckets, tallies, wanted < n_items ? wanted : n_items};
  parallel_for(plan.n_tasks, threads, &Plan<T, U>::run, &plan);
  Tally total;
  for (int64_t i = 0; i < plan.n_tasks; ++i) total.add(tallies[i]);
  return total;
}

template <typename T, typename U>
Tally bin_all(const Job& job, int n_threads) {
  const BinSpikes& p = job.p;
  const int64_t work = p.n_spikes + p.n_windows * p.n_bins * p.n_units / 8;
  bool sorted = p.order != SpikeOrder::unsorted;
  if (sorted && p.starts != nullptr && p.order == SpikeOrder::unknown) {
    bool disordered[kMaxTasks] = {};
    OrderCheck<T> check{static_cast<const T*>(p.times), p.n_spikes,
                        n_threads < kMaxTasks ? n_threads : kMaxTasks, disordered};
    if (p.n_spikes < 10 * kParallelSpikes) check.n_tasks = 1;
    parallel_for(check.n_tasks, n_threads, &OrderCheck<T>::run, &check);
    for (int64_t i = 0; i < check.n_tasks; ++i) sorted &= !disordered[i];
  }
  if (sorted) {
    const Tally tally = run_tasks<T, U>(job, nullptr, n_threads, work);
    if (!tally.disordered || tally.out_of_memory) return tally;
  }
  Buckets<T, U> buckets;
  Tally tally;
  if (buckets.fill(p)) {
    tally = run_tasks<T, U>(job, &buckets, n_threads, work);
  } else {
    tally.out_of_memory = true;
  }
  buckets.release();
  return tally;
}

// unit_map as int32 with kUnknown before the first entry, so that the vector path can look up id -1.
int32_t* make_columns(const BinSpikes& p) {
  int32_t* table = static_cast<int32_t*>(malloc((static_cast<size_t>(p.n_ids) + 1) * sizeof(int32_t)));
  if (table == nullptr) return nullptr;
  table[0] = kUnknown;
  for (int64_t id = 0; id < p.n_ids; ++id) table[id + 1] = static_cast<int32_t>(column_of(p, id));
  return table;
}

}  // namespace

void bin_spikes_cpu(const BinSpikes& p, int n_threads, BinSpikesReport* report) {
  *report = {};
  if (p.n_windows == 0 || p.n_bins == 0) return;
  int32_t* table = p.unit_map != nullptr ? make_columns(p) : nullptr;
  if (p.unit_map != nullptr && table == nullptr) {
    report->out_of_memory = 1;
    return;
  }
  const int64_t bytes = p.n_windows * p.n_bins * p.n_units * element_size(p.count_type);
  const Job job{p, table != nullptr ? table + 1 : nullptr, bytes > kStreamBytes};
  const Tally tally = p.integer_times ? (p.wide_units ? bin_all<int64_t, int64_t>(job, n_threads)
                                                      : bin_all<int64_t, int32_t>(job, n_threads))
                                      : (p.wide_units ? bin_all<double, int64_t>(job, n_threads)
                                                      : bin_all<double, int32_t>(job, n_threads));
  free(table);
  *report = {tally.in_range, tally.unknown, tally.unmapped, tally.largest, tally.out_of_memory};
}

}  // namespace NEUROKERN_ISA
}  // namespace neurokern
