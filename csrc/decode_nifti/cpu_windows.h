// Windows of runs, each written to its place in a batch: chosen, scaled, cleaned by coefficients.
// Part of decode_nifti_cpu.cpp, compiled once per instruction set: no STL, nothing with external linkage.
#pragma once

#include <cstdint>
#include <cstring>

#include "common/thread_pool.h"
#include "decode_nifti/cpu_rows.h"
#include "decode_nifti/decode_nifti.h"
#include "decode_nifti/decode_nifti_body.h"

namespace neurokern {
namespace NEUROKERN_ISA {
namespace {

constexpr std::int64_t kParallelValues = 100000;
constexpr std::int64_t kPiece = 1024;  // columns at once: a few rows of them stay in L1
// Batches above it bypass the caches: a smaller one is still there when it is used, and so is its memory when
// it is written again.
constexpr std::int64_t kStreamBatchBytes = std::int64_t{8} << 20;
constexpr int kTogetherRows = 4;    // that share one look at the coefficients
constexpr int kTogetherTrends = 4;  // that share one look at the rows

struct Half {
  std::uint16_t bits;
  explicit operator float() const { return float_of_half(bits); }
  explicit operator double() const { return static_cast<double>(float_of_half(bits)); }
};

struct BFloat16 {
  std::uint16_t bits;
  explicit operator float() const { return float_of_bfloat16(bits); }
  explicit operator double() const { return static_cast<double>(float_of_bfloat16(bits)); }
};

// As with_floats, of short floats, too.
template <typename Bits, typename Work>
inline std::int64_t with_stored(VoxelType type, const Scale& scale, Work work) {
  if constexpr (sizeof(Bits) == 2) {
    if (type == kHalf) return with_scaling<Half>(scale, work);
    if (type == kBFloat16) return with_scaling<BFloat16>(scale, work);
  }
  return with_floats<Bits>(type, scale, work);
}

// A part of the columns of windows of one run.
template <typename Bits>
struct WindowWriter {
  const GatherWindows& p;
  const StoredRows& run;
  const Scale scale;
  const bool streamed;
  const std::int64_t part, n_parts;

  // Part of n values, in whole pieces.
  std::int64_t begin_of(std::int64_t n, std::int64_t number) const {
    const std::int64_t begin = (n + kPiece - 1) / kPiece * number / n_parts * kPiece;
    return begin < n ? begin : n;
  }

  void write(const RunWindow* windows, std::int64_t n_windows) const {
    if (run.origin == nullptr) {
      for (std::int64_t i = 0; i < n_windows; ++i) scale_window(windows[i]);
    } else {
      const std::int64_t last = begin_of(run.n_columns, part + 1);
      for (std::int64_t c = begin_of(run.n_columns, part); c < last; c += kPiece)
        for (std::int64_t i = 0; i < n_windows; ++i)
          clean_piece(windows[i], c, last - c < kPiece ? last - c : kPiece);
    }
    for (std::int64_t i = 0; i < n_windows; ++i) clear_rest(windows[i]);
  }

  std::int64_t out_bytes() const { return p.decoded == DecodedType::f32 ? 4 : 2; }

  const Bits* raw(const RunWindow& w, std::int64_t row, std::int64_t first) const {
    return static_cast<const Bits*>(run.raw) + (w.first + row) * run.raw_stride + first;
  }

  unsigned char* out(const RunWindow& w, std::int64_t row, std::int64_t first) const {
    return static_cast<unsigned char*>(w.out) + ((w.before + row) * p.out_stride + first) * out_bytes();
  }

  void scale_window(const RunWindow& w) const {
    // Rows that follow each other on both sides are one.
    const bool joined =
        run.columns == nullptr && run.raw_stride == run.n_columns && p.out_stride == run.n_columns;
    const std::int64_t n_rows = joined ? 1 : w.n_rows;
    const std::int64_t n_columns = joined ? w.n_rows * run.n_columns : run.n_columns;
    const std::int64_t first = begin_of(n_columns, part), last = begin_of(n_columns, part + 1);
    if (first == last) return;
    for (std::int64_t t = 0; t < n_rows; ++t) {
      if (run.columns == nullptr)
        scale_row(out(w, t, first), raw(w, t, first), last - first);
      else
        for (std::int64_t c = first; c < last; c += kPiece) {
          const std::int64_t n = last - c < kPiece ? last - c : kPiece;
          Bits chosen[kPiece];
          choose(chosen, raw(w, t, 0), c, n);
          scale_row(out(w, t, c), chosen, n);
        }
    }
  }

  void choose(Bits* chosen, const Bits* row, std::int64_t first, std::int64_t n) const {
    const std::int32_t* columns = run.columns + first;
    for (std::int64_t i = 0; i < n; ++i) {
      chosen[i] = row[columns[i]];
      // The next row: the processor does not see that the same places follow. Beyond the last it does
      // nothing.
      __builtin_prefetch(row + run.raw_stride + columns[i]);
    }
  }

  void scale_row(unsigned char* to, const Bits* from, std::int64_t n) const {
    with_stored<Bits>(run.type, scale, [&](auto value) { return put(to, from, n, value); });
  }

  void clean_piece(const RunWindow& w, std::int64_t first, std::int64_t n) const {
    std::int64_t t = 0;
    for (; t + kTogetherRows <= w.n_rows; t += kTogetherRows) {
      if (run.columns == nullptr) fetch(w, t + kTogetherRows, first, n);
      clean_rows<kTogetherRows>(w, t, first, n);
    }
    for (; t < w.n_rows; ++t) clean_rows<1>(w, t, first, n);
  }

  template <int kRows>
  void clean_rows(const RunWindow& w, std::int64_t row, std::int64_t first, std::int64_t n) const {
    alignas(64) float values[kRows][kPiece];
    for (int j = 0; j < kRows; ++j) {
      Bits chosen[kPiece];
      const Bits* from = chosen;
      if (run.columns != nullptr)
        choose(chosen, raw(w, row + j, 0), first, n);
      else
        from = raw(w, row + j, first);
      const float* origin = run.origin + first;
      float* to = values[j];
      with_stored<Bits>(run.type, scale, [&](auto value) {
        for (std::int64_t c = 0; c < n; ++c) to[c] = value(from[c]) - origin[c];
        return n;
      });
    }
    clean<kRows>(w.first + row, first, n, values);
    for (int j = 0; j < kRows; ++j) {
      unsigned char* to = out(w, row + j, first);
      if (p.decoded == DecodedType::f32)
        copy(reinterpret_cast<float*>(to), values[j], n);
      else
        put(to, values[j], n, [](float x) { return x; });
    }
  }

  // As put, from values that are in L1 already: emit would copy them there once more.
  void copy(float* to, const float* values, std::int64_t n) const {
    constexpr std::int64_t kLine = kLineBytes / static_cast<std::int64_t>(sizeof(float));
    std::int64_t i = 0;
    if (streamed) {
      const auto head = static_cast<std::int64_t>(-reinterpret_cast<std::uintptr_t>(to) % kLineBytes) /
                        static_cast<std::int64_t>(sizeof(float));
      for (; i < head && i < n; ++i) to[i] = values[i];
      for (; i + kLine <= n; i += kLine) stream_line(to + i, values + i);
    }
    memcpy(to + i, values + i, static_cast<std::size_t>(n - i) * sizeof(float));
  }

  // Rows that come next: their pieces lie too far apart for the processor to guess.
  void fetch(const RunWindow& w, std::int64_t row, std::int64_t first, std::int64_t n) const {
    for (std::int64_t t = row; t < row + kTogetherRows && t < w.n_rows; ++t) {
      const auto* bytes = reinterpret_cast<const unsigned char*>(raw(w, t, first));
      for (std::int64_t i = 0; i < n * static_cast<std::int64_t>(sizeof(Bits)); i += kLineBytes)
        __builtin_prefetch(bytes + i);
    }
  }

  template <typename In, typename Value>
  std::int64_t put(unsigned char* to, const In* from, std::int64_t n, Value value) const {
    const Target target{to, streamed, true};
    if (p.decoded == DecodedType::f32) return emit<float>(target, from, n, value);
    if (p.decoded == DecodedType::f16)
      return emit<std::uint16_t>(target, from, n, [&](In x) { return half_of(value(x)); });
    return emit<std::uint16_t>(target, from, n, [&](In x) { return bfloat16_of(value(x)); });
  }

  // Zeros where the window reaches beyond its run, and in columns that the run does not have.
  void clear_rest(const RunWindow& w) const {
    const std::int64_t first = begin_of(p.n_columns, part), last = begin_of(p.n_columns, part + 1);
    for (std::int64_t t = -w.before; t < 0; ++t) clear(w, t, first, last);
    for (std::int64_t t = w.n_rows; t < w.n_rows + w.after; ++t) clear(w, t, first, last);
    const std::int64_t missing = first < run.n_columns ? run.n_columns : first;
    if (missing >= last) return;
    for (std::int64_t t = 0; t < w.n_rows; ++t) clear(w, t, missing, last);
  }

  void clear(const RunWindow& w, std::int64_t row, std::int64_t first, std::int64_t last) const {
    memset(out(w, row, first), 0, static_cast<std::size_t>((last - first) * out_bytes()));
  }

  // A value by itself and the trends in their order: the result does not depend on the window or the threads.
  template <int kRows>
  void clean(std::int64_t row, std::int64_t first, std::int64_t n, float (&values)[kRows][kPiece]) const {
    const float* basis = run.basis + row * run.n_basis;
    std::int64_t k = 0;
    for (; k + kTogetherTrends <= run.n_basis; k += kTogetherTrends) subtract(k, basis, first, n, values);
    const float *w = run.coefficients + k * run.n_columns + first, *factor = run.factor + first;
    for (int j = 0; j < kRows; ++j) {
      const float* b = basis + j * run.n_basis + k;
      switch (run.n_basis - k) {
        case 1:
          finish<1>(b, w, w, w, factor, n, values[j]);
          break;
        case 2:
          finish<2>(b, w, w + run.n_columns, w, factor, n, values[j]);
          break;
        case 3:
          finish<3>(b, w, w + run.n_columns, w + 2 * run.n_columns, factor, n, values[j]);
          break;
        default:
          finish<0>(b, w, w, w, factor, n, values[j]);
      }
    }
  }

  // The last trends, fewer than kTogetherTrends, and the factor.
  template <int kTrends>
  static void finish(const float* basis, const float* w0, const float* w1, const float* w2,
                     const float* factor, std::int64_t n, float* __restrict values) {
    const float b0 = kTrends > 0 ? basis[0] : 0, b1 = kTrends > 1 ? basis[1] : 0,
                b2 = kTrends > 2 ? basis[2] : 0;
    for (std::int64_t c = 0; c < n; ++c) {
      float x = values[c];
      if constexpr (kTrends > 0) x -= b0 * w0[c];
      if constexpr (kTrends > 1) x -= b1 * w1[c];
      if constexpr (kTrends > 2) x -= b2 * w2[c];
      values[c] = x * factor[c];
    }
  }

  template <int kRows>
  void subtract(std::int64_t k, const float* basis, std::int64_t first, std::int64_t n,
                float (&values)[kRows][kPiece]) const {
    const float* w0 = run.coefficients + k * run.n_columns + first;
    const float *w1 = w0 + run.n_columns, *w2 = w1 + run.n_columns, *w3 = w2 + run.n_columns;
    for (int j = 0; j + 2 <= kRows; j += 2)
      subtract_from(basis + j * run.n_basis + k, basis + (j + 1) * run.n_basis + k, w0, w1, w2, w3, n,
                    values[j], values[j + 1]);
    if constexpr (kRows == 1) {
      const float b0 = basis[k], b1 = basis[k + 1], b2 = basis[k + 2], b3 = basis[k + 3];
      for (std::int64_t c = 0; c < n; ++c)
        values[0][c] = (((values[0][c] - b0 * w0[c]) - b1 * w1[c]) - b2 * w2[c]) - b3 * w3[c];
    }
  }

  // Two rows at once: each coefficient is loaded once for both.
  static void subtract_from(const float* a, const float* b, const float* w0, const float* w1, const float* w2,
                            const float* w3, std::int64_t n, float* __restrict upper,
                            float* __restrict lower) {
    const float a0 = a[0], a1 = a[1], a2 = a[2], a3 = a[3], b0 = b[0], b1 = b[1], b2 = b[2], b3 = b[3];
    for (std::int64_t c = 0; c < n; ++c) {
      upper[c] = (((upper[c] - a0 * w0[c]) - a1 * w1[c]) - a2 * w2[c]) - a3 * w3[c];
      lower[c] = (((lower[c] - b0 * w0[c]) - b1 * w1[c]) - b2 * w2[c]) - b3 * w3[c];
    }
  }
};

struct WindowGatherer {
  const GatherWindows& p;
  bool streamed;
  std::int64_t n_parts;

  static void run(void* context, std::int64_t task) {
    const WindowGatherer& gatherer = *static_cast<const WindowGatherer*>(context);
    const std::int64_t group = task / gatherer.n_parts, part = task % gatherer.n_parts;
    switch (value_bytes(gatherer.p.windows[gatherer.p.groups[group]].run->type)) {
      case 1:
        return gatherer.gather<std::uint8_t>(group, part);
      case 2:
        return gatherer.gather<std::uint16_t>(group, part);
      case 4:
        return gatherer.gather<std::uint32_t>(group, part);
      default:
        return gatherer.gather<std::uint64_t>(group, part);
    }
  }

  template <typename Bits>
  void gather(std::int64_t group, std::int64_t part) const {
    const RunWindow* windows = p.windows + p.groups[group];
    const StoredRows& run = *windows->run;
    const WindowWriter<Bits> writer{p, run, Scale(run.type, run.slope, run.inter), streamed, part, n_parts};
    writer.write(windows, p.groups[group + 1] - p.groups[group]);
    finish_rows();
  }
};

inline void gather_windows(const GatherWindows& p, int n_threads) {
  std::int64_t n_values = 0;
  for (std::int64_t i = 0; i < p.groups[p.n_groups]; ++i)
    n_values += (p.windows[i].before + p.windows[i].n_rows + p.windows[i].after) * p.n_columns;
  const std::int64_t bytes = p.decoded == DecodedType::f32 ? 4 : 2;
  WindowGatherer gatherer{p, n_values * bytes >= kStreamBatchBytes, 1};
  const int threads = n_values < kParallelValues ? 1 : n_threads;
  // Parts only where there are not groups enough: a window in one piece is written faster.
  const std::int64_t enough = 4 * std::int64_t{threads};
  if (threads > 1 && p.n_groups < enough) gatherer.n_parts = (enough + p.n_groups - 1) / p.n_groups;
  parallel_for(p.n_groups * gatherer.n_parts, threads, &WindowGatherer::run, &gatherer);
}

}  // namespace
}  // namespace NEUROKERN_ISA
}  // namespace neurokern
