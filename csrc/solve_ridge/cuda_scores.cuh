// Sums of scores: a block for each target, and sixteen threads beside each other for each sum.
#pragma once

#include <cstdint>

#include "common/launch.cuh"
#include "solve_ridge/solve_ridge_body.h"

namespace neurokern {
namespace {

constexpr int kScoreThreads = 128, kGroups = kScoreThreads / kSixteen, kTogether = 4;
constexpr std::int64_t kMaxScoreBlocks = 1 << 16;
constexpr unsigned kWholeWarp = 0xFFFFFFFFu;

// What add_sixteen() does, by the sixteen threads that hold the numbers; both halves of a warp at once.
template <class Real>
__device__ double add_lanes(Real sum) {
  NK_UNROLL
  for (int step = kSixteen / 2; step > 0; step /= 2) sum += __shfl_xor_sync(kWholeWarp, sum, step);
  return static_cast<double>(sum);
}

// Combinations m ... m + kTogether - 1 of one sample; 0 for those behind the last.
template <class Real>
__device__ void combine(const RidgeSums& p, const Real* parts, std::int64_t m, Real (&sums)[kTogether]) {
  const auto* const mix = static_cast<const Real*>(p.mix);
  NK_UNROLL
  for (int k = 0; k < kTogether; ++k)
    sums[k] = mix == nullptr && m + k < p.n_penalties ? parts[(m + k) * p.n_samples] : 0;
  if (mix == nullptr) return;
  for (std::int64_t c = 0; c < p.n_parts; ++c) {
    const Real part = parts[c * p.n_samples];
    NK_UNROLL
    for (int k = 0; k < kTogether; ++k)
      if (m + k < p.n_penalties) sums[k] += mix[c * p.n_penalties + m + k] * part;
  }
}

template <class Real>
struct ErrorSums {
  Real errors = 0, guesses = 0, squares = 0, products = 0;

  __device__ void add(const RidgeSums& p, Real combination, Real y, std::int64_t m, std::int64_t r) {
    Real missed = p.residuals ? combination : combination - y;
    if (p.scale != nullptr) missed *= static_cast<const Real*>(p.scale)[m * p.n_samples + r];
    errors += missed * missed;
    if (p.ones == nullptr) return;
    const Real guess = y + missed;
    guesses += static_cast<const Real*>(p.ones)[r] * guess;
    squares += guess * guess;
    products += guess * y;
  }

  // All threads come here; the first of each sixteen writes.
  __device__ void write(const RidgeSums& p, std::int64_t m, bool first_tile, double* sums) const {
    const Real tile[] = {errors, guesses, squares, products};
    const int n = p.ones == nullptr ? 1 : 4;
    for (int k = 0; k < n; ++k) {
      const double total = add_lanes(tile[k]);
      if (threadIdx.x % kSixteen != 0 || m >= p.n_penalties) continue;
      double* const sum = sums + k * p.n_penalties + m;
      *sum = (first_tile ? 0.0 : *sum) + total;
    }
  }
};

template <class Real>
__global__ void __launch_bounds__(kScoreThreads) sum_errors(RidgeSums p) {
  const int lane = static_cast<int>(threadIdx.x) % kSixteen, group = static_cast<int>(threadIdx.x) / kSixteen;
  for (std::int64_t target = blockIdx.x; target < p.n_targets; target += gridDim.x) {
    const Real* const parts = static_cast<const Real*>(p.parts) + target * p.n_parts * p.n_samples;
    double* const sums = p.sums + target * sums_of_target(p);
    for (std::int64_t first = 0; first < p.n_samples; first += kTile)
      for (std::int64_t block = 0; block < p.n_penalties; block += kGroups * kTogether) {
        const std::int64_t m = block + group * kTogether, end = smaller(first + kTile, p.n_samples);
        ErrorSums<Real> found[kTogether];
        for (std::int64_t r = first + lane; r < end; r += kSixteen) {
          Real combinations[kTogether];
          combine(p, parts + r, m, combinations);
          const Real y = p.truth == nullptr ? 0 : static_cast<const Real*>(p.truth)[target * p.n_samples + r];
          NK_UNROLL
          for (int k = 0; k < kTogether; ++k)
            if (m + k < p.n_penalties) found[k].add(p, combinations[k], y, m + k, r);
        }
        NK_UNROLL
        for (int k = 0; k < kTogether; ++k) found[k].write(p, m + k, first == 0, sums);
      }
  }
}

// A tile of all combinations, and of the truth behind them, into shared memory: (vectors, kTile).
template <class Real>
__device__ void combine_tile(const RidgeSums& p, std::int64_t target, std::int64_t first, Real* tile) {
  const int lane = static_cast<int>(threadIdx.x) % kSixteen, group = static_cast<int>(threadIdx.x) / kSixteen;
  const Real* const parts = static_cast<const Real*>(p.parts) + target * p.n_parts * p.n_samples;
  const Real* const truth =
      p.truth == nullptr ? nullptr : static_cast<const Real*>(p.truth) + target * p.n_samples;
  for (std::int64_t i = lane; i < kTile; i += kSixteen) {
    const bool there = first + i < p.n_samples;
    for (std::int64_t m = group * kTogether; m < p.n_penalties; m += kGroups * kTogether) {
      Real combinations[kTogether] = {};
      if (there) combine(p, parts + first + i, m, combinations);
      NK_UNROLL
      for (int k = 0; k < kTogether; ++k)
        if (m + k < p.n_penalties) tile[(m + k) * kTile + i] = combinations[k];
    }
    if (truth != nullptr && group == 0) tile[p.n_penalties * kTile + i] = there ? truth[first + i] : 0;
  }
}

// Pairs (i, j), j <= i, by their place i (i + 1) / 2 + j: groups take turns.
template <class Real>
__global__ void __launch_bounds__(kScoreThreads) sum_pairs(RidgeSums p) {
  NK_DYNAMIC_SHARED(Real, tile);
  const int lane = static_cast<int>(threadIdx.x) % kSixteen, group = static_cast<int>(threadIdx.x) / kSixteen;
  const std::int64_t n_sums = sums_of_target(p);
  for (std::int64_t target = blockIdx.x; target < p.n_targets; target += gridDim.x)
    for (std::int64_t first = 0; first < p.n_samples; first += kTile) {
      combine_tile(p, target, first, tile);
      __syncthreads();
      std::int64_t i = 0;
      for (std::int64_t block = 0; block < n_sums; block += kGroups) {
        const std::int64_t k = block + group;
        while ((i + 1) * (i + 2) / 2 <= k) ++i;
        const std::int64_t j = k - i * (i + 1) / 2;
        Real sum = 0;
        for (int r = lane; k < n_sums && r < kTile; r += kSixteen)
          sum += tile[i * kTile + r] * tile[j * kTile + r];
        const double total = add_lanes(sum);
        double* const out = p.sums + target * n_sums + k;
        if (lane == 0 && k < n_sums) *out = (first == 0 ? 0.0 : *out) + total;
      }
      __syncthreads();
    }
}

template <class Real>
__global__ void __launch_bounds__(kScoreThreads) write_combinations(RidgeSums p) {
  const std::int64_t n_groups = (p.n_penalties + kTogether - 1) / kTogether, n = p.n_samples;
  const std::int64_t n_threads = std::int64_t{gridDim.x} * kScoreThreads;
  for (std::int64_t k = blockIdx.x * std::int64_t{kScoreThreads} + threadIdx.x;
       k < p.n_targets * n_groups * n; k += n_threads) {
    const std::int64_t target = k / n / n_groups, m = k / n % n_groups * kTogether, r = k % n;
    Real combinations[kTogether];
    combine(p, static_cast<const Real*>(p.parts) + target * p.n_parts * n + r, m, combinations);
    NK_UNROLL
    for (int i = 0; i < kTogether; ++i)
      if (m + i < p.n_penalties)
        static_cast<Real*>(p.combinations)[(target * p.n_penalties + m + i) * n + r] = combinations[i];
  }
}

template <class Real>
void launch_sums(const RidgeSums& p, void* stream) {
  const auto blocks = static_cast<unsigned>(smaller(p.n_targets, kMaxScoreBlocks));
  const auto errors = sum_errors<Real>, pairs = sum_pairs<Real>;
  const std::int64_t bytes = n_vectors(p) * kTile * std::int64_t{sizeof(Real)};
  const auto combinations = write_combinations<Real>;
  if (p.combinations != nullptr)
    NK_LAUNCH(combinations, blocks, kScoreThreads, stream, p);
  else if (p.pairs)
    NK_LAUNCH_SHARED(pairs, blocks, kScoreThreads, bytes, stream, p);
  else
    NK_LAUNCH(errors, blocks, kScoreThreads, stream, p);
}

}  // namespace
}  // namespace neurokern
