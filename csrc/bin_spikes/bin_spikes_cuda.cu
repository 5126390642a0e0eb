// Counting on the GPU. Counts are integers added in shared memory, so that neither the order of the spikes
// nor that of the threads shows in the result, and each element of the output is written once. Kernels follow
// each other on the stream; none waits for the host. Those that the data make needless read a flag and leave.
//   begin, check_order   several windows: are the spikes sorted?
//   find_ranges          where the spikes of each range of rows lie, by search
//   count_items          a block of threads counts and stores a range of rows
//   count_heavy          ranges with very many spikes, by all blocks
//   size_buckets, fill_buckets, count_items, count_heavy   one window, unsorted spikes
//   store_heavy          what count_heavy counted

#include <cstdint>

#include "bin_spikes/bin_spikes.h"
#include "bin_spikes/cuda_plan.h"
#include "bin_spikes/cuda_sorted.cuh"
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
void count_in_order(const BinSpikes& p, const CountPlan& plan, std::int64_t* report, void* stream) {
  const std::int64_t n_ends = plan.scans_all ? 0 : p.n_windows * (plan.row_items + 1);
  if (plan.checks_before || plan.scans_all) NK_LAUNCH(begin, 1, kThreads, stream, p, plan, report);
  if (plan.checks_before)
    NK_LAUNCH(check_order<T>, blocks_for(p.n_spikes, kThreads, kStreamingBlocks), kThreads, stream, p, plan);
  if (!plan.scans_all)
    NK_LAUNCH(find_ranges<T>, blocks_for(n_ends * 32, kThreads, kMaxBlocks), kThreads, stream, p, plan,
              report, !plan.checks_before);
  count_by<Spikes<T>>(p, plan, report, stream);
}

template <typename T>
void count_partitioned(const BinSpikes& p, const CountPlan& plan, std::int64_t* report, void* stream) {
  const std::size_t n_buckets = static_cast<std::size_t>(plan.n_buckets);
  const unsigned n_shares = static_cast<unsigned>(plan.n_shares);
  NK_LAUNCH_SHARED(size_buckets<T>, n_shares, kThreads, n_buckets * sizeof(std::uint32_t), stream, p, plan,
                   report);
  NK_LAUNCH_SHARED(fill_buckets<T>, n_shares, kThreads,
                   n_buckets * (sizeof(std::int64_t) + sizeof(std::uint32_t)), stream, p, plan, report);
  count_by<Keys>(p, plan, report, stream);
}

template <typename T>
void count_all(const BinSpikes& p, const CountPlan& plan, std::int64_t* report, void* stream) {
  if (p.order == SpikeOrder::unsorted && plan.may_partition) {
    NK_LAUNCH(begin, 1, kThreads, stream, p, plan, report);
  } else {
    count_in_order<T>(p, plan, report, stream);
  }
  if (plan.may_partition) count_partitioned<T>(p, plan, report, stream);
  if (plan.n_slots > 0)
    NK_LAUNCH(store_heavy, static_cast<unsigned>(plan.n_slots) * kBlocksPerSlot, kThreads, stream, p, plan,
              report);
}

}  // namespace

std::int64_t bin_spikes_cuda_workspace(const BinSpikes& p, const CudaLimits& limits) {
  return make_plan(p, limits, nullptr).bytes;
}

void bin_spikes_cuda(const BinSpikes& p, const CudaLimits& limits, void* workspace, std::int64_t* report,
                     void* stream) {
  const CountPlan plan = make_plan(p, limits, workspace);
  if (plan.n_items == 0) {
    NK_LAUNCH(begin, 1, kThreads, stream, p, plan, report);
  } else if (p.integer_times) {
    count_all<std::int64_t>(p, plan, report, stream);
  } else {
    count_all<double>(p, plan, report, stream);
  }
}

}  // namespace neurokern
