// Decoding on the CPU. A few volumes are decoded together, so many that one value of each fills a register of
// 16 bytes: the mask's runs are woven into such elements, 2 MB for a whole brain, and from there, in cache,
// the output's order costs one load of 16 bytes for several output values.
//
// Compiled once per instruction set (common/isa.h): no STL, nothing with external linkage but the kernel.

#include <cstdlib>
#include <cstring>

#include "common/thread_pool.h"
#include "decode_nifti/cpu_clean.h"
#include "decode_nifti/cpu_fit.h"
#include "decode_nifti/cpu_parcels.h"
#include "decode_nifti/cpu_rows.h"
#include "decode_nifti/cpu_weave.h"
#include "decode_nifti/cpu_windows.h"
#include "decode_nifti/decode_nifti.h"
#include "decode_nifti/decode_nifti_body.h"

namespace neurokern {
namespace NEUROKERN_ISA {
namespace {

constexpr int kMaxThreads = 64;

// What becomes of woven elements: rows of voxels, or means of parcels.
template <template <typename, int> class Sink, typename Bits, int kVolumes>
struct Plan {
  const DecodeVolumes& p;
  const ParcelRuns* parcels;
  std::int64_t n_groups, n_tasks;
  DecodeStatus status[kMaxThreads] = {};

  static void run(void* context, std::int64_t task) {
    Plan& plan = *static_cast<Plan*>(context);
    plan.status[task] =
        plan.decode(plan.n_groups * task / plan.n_tasks, plan.n_groups * (task + 1) / plan.n_tasks);
  }

  DecodeStatus decode(std::int64_t first, std::int64_t last) const {
    Weaver<Bits, kVolumes> weaver;
    Sink<Bits, kVolumes> sink;
    DecodeStatus result =
        weaver.allocate(p) && sink.allocate(parcels) ? DecodeStatus::ok : DecodeStatus::out_of_memory;
    for (std::int64_t group = first; group < last && result == DecodeStatus::ok; ++group) {
      result = weaver.weave(p, group * kVolumes);
      if (result == DecodeStatus::ok) sink.write(p, weaver.elements, group * kVolumes);
    }
    weaver.release();
    sink.release();
    finish_rows();
    return result;
  }
};

template <template <typename, int> class Sink, typename Bits, int kVolumes>
DecodeStatus run_plan(const DecodeVolumes& p, const ParcelRuns* parcels, int n_threads) {
  Plan<Sink, Bits, kVolumes> plan{p, parcels, (p.n_volumes + kVolumes - 1) / kVolumes, 1};
  if (p.n_volumes * p.n_voxels >= kParallelValues && n_threads > 1) {
    plan.n_tasks = n_threads < kMaxThreads ? n_threads : kMaxThreads;
    plan.n_tasks = plan.n_tasks < plan.n_groups ? plan.n_tasks : plan.n_groups;
  }
  parallel_for(plan.n_tasks, static_cast<int>(plan.n_tasks), &Plan<Sink, Bits, kVolumes>::run, &plan);
  for (std::int64_t task = 0; task < plan.n_tasks; ++task)
    if (plan.status[task] != DecodeStatus::ok) return plan.status[task];
  return DecodeStatus::ok;
}

template <template <typename, int> class Sink, typename Bits>
DecodeStatus decode_width(const DecodeVolumes& p, const ParcelRuns* parcels, int n_threads) {
  constexpr int kTogether = kRegisterBytes / static_cast<int>(sizeof(Bits));
  // A group's missing volumes are work for nothing (the last volume again), but one by one volumes cost four
  // times as much.
  const std::int64_t rest = p.n_volumes % kTogether;
  DecodeVolumes groups = p, singles = p;
  singles.n_volumes = rest == 1 || 4 * rest <= kTogether ? rest : 0;
  groups.n_volumes = p.n_volumes - singles.n_volumes;
  const DecodeStatus status =
      groups.n_volumes == 0 ? DecodeStatus::ok : run_plan<Sink, Bits, kTogether>(groups, parcels, n_threads);
  if (status != DecodeStatus::ok || singles.n_volumes == 0) return status;
  singles.offset += groups.n_volumes * p.volume_values * value_bytes(p.type);
  singles.out = static_cast<unsigned char*>(p.out) +
                groups.n_volumes * p.out_stride * (parcels != nullptr ? 4 : decoded_bytes(p));
  return run_plan<Sink, Bits, 1>(singles, parcels, n_threads);
}

template <template <typename, int> class Sink>
DecodeStatus decode(const DecodeVolumes& p, const ParcelRuns* parcels, int n_threads) {
  if (p.n_volumes == 0 || p.n_voxels == 0) return DecodeStatus::ok;
  switch (value_bytes(p.type)) {
    case 1:
      return decode_width<Sink, std::uint8_t>(p, parcels, n_threads);
    case 2:
      return decode_width<Sink, std::uint16_t>(p, parcels, n_threads);
    case 4:
      return decode_width<Sink, std::uint32_t>(p, parcels, n_threads);
    default:
      return decode_width<Sink, std::uint64_t>(p, parcels, n_threads);
  }
}

}  // namespace

DecodeStatus decode_volumes_cpu(const DecodeVolumes& p, int n_threads) {
  return decode<Rows>(p, nullptr, n_threads);
}

DecodeStatus decode_parcels_cpu(const DecodeVolumes& p, const ParcelRuns& parcels, int n_threads) {
  return decode<Parcels>(p, &parcels, n_threads);
}

DecodeStatus clean_columns_cpu(const CleanColumns& p, int n_threads) {
  const std::int64_t n_blocks = (p.n_columns + kBlockColumns - 1) / kBlockColumns;
  if (n_blocks == 0 || p.n_rows == 0) return DecodeStatus::ok;
  Cleaner cleaner{p};
  const int threads = p.n_rows * p.n_columns < kParallelValues ? 1 : n_threads;
  parallel_for(n_blocks, threads, &Cleaner::run, &cleaner);
  return cleaner.out_of_memory != 0 ? DecodeStatus::out_of_memory : DecodeStatus::ok;
}

void gather_windows_cpu(const GatherWindows& p, int n_threads) {
  if (p.n_groups > 0 && p.n_columns > 0) gather_windows(p, n_threads);
}

void fit_columns_cpu(const FitColumns& p, int n_threads) {
  FitAdder adder{p};
  const int threads = p.n_rows * p.n_columns < kParallelValues ? 1 : n_threads;
  parallel_for((p.n_columns + FitAdder::kColumns - 1) / FitAdder::kColumns, threads, &FitAdder::run, &adder);
}

}  // namespace NEUROKERN_ISA
}  // namespace neurokern
