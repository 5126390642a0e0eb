// Counting on the GPU. Counts are integers added in shared memory, so that neither the order of the spikes
// nor that of the threads shows in the result, and each element of the output is written once. Kernels follow
// each other on the stream; none waits for the host. Those that the data make needless read a flag and leave.
//   begin, check_order   several windows: are the spikes sorted?
//   find_ranges          where the spikes of each range of rows lie, by search
//   count_items          a block of threads counts and stores a range of rows
//   count_heavy          ranges with very many spikes, by all blocks
//   size_buckets, fill_buckets, count_items, count_heavy   one window, unsorted spikes or trains
//   store_heavy          what count_heavy counted
//   smooth_gaussian, smooth_exponential, repair_exponential

#include <cstdint>

#include "bin_spikes/bin_spikes.h"
#include "bin_spikes/cuda_plan.h"
#include "bin_spikes/cuda_smooth.cuh"
#include "bin_spikes/cuda_sorted.cuh"
#include "bin_spikes/cuda_trains.cuh"
#include "bin_spikes/cuda_unsorted.cuh"
#include "common/launch.cuh"

namespace neurokern {
namespace {

constexpr unsigned kMaxBlocks = 1u << 16;    // kernels stride over the rest
constexpr unsigned kStreamingBlocks = 1056;  // eight for each multiprocessor of an H100
constexpr unsigned kHeavyBlocks = 264;       // two: each adds a whole tile to global memory

unsigned blocks_for(std::int64_t n_items, int per_block, unsigned most) {
  const unsigned blocks = grid_size(n_items, per_block);
  return blocks < most ? blocks : most;
}

template <typename Source>
void count_by(const BinSpikes& p, const CountPlan& plan, std::int64_t* report, void* stream) {
  const std::size_t bytes = static_cast<std::size_t>(plan.tile_words) * sizeof(std::uint32_t);
  NK_LAUNCH_SHARED(count_items<Source>, blocks_for(plan.n_items, 1, kMaxBlocks), kThreads, bytes, stream, p,
                   plan, report);
  if (plan.n_slots > 0)
    NK_LAUNCH_SHARED(count_heavy<Source>, kHeavyBlocks, kThreads, bytes, stream, p, plan, report);
}

template <typename T>
void check_before(const BinSpikes& p, const CountPlan& plan, std::int64_t* report, void* stream) {
  NK_LAUNCH(begin, 1, kThreads, stream, p, plan, report);
  if (plan.checks_before)
    NK_LAUNCH(check_order<T>, blocks_for(p.n_spikes, kThreads, kStreamingBlocks), kThreads, stream, p, plan);
}

template <typename T>
void count_in_order(const BinSpikes& p, const CountPlan& plan, std::int64_t* report, void* stream) {
  if (plan.checks_before || plan.scans_all || p.train_ends != nullptr)
    check_before<T>(p, plan, report, stream);
  if (!plan.scans_all && p.train_ends == nullptr) {
    const std::int64_t n_ends = p.n_windows * (plan.row_items + 1);
    NK_LAUNCH(find_ranges<T>, blocks_for(n_ends * 32, kThreads, kMaxBlocks), kThreads, stream, p, plan,
              report, !plan.checks_before);
  }
  if (p.train_ends == nullptr) return count_by<Spikes<T, Ids::units>>(p, plan, report, stream);
  if (!plan.scans_all) count_by<Trains<T>>(p, plan, report, stream);
  if (plan.scans_all || plan.checks_before) count_by<Spikes<T, Ids::trains>>(p, plan, report, stream);
}

template <typename T>
void count_partitioned(const BinSpikes& p, const CountPlan& plan, std::int64_t* report, void* stream) {
  const std::size_t n_buckets = static_cast<std::size_t>(plan.n_buckets);
  const unsigned n_shares = static_cast<unsigned>(plan.n_shares);
  NK_LAUNCH_SHARED(size_buckets<T>, n_shares, kThreads, n_buckets * sizeof(std::uint32_t), stream, p, plan,
                   report);
  const auto fill = p.train_ends == nullptr ? fill_buckets<T, Ids::units> : fill_buckets<T, Ids::trains>;
  NK_LAUNCH_SHARED(fill, n_shares, kThreads, n_buckets * (sizeof(std::int64_t) + sizeof(std::uint32_t)),
                   stream, p, plan, report);
  count_by<Keys>(p, plan, report, stream);
}

template <typename T>
void count_all(const BinSpikes& p, const CountPlan& plan, std::int64_t* report, void* stream) {
  if (plan.only_partitions) {
    NK_LAUNCH(begin, 1, kThreads, stream, p, plan, report);
  } else {
    count_in_order<T>(p, plan, report, stream);
  }
  if (plan.may_partition) count_partitioned<T>(p, plan, report, stream);
  if (plan.n_slots > 0)
    NK_LAUNCH(store_heavy, static_cast<unsigned>(plan.n_slots) * kBlocksPerSlot, kThreads, stream, p, plan,
              report);
}

void count(const BinSpikes& p, const CountPlan& plan, std::int64_t* report, void* stream) {
  if (plan.n_items == 0) {
    NK_LAUNCH(begin, 1, kThreads, stream, p, plan, report);
  } else if (p.integer_times) {
    count_all<std::int64_t>(p, plan, report, stream);
  } else {
    count_all<double>(p, plan, report, stream);
  }
}

void smooth(const BinSpikes& p, const SmoothPlan& plan, void* stream) {
  const std::int64_t n_columns = p.n_windows * p.n_units;
  if (p.smoothing == Smoothing::exponential) {
    NK_LAUNCH(smooth_exponential, blocks_for(n_columns * plan.n_chunks, kThreads, kMaxBlocks), kThreads,
              stream, p, plan);
    if (plan.n_chunks > 1)
      NK_LAUNCH(repair_exponential, blocks_for(n_columns, 32, kMaxBlocks), 32, stream, p, plan);
    return;
  }
  const std::int64_t taps = least(p.n_weights, p.n_bins);  // those further out meet nothing but zeros
  const std::int64_t tiles = parts(p.n_bins, kRowsOfBlock) * parts(p.n_units, kColumns) * p.n_windows;
  const unsigned blocks = blocks_for(tiles, 1, kMaxBlocks);
  if (taps <= kMostTapsShared) {
    const std::int64_t cells = (kRowsOfBlock + 2 * (taps - 1)) * kColumns;
    NK_LAUNCH_SHARED(smooth_gaussian<true>, blocks, kThreads, static_cast<std::size_t>(cells) * sizeof(float),
                     stream, p, plan, taps);
  } else {
    NK_LAUNCH(smooth_gaussian<false>, blocks, kThreads, stream, p, plan, taps);
  }
}

}  // namespace

std::int64_t bin_spikes_cuda_workspace(const BinSpikes& p, const CudaLimits& limits) {
  Workspace workspace(nullptr);
  make_plan(p, limits, workspace);
  make_smooth_plan(p, limits, workspace);
  return workspace.bytes();
}

void bin_spikes_cuda(const BinSpikes& p, const CudaLimits& limits, void* memory, std::int64_t* report,
                     void* stream) {
  Workspace workspace(memory);
  const CountPlan plan = make_plan(p, limits, workspace);
  const SmoothPlan smooth_plan = make_smooth_plan(p, limits, workspace);
  if (p.smoothing == Smoothing::none) return count(p, plan, report, stream);
  BinSpikes counted = p;
  counted.counts = smooth_plan.counts;
  counted.count_type = CountType::f32;
  count(counted, plan, report, stream);
  if (p.n_windows * p.n_bins * p.n_units > 0) smooth(p, smooth_plan, stream);
}

}  // namespace neurokern
