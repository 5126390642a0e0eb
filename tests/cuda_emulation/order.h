// Which accesses of a launch come before which, whatever the hardware does: by barriers alone.
//
// The clock of a block ticks at every barrier. An access is stamped with its thread and the time. It is over
// for a thread of the same block if __syncthreads came since, or, within a warp, if its thread has since met
// this one in __syncwarp, itself or by way of others (a vector clock per lane). Blocks have no order among
// each other.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace cuda_emulation {

struct Stamp {
  std::uint32_t thread = 0;  // of the launch, from 1 on; 0: no access yet
  std::uint32_t time = 0;
};

class Order {
 public:
  void start_block(std::size_t number, std::size_t threads) {
    first_ = static_cast<std::uint32_t>(number * threads) + 1;
    n_threads_ = static_cast<std::uint32_t>(threads);
    time_ = 1;
    block_time_ = 0;
    if (lanes_met_ || met_.size() != threads) met_.assign(threads, {});
    lanes_met_ = false;
  }

  Stamp stamp(unsigned thread) const { return {first_ + thread, time_}; }

  bool is_over(Stamp before, unsigned thread) const {
    if (before.thread == 0 || before.thread == first_ + thread) return true;
    if (before.thread < first_ || before.thread >= first_ + n_threads_) return false;
    if (before.time < block_time_) return true;
    const std::uint32_t other = before.thread - first_;
    return other / 32 == thread / 32 && before.time < met_[thread][other % 32];
  }

  void meet_block() { block_time_ = ++time_; }

  void meet_lanes(unsigned first, unsigned mask) {
    lanes_met_ = true;
    ++time_;
    std::array<std::uint32_t, 32> latest{};
    for (unsigned lane = 0; lane < 32; ++lane) {
      if (!(mask >> lane & 1)) continue;
      const auto& known = met_[first + lane];
      for (unsigned other = 0; other < 32; ++other)
        latest[other] = latest[other] < known[other] ? known[other] : latest[other];
    }
    for (unsigned lane = 0; lane < 32; ++lane)
      if (mask >> lane & 1) latest[lane] = time_;
    for (unsigned lane = 0; lane < 32; ++lane)
      if (mask >> lane & 1) met_[first + lane] = latest;
  }

 private:
  std::uint32_t first_ = 1, n_threads_ = 0, time_ = 1, block_time_ = 0;
  bool lanes_met_ = false;
  std::vector<std::array<std::uint32_t, 32>>
      met_;  // [thread][lane]: when it last knew what the lane had done
};

}  // namespace cuda_emulation
