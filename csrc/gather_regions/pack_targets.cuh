// Packed positions of the targets in three kernels: count by chunks, sum the counts, write.
//
// A chunk is what a block reads, 16 cells a thread, within one sample. The second kernel is a single block:
// what stands before a chunk must be known before it can be written, and blocks that wait for each other
// within a launch would hang where not all of them run at once.
#pragma once

#include <cstdint>

#include "common/launch.cuh"
#include "gather_regions/block_sums.cuh"
#include "gather_regions/gather_regions.h"

namespace neurokern {
namespace {

constexpr int kChunkThreads = 256, kSumThreads = 1024;
constexpr int kThreadCells = 16;
constexpr int kChunkCells = (kChunkThreads - 1) * kThreadCells;  // one thread's worth is lost to alignment

struct alignas(16) Cells {
  std::uint32_t word[kThreadCells / 4];
};

struct Chunk {
  std::int64_t sample, first;  // cells of the sample before the chunk
  int n_cells;
};

__device__ Chunk chunk_of(const PackTargets& p, std::int64_t number) {
  const std::int64_t per_sample = (p.sample_cells + kChunkCells - 1) / kChunkCells;
  Chunk chunk{number / per_sample, number % per_sample * kChunkCells, 0};
  const std::int64_t left = p.sample_cells - chunk.first;
  chunk.n_cells = left < kChunkCells ? static_cast<int>(left) : kChunkCells;
  return chunk;
}

// Bit 7 of each byte that is not 0.
__device__ std::uint32_t nonzero_bytes(std::uint32_t word) {
  return (((word & 0x7F7F7F7Fu) + 0x7F7F7F7Fu) | word) & 0x80808080u;
}

// The targets among this thread's 16 cells: bit i is cell `first` + i of the chunk.
struct Targets {
  int first;
  std::uint32_t bits;
};

__device__ Targets read_targets(const PackTargets& p, const Chunk& chunk) {
  const std::uint8_t* cells = p.target_mask + chunk.sample * p.sample_cells + chunk.first;
  const int phase = static_cast<int>(reinterpret_cast<std::uintptr_t>(cells) % kThreadCells);
  Targets targets{static_cast<int>(threadIdx.x) * kThreadCells - phase, 0};
  if (targets.first >= 0 && targets.first + kThreadCells <= chunk.n_cells) {
    const Cells read = *reinterpret_cast<const Cells*>(cells + targets.first);
#pragma unroll
    for (int k = 0; k < kThreadCells / 4; ++k) {
      const std::uint32_t set = nonzero_bytes(read.word[k]) >> 7;  // a bit in each byte; gather them into 4
      targets.bits |= ((set * 0x10204080u) >> 28) << (4 * k);
    }
    return targets;
  }
  for (int i = 0; i < kThreadCells; ++i) {
    const int cell = targets.first + i;
    if (cell >= 0 && cell < chunk.n_cells && cells[cell] != 0) targets.bits |= 1u << i;
  }
  return targets;
}

__global__ void __launch_bounds__(kChunkThreads) count_chunks(PackTargets p, std::int64_t n_chunks) {
  NK_SHARED(int, of_warps, kChunkThreads / kWarp);
  for (std::int64_t number = blockIdx.x; number < n_chunks; number += gridDim.x) {
    const Targets targets = read_targets(p, chunk_of(p, number));
    const int total = block_prefix<kChunkThreads>(__popc(targets.bits), of_warps).total;
    if (threadIdx.x == 0) p.chunk_starts[number] = total;
    __syncthreads();
  }
}

// Turns the counts of the chunks into the number of targets before each, and fills cu_seqlens. One block.
__global__ void __launch_bounds__(kSumThreads) sum_chunks(PackTargets p, std::int64_t n_chunks) {
  NK_SHARED(int, of_warps, kSumThreads / kWarp);
  const std::int64_t per_sample = (p.sample_cells + kChunkCells - 1) / kChunkCells;
  int total = 0;
  for (std::int64_t first = 0; first < n_chunks; first += kSumThreads) {
    const std::int64_t i = first + threadIdx.x;
    const Prefix sum = block_prefix<kSumThreads>(i < n_chunks ? p.chunk_starts[i] : 0, of_warps);
    if (i < n_chunks) {
      p.chunk_starts[i] = total + sum.before;
      if (i % per_sample == 0) p.cu_seqlens[i / per_sample] = total + sum.before;
    }
    total += sum.total;
    __syncthreads();
  }
  if (n_chunks == 0)
    for (std::int64_t b = threadIdx.x; b < p.n_samples; b += kSumThreads) p.cu_seqlens[b] = 0;
  if (threadIdx.x == 0) p.cu_seqlens[p.n_samples] = total;
}

// A block collects its chunk's targets in shared memory, so that neighbouring threads write neighbouring
// positions.
__global__ void __launch_bounds__(kChunkThreads) write_chunks(PackTargets p, std::int64_t n_chunks) {
  NK_SHARED(int, of_warps, kChunkThreads / kWarp);
  NK_SHARED(std::uint16_t, cells, kChunkCells);
  for (std::int64_t number = blockIdx.x; number < n_chunks; number += gridDim.x) {
    const Chunk chunk = chunk_of(p, number);
    const Targets targets = read_targets(p, chunk);
    const Prefix place = block_prefix<kChunkThreads>(__popc(targets.bits), of_warps);
    int at = place.before;
    for (std::uint32_t bits = targets.bits; bits != 0; bits &= bits - 1)
      cells[at++] = static_cast<std::uint16_t>(targets.first + __ffs(static_cast<int>(bits)) - 1);
    __syncthreads();
    const std::int64_t start = p.chunk_starts[number], room = p.capacity - start;
    const std::int64_t cell = chunk.sample * p.sample_cells + chunk.first;
    for (int i = static_cast<int>(threadIdx.x); i < place.total && i < room; i += kChunkThreads)
      p.index[start + i] = cell + cells[i];
  }
  const std::int64_t step = std::int64_t{gridDim.x} * kChunkThreads;
  std::int64_t i = p.cu_seqlens[p.n_samples] + std::int64_t{blockIdx.x} * kChunkThreads + threadIdx.x;
  for (; i < p.capacity; i += step) p.index[i] = -1;
}

}  // namespace
}  // namespace neurokern
