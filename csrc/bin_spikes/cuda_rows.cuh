// In which row of an item a spike lies: by a product where bins are equal, and by the rule of
// bin_spikes_body.h close to an edge. A division of doubles costs as much as the rest of a spike.
#pragma once

#include "bin_spikes/bin_spikes_body.h"
#include "bin_spikes/cuda_tile.cuh"

namespace neurokern {
namespace {

constexpr int kTogether = 6;                               // spikes of a thread that are loaded at once
constexpr std::int64_t kMostRows = std::int64_t{1} << 30;  // rows are 32-bit numbers

// The rule itself, for rows [row, end) of a window.
template <typename T>
__device__ std::int64_t row_by_rule(const BinSpikes& p, T start, T t, std::int64_t row, std::int64_t end) {
  if (p.edges != nullptr) {
    if (!(t >= bin_edge(p, start, row)) || !(t < bin_limit(p, start, end))) return -1;
    return search_bin(p, start, t, row, end) - row;
  }
  const std::int64_t bin = bin_of(p, start, t);
  return bin >= row && bin < end ? bin - row : -1;
}

constexpr int kOutside = -1, kNearEdge = -2;

// quick(t): the row of time t counted from `row`, kOutside, or kNearEdge if the rule must say.
// exact(p, t): the row, or a negative number.
template <typename T>
struct Rows;

template <>
struct Rows<double> {
  double start, origin, scale, bound, end;
  std::int64_t row, row_end;
  bool usable, closed_end;

  __device__ Rows(const BinSpikes& p, double window_start, std::int64_t first_row, std::int64_t rows)
      : start(window_start),
        scale(p.step_is_rate ? p.step : 1 / p.step),
        row(first_row),
        row_end(first_row + rows),
        closed_end(p.closed_last && first_row + rows == p.n_bins) {
    const double n = static_cast<double>(first_row);
    origin = window_start - p.tolerance + (p.step_is_rate ? n / p.step : n * p.step);
    // Edges, times and the product are each rounded a few times, relative to the largest time and bin.
    const double last = plain_edge(p, start, p.n_bins);
    const double reach = (start < 0 ? -start : start) + (last < 0 ? -last : last) + p.tolerance;
    const double slack = 16 * 2.3e-16 * (scale * reach + static_cast<double>(p.n_bins));
    bound = 0.5 - slack;
    end = static_cast<double>(rows) + slack;
    usable = p.edges == nullptr && slack < 0.01 && p.n_bins < kMostRows;
  }

  __device__ std::int64_t exact(const BinSpikes& p, double t) const {
    return usable_start(start) ? row_by_rule(p, start, t, row, row_end) : kOutside;
  }
  __device__ int quick(double t) const {
    if (!usable) return kNearEdge;
    const double x = (t - origin) * scale;
    // NaN lands in the first case. How far behind the last edge a closed end reaches, the rule knows.
    if (!(x > -0.5 && x < end)) return closed_end && x >= end ? kNearEdge : kOutside;
    const int r = static_cast<int>(x);
    const double middle = x - static_cast<double>(r) - 0.5;  // below -1/2 for a spike just before the rows
    return middle > -bound && middle < bound ? r : kNearEdge;
  }
};

template <>
struct Rows<std::int64_t> {
  std::int64_t start, row, n_rows, first_sample = 0;
  std::uint64_t span = 0;
  double scale, offset = 0;
  bool usable, closed_end;

  // With half a step of the smallest fraction added, no quotient of integers comes near an edge.
  __device__ Rows(const BinSpikes& p, std::int64_t window_start, std::int64_t first_row, std::int64_t rows)
      : start(window_start),
        row(first_row),
        n_rows(rows),
        scale(static_cast<double>(p.width_denominator) / static_cast<double>(p.width_numerator)),
        usable(p.edges == nullptr && usable_start(window_start) && rows > 0 &&
               p.width_numerator / p.width_denominator < (std::int64_t{1} << 30) / rows &&
               p.width_numerator < (std::int64_t{1} << 48) / rows),
        closed_end(p.closed_last && first_row + rows == p.n_bins) {
    if (!usable) return;
    first_sample = bin_edge(p, start, row);
    span = static_cast<std::uint64_t>(bin_edge(p, start, row + rows) - first_sample);
    const std::int64_t ahead = (first_sample - start) * p.width_denominator - row * p.width_numerator;
    offset = (static_cast<double>(ahead) + 0.5) / static_cast<double>(p.width_numerator);
  }

  __device__ std::int64_t exact(const BinSpikes& p, std::int64_t t) const {
    return usable_start(start) ? row_by_rule(p, start, t, row, row + n_rows) : kOutside;
  }
  __device__ int quick(std::int64_t t) const {
    if (!usable) return kNearEdge;
    // Unsigned: a sample before the rows is huge.
    const std::uint64_t distance = static_cast<std::uint64_t>(t) - static_cast<std::uint64_t>(first_sample);
    if (distance < span)
      return static_cast<int>(static_cast<double>(static_cast<std::uint32_t>(distance)) * scale + offset);
    return closed_end && distance == span ? kNearEdge : kOutside;
  }
};

// A train's spikes: [first, end). In bounds whatever the ends are.
struct Train {
  std::int64_t id = 0, first = 0, end = 0;

  Train() = default;
  __device__ Train(const BinSpikes& p, std::int64_t train) : id(train) {
    first = train > 0 ? clamp(p, p.train_ends[train - 1]) : 0;
    end = train < p.n_trains ? clamp(p, p.train_ends[train]) : p.n_spikes;
  }
  static __device__ std::int64_t clamp(const BinSpikes& p, std::int64_t end) {
    return end < 0 ? 0 : end > p.n_spikes ? p.n_spikes : end;
  }
};

// Where the ids of spikes come from.
enum class Ids { none, units, trains };

__device__ std::int64_t unit_id(const BinSpikes& p, std::int64_t i) {
  return p.wide_units ? static_cast<const std::int64_t*>(p.units)[i]
                      : static_cast<const std::int32_t*>(p.units)[i];
}

// The train that spike i is in: most often `last`, that of the spike asked for before.
__device__ std::int64_t train_id(const BinSpikes& p, std::int64_t i, Train& last) {
  if (i >= last.first && i < last.end) return last.id;
  std::int64_t low = 0, high = p.n_trains;
  while (low < high) {
    const std::int64_t middle = low + (high - low) / 2;
    if (p.train_ends[middle] <= i) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  last = Train(p, low);
  return low;
}

// A block's threads call found(id, row) for the spikes in [first, end) that lie in the rows. True if this
// thread was to check the order and saw a spike later than the next.
//
// A thread has the loads of kTogether spikes under way before it uses any, without a branch between them:
// behind the last spike it loads its first again. Those near an edge come last and are read again, so that
// their divisions are compiled once and hold no registers meanwhile.
template <Ids kIds, typename T, typename Found>
__device__ bool for_spikes(const BinSpikes& p, const Rows<T>& rows, std::int64_t first, std::int64_t end,
                           bool checks_order, const Found& found) {
  const T* times = static_cast<const T*>(p.times);
  bool wrong = false;
  Train train;
  for (std::int64_t i = first + threadIdx.x; i < end; i += kTogether * kThreads) {
    const std::int64_t left = end - i, next_left = p.n_spikes - 1 - i;
    T time[kTogether];
    std::int64_t id[kTogether];
    NK_UNROLL
    for (int j = 0; j < kTogether; ++j) {
      const std::int64_t at = i + (j * kThreads < left ? j * kThreads : 0);
      time[j] = times[at];
      id[j] = kIds == Ids::units ? unit_id(p, at) : 0;
    }
    if (checks_order) {
      NK_UNROLL
      for (int j = 0; j < kTogether; ++j) {
        const int ahead = j * kThreads < left ? j * kThreads : 0;
        wrong |= !(time[j] <= times[i + ahead + (ahead < next_left ? 1 : 0)]);
      }
    }
    unsigned near_edge = 0;
    NK_UNROLL
    for (int j = 0; j < kTogether; ++j) {
      if (j * kThreads >= left) continue;
      const int row = rows.quick(time[j]);
      near_edge |= (row == kNearEdge ? 1u : 0u) << j;
      if (row < 0) continue;
      if (kIds == Ids::trains) id[j] = train_id(p, i + j * kThreads, train);
      found(id[j], static_cast<std::int64_t>(row));
    }
    for (; near_edge != 0; near_edge &= near_edge - 1) {
      const std::int64_t at = i + (__ffs(static_cast<int>(near_edge)) - 1) * kThreads;
      const std::int64_t row = rows.exact(p, times[at]);
      if (row < 0) continue;
      found(kIds == Ids::none ? 0 : kIds == Ids::units ? unit_id(p, at) : train_id(p, at, train), row);
    }
  }
  return wrong;
}

}  // namespace
}  // namespace neurokern
