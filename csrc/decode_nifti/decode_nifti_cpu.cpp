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

int value_bytes(VoxelType type) {
  switch (type) {
    case VoxelType::u8:
    case VoxelType::i8:
      return 1;
    case VoxelType::u16:
    case VoxelType::i16:
      return 2;
    case VoxelType::u32:
    case VoxelType::i32:
    case VoxelType::f32:
      return 4;
    default:
      return 8;
  }
}

struct Plan {
  const DecodeVolumes& p;
  std::int64_t n_groups, n_tasks;
  DecodeStatus* status;

  // Groups of volumes woven together; the last may have fewer, and decodes its last volume again instead.
  static void run(void* context, std::int64_t task) {
    const Plan& plan = *static_cast<const Plan*>(context);
    switch (value_bytes(plan.p.type)) {
      case 1:
        return plan.run_width<std::uint8_t>(task);
      case 2:
        return plan.run_width<std::uint16_t>(task);
      case 4:
        return plan.run_width<std::uint32_t>(task);
      default:
        return plan.run_width<std::uint64_t>(task);
    }
  }

  template <typename Bits>
  void run_width(std::int64_t task) const {
    constexpr int kTogether = kElementBytes / static_cast<int>(sizeof(Bits));
    Weaver<Bits> weaver;
    Rows<Bits> rows;
    if (!weaver.allocate(p) || !rows.allocate(p)) {
      status[task] = DecodeStatus::out_of_memory;
    } else {
      const std::int64_t last = n_groups * (task + 1) / n_tasks;
      for (std::int64_t group = n_groups * task / n_tasks; group < last && status[task] == DecodeStatus::ok;
           ++group) {
        const std::int64_t volume = group * kTogether;
        status[task] = weaver.weave(p, volume);
        if (status[task] == DecodeStatus::ok) rows.write(p, weaver.elements, volume);
      }
    }
    weaver.release();
    rows.release();
    finish_rows();
  }
};

}  // namespace

DecodeStatus decode_volumes_cpu(const DecodeVolumes& p, int n_threads) {
  if (p.n_volumes == 0 || p.n_voxels == 0) return DecodeStatus::ok;
  const std::int64_t together = kElementBytes / value_bytes(p.type);
  const std::int64_t n_groups = (p.n_volumes + together - 1) / together;
  std::int64_t n_tasks = n_threads < kMaxThreads ? n_threads : kMaxThreads;
  if (p.n_volumes * p.n_voxels < kParallelValues || n_tasks < 1) n_tasks = 1;
  if (n_tasks > n_groups) n_tasks = n_groups;
  DecodeStatus status[kMaxThreads] = {};
  Plan plan{p, n_groups, n_tasks, status};
  parallel_for(n_tasks, static_cast<int>(n_tasks), &Plan::run, &plan);
  for (std::int64_t task = 0; task < n_tasks; ++task)
    if (status[task] != DecodeStatus::ok) return status[task];
  return DecodeStatus::ok;
}

}  // namespace NEUROKERN_ISA
}  // namespace neurokern
