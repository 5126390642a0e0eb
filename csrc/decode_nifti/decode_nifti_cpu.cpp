// Decoding on the CPU. A few volumes are decoded together, so many that one value of each fills 8 bytes: the
// mask's runs are woven into such elements, 1 MB for a whole brain, and from there, in cache, the output's
// order costs one load of 8 bytes for several output values.
//
// Compiled once per instruction set (common/isa.h): no STL, nothing with external linkage but the kernel.

#include <cstdlib>
#include <cstring>

#include "common/thread_pool.h"
#include "decode_nifti/cpu_rows.h"
#include "decode_nifti/cpu_weave.h"
#include "decode_nifti/decode_nifti.h"
#include "decode_nifti/decode_nifti_body.h"

namespace neurokern {
namespace NEUROKERN_ISA {
namespace {

constexpr int kMaxThreads = 64;
constexpr std::int64_t kParallelValues = 100000;

template <typename Bits, int kVolumes>
struct Plan {
  const DecodeVolumes& p;
  std::int64_t n_groups, n_tasks;
  DecodeStatus status[kMaxThreads] = {};

  static void run(void* context, std::int64_t task) {
    Plan& plan = *static_cast<Plan*>(context);
    plan.status[task] =
        plan.decode(plan.n_groups * task / plan.n_tasks, plan.n_groups * (task + 1) / plan.n_tasks);
  }

  DecodeStatus decode(std::int64_t first, std::int64_t last) const {
    Weaver<Bits, kVolumes> weaver;
    Rows<Bits, kVolumes> rows;
    DecodeStatus result =
        weaver.allocate(p) && rows.allocate() ? DecodeStatus::ok : DecodeStatus::out_of_memory;
    for (std::int64_t group = first; group < last && result == DecodeStatus::ok; ++group) {
      result = weaver.weave(p, group * kVolumes);
      if (result == DecodeStatus::ok) rows.write(p, weaver.elements, group * kVolumes);
    }
    weaver.release();
    rows.release();
    finish_rows();
    return result;
  }
};

template <typename Bits, int kVolumes>
DecodeStatus run_plan(const DecodeVolumes& p, int n_threads) {
  Plan<Bits, kVolumes> plan{p, (p.n_volumes + kVolumes - 1) / kVolumes, 1};
  if (p.n_volumes * p.n_voxels >= kParallelValues && n_threads > 1) {
    plan.n_tasks = n_threads < kMaxThreads ? n_threads : kMaxThreads;
    plan.n_tasks = plan.n_tasks < plan.n_groups ? plan.n_tasks : plan.n_groups;
  }
  parallel_for(plan.n_tasks, static_cast<int>(plan.n_tasks), &Plan<Bits, kVolumes>::run, &plan);
  for (std::int64_t task = 0; task < plan.n_tasks; ++task)
    if (plan.status[task] != DecodeStatus::ok) return plan.status[task];
  return DecodeStatus::ok;
}

template <typename Bits>
DecodeStatus decode(const DecodeVolumes& p, int n_threads) {
  constexpr int kTogether = 8 / static_cast<int>(sizeof(Bits));
  // A group's missing volumes are work for nothing: the last volume is decoded in their place.
  return p.n_volumes < kTogether ? run_plan<Bits, 1>(p, n_threads) : run_plan<Bits, kTogether>(p, n_threads);
}

}  // namespace

DecodeStatus decode_volumes_cpu(const DecodeVolumes& p, int n_threads) {
  if (p.n_volumes == 0 || p.n_voxels == 0) return DecodeStatus::ok;
  switch (value_bytes(p.type)) {
    case 1:
      return decode<std::uint8_t>(p, n_threads);
    case 2:
      return decode<std::uint16_t>(p, n_threads);
    case 4:
      return decode<std::uint32_t>(p, n_threads);
    default:
      return decode<std::uint64_t>(p, n_threads);
  }
}

}  // namespace NEUROKERN_ISA
}  // namespace neurokern
