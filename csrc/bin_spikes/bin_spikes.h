// bin_spikes: count the spikes of each unit in equal (or given), half-open time bins.
#pragma once

#include <cstdint>

#include "common/isa.h"

namespace neurokern {

enum class CountType : int { u8, i16, u16, i32, i64, f16, bf16, f32, f64 };
enum class SpikeOrder : int { unknown, claimed_sorted, unsorted };  // of each train, if there are trains
enum class Smoothing : int { none, gaussian, exponential };

// All pointers are the caller's and are read or written only for the time of the call. `times`, `starts` and
// `edges` are double seconds, or int64 samples if `integer_times`.
struct BinSpikes {
  const void* times;   // (n_spikes,), any order, NaN allowed
  const void* units;   // (n_spikes,), int32, or int64 if `wide_units`; null: see `train_ends`
  const void* starts;  // (n_windows,), or null: one window at `start` or `first_sample`
  const void* edges;   // (n_bins + 1,), not decreasing, or null: equal bins; never with `starts`
  const std::int64_t*
      unit_map;  // (n_ids,), id -> column or a negative number to drop it; null: the id is the column
  void* counts;  // (n_windows, n_bins, n_units), written wholly, whatever it held
  std::int64_t n_spikes, n_windows, n_bins, n_units, n_ids;
  double start, step,
      tolerance;  // edge k: start + k / step if `step_is_rate`, else start + k * step; - tolerance
  std::int64_t first_sample;  // edge k: first_sample + ceil(k * width_numerator / width_denominator)
  std::int64_t width_numerator, width_denominator;
  std::int64_t largest_exact;  // largest count that `count_type` holds exactly: counts saturate there
  CountType count_type;
  SpikeOrder order;
  bool integer_times, wide_units, step_is_rate;
  bool closed_last;  // the last bin holds its right edge too
  // Spikes as trains one after the other: the id of spike i is the number of ends <= i. Null: see `units`.
  const std::int64_t* train_ends;  // (n_trains,), not decreasing
  std::int64_t n_trains;
  // Counts, saturated, are smoothed along the bins of each window in float32 and rounded once to a float
  // `count_type`; `smooth_tap` and `smooth_step` of bin_spikes_body.h say in which order.
  Smoothing smoothing;
  const float* weights;  // gaussian: centre, then radius weights outward; exponential: {a, 1 - a}
  std::int64_t n_weights;
};

struct BinSpikesReport {
  std::int64_t outside;   // without `starts`: spikes in no bin
  std::int64_t unknown;   // spikes in a bin, once per window: id negative or beyond the table
  std::int64_t unmapped;  // the same: dropped by unit_map
  std::int64_t largest;   // largest single count, before saturation
  std::int64_t out_of_memory;
};

NK_DECLARE_KERNEL(void bin_spikes_cpu(const BinSpikes& p, int n_threads, BinSpikesReport* report))

// On the GPU: how large the parts are that the work is cut into. The tests make them small, so that small
// problems have many.
struct CudaLimits {
  std::int64_t tile_cells =
      24448;  // 16-bit counters of a block: its 48 KiB of shared memory less what else is there
  std::int64_t wanted_items = 1056;     // parts of the output, 8 for each multiprocessor of an H100
  std::int64_t heavy_spikes = 1 << 17;  // more than these in one part are shared by many blocks
  std::int64_t heavy_slots = 128;       // such parts
  std::int64_t buckets = 2048;          // that unsorted spikes are shared out to
  std::int64_t shares = 1024;           // of the spikes, each shared out by one block
  std::int64_t smooth_chunk = 1024;     // rows that a thread smooths exponentially, ...
  std::int64_t smooth_warm_up = 8192;   // ... and at most so many before them
};

std::int64_t bin_spikes_cuda_workspace(const BinSpikes& p, const CudaLimits& limits);  // bytes

// `report` is four int64 on the device, as in BinSpikesReport without the last; `workspace` is scratch,
// aligned to 256 bytes. Everything goes on `stream`; nothing is allocated, nothing waits.
void bin_spikes_cuda(const BinSpikes& p, const CudaLimits& limits, void* workspace, std::int64_t* report,
                     void* stream);

}  // namespace neurokern
