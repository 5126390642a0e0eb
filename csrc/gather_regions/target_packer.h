// Counts the targets of a sample and writes their positions.
#pragma once

#include <cstdint>

#include "gather_regions/gather_regions.h"

namespace neurokern {
namespace NEUROKERN_ISA {
namespace {

constexpr std::int64_t kSerialCells = 1 << 19;  // about 200 us: threads cost more than they bring

inline int threads_for(const PackTargets& p, int n_threads) {
  return p.n_samples * p.sample_cells < kSerialCells ? 1 : n_threads;
}

void count_sample(void* context, std::int64_t b) {
  const auto& p = *static_cast<const PackTargets*>(context);
  const std::uint8_t* cells = p.target_mask + b * p.sample_cells;
  std::int32_t count = 0;
  for (std::int64_t i = 0; i < p.sample_cells; ++i) count += cells[i];
  p.cu_seqlens[b + 1] = count;
}

// Every cell writes its position where the next target goes, and only a target moves that place on: no branch
// that a random mask could mispredict.
void write_sample(void* context, std::int64_t b) {
  const auto& p = *static_cast<const PackTargets*>(context);
  const std::int64_t first = b * p.sample_cells;
  std::int64_t at = p.cu_seqlens[b], end = p.cu_seqlens[b + 1];
  end = end < p.capacity ? end : p.capacity;
  for (std::int64_t i = first; at < end; ++i) {
    p.index[at] = i;
    at += p.target_mask[i];
  }
}

}  // namespace
}  // namespace NEUROKERN_ISA
}  // namespace neurokern
