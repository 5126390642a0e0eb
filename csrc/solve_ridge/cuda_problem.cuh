// One problem on one block: the same steps, and in each sum the same order, as solve_ridge_cpu.cpp.
#pragma once

#include <cstdint>

#include "solve_ridge/cuda_tridiagonal.cuh"

namespace neurokern {
namespace {

constexpr int kTargetsAtOnce = 4;

// How shared memory is shared out, for a whole launch.
struct RidgePlan {
  int side, pitch;
  int alpha_lanes;  // a power of 2: so many alphas are scored together
  int targets;      // ... for so many targets
};

// A block's scratch on the device, in doubles.
struct DeviceRoom {
  std::int64_t means, y_means, samples, y, rotated, solution, dual, weights, errors, total;
};

inline DeviceRoom device_room(const RidgeBatch& p) {
  DeviceRoom r{};
  const std::int64_t n = p.n_samples, f = p.n_features, q = p.n_targets, side = smaller(n, f);
  const std::int64_t sizes[] = {f,
                                q,
                                is_primal(n, f) ? n * side : 0,
                                n * q,
                                side * q,
                                side * q,
                                n * q,
                                (f + kEight) * q,
                                p.n_alphas * q};
  std::int64_t* const starts[] = {&r.means,    &r.y_means, &r.samples, &r.y,     &r.rotated,
                                  &r.solution, &r.dual,    &r.weights, &r.errors};
  for (int i = 0; i < 9; ++i) {
    *starts[i] = r.total;
    r.total += sizes[i];
  }
  return r;
}

template <class Real, int kThreads>
struct BlockProblem {
  const RidgeBatch& p;
  const DeviceRoom& at;
  double* room;
  SharedRoom s;
  RidgePlan plan;
  std::int64_t index;
  int n, side;
  bool primal, valid;
  const Real* x;
  double lift;

  __device__ int thread() const { return static_cast<int>(threadIdx.x); }
  __device__ int features() const { return static_cast<int>(p.n_features); }
  __device__ int targets() const { return static_cast<int>(p.n_targets); }
  __device__ const double* samples() const { return primal ? room + at.samples : s.matrix; }
  __device__ int samples_pitch() const { return primal ? side : s.pitch; }
  __device__ double centered(int i, int f) const {
    return static_cast<double>(x[static_cast<std::int64_t>(i) * features() + f]) - room[at.means + f];
  }

  // Calls use(k) for every k < n, shared out to the threads, and lets all wait for all.
  template <class Use>
  __device__ void for_each(std::int64_t count, const Use& use) const {
    for (std::int64_t k = thread(); k < count; k += kThreads) use(k);
    __syncthreads();
  }
};

// ---- Means

template <class Real>
__device__ double mean_of(const Real* column, int n, std::int64_t stride) {
  const double first = static_cast<double>(column[0]);
  double sum = 0;
  for (int i = 1; i < n; ++i) sum += static_cast<double>(column[i * stride]) - first;
  return first + sum * (1 / static_cast<double>(n));
}

// ---- Decomposition

template <class Real, int kThreads>
__device__ void make_gram(const BlockProblem<Real, kThreads>& b) {
  const int count = b.primal ? b.n : b.features();
  double* const tile = b.s.lanes;
  b.for_each(b.side * b.s.pitch, [&](std::int64_t k) { b.s.matrix[k] = 0; });
  for (int first = 0; first < count; first += kGramTile) {
    const int rows = count - first < kGramTile ? count - first : kGramTile;
    b.for_each(rows * b.side, [&](std::int64_t k) {
      // Neighbours in memory are neighbouring features in either form.
      const int r = static_cast<int>(b.primal ? k / b.side : k % rows);
      const int c = static_cast<int>(b.primal ? k % b.side : k / rows);
      tile[r * b.side + c] = b.primal ? b.centered(first + r, c) : b.centered(c, first + r);
    });
    add_tile<kThreads>(b.s, tile, rows, b.side);
    __syncthreads();
  }
}

// False if numbers are not finite, or too large to be squared.
template <class Real, int kThreads>
__device__ bool decompose(BlockProblem<Real, kThreads>& b) {
  b.for_each(b.features(), [&](std::int64_t f) {
    b.room[b.at.means + f] = b.p.fit_intercept ? mean_of(b.x + f, b.n, b.p.n_features) : 0;
  });
  make_gram(b);
  double trace = 0;
  for (int i = 0; i < b.side; ++i) trace += b.s.matrix[i * b.s.pitch + i];
  __syncthreads();
  if (!(trace - trace == 0)) return false;
  const bool lifted = b.p.fit_intercept && !b.primal;
  b.lift = lifted ? lift_of(trace, b.n) : 0;
  if (lifted) b.for_each(b.side * b.s.pitch, [&](std::int64_t k) { b.s.matrix[k] += b.lift; });
  make_tridiagonal<kThreads>(b.s, b.side);
  form_product<kThreads>(b.s, b.side);
  if (b.primal)
    b.for_each(static_cast<std::int64_t>(b.n) * b.side, [&](std::int64_t k) {
      const int i = static_cast<int>(k / b.side), c = static_cast<int>(k % b.side);
      double sum = 0;
      for (int f = 0; f < b.side; ++f) sum += b.centered(i, f) * b.s.matrix[f * b.s.pitch + c];
      b.room[b.at.samples + k] = sum;
    });
  return true;
}

// rotated (side, targets) = samples' values, values (n, targets)
template <class Real, int kThreads>
__device__ void rotate(const BlockProblem<Real, kThreads>& b, const double* values) {
  const int q = b.targets(), pitch = b.samples_pitch();
  const double* const samples = b.samples();
  b.for_each(static_cast<std::int64_t>(b.side) * q, [&](std::int64_t k) {
    const int component = static_cast<int>(k / q), t = static_cast<int>(k % q);
    double sum = 0;
    for (int i = 0; i < b.n; ++i) sum += samples[i * pitch + component] * values[i * q + t];
    b.room[b.at.rotated + k] = sum;
  });
}

// ---- An alpha in each lane of (side, lanes) arrays

__device__ void factorize_lane(const Vectors& t, int side, double alpha, int lanes, double* multipliers,
                               double* inverse_pivots) {
  double inverse = 0;
  for (int k = 0; k < side; ++k) {
    const double off = k > 0 ? t.off[k] : 0, multiplier = off * inverse;
    inverse = 1 / next_pivot(t.diagonal[k], alpha, off, multiplier);
    multipliers[k * lanes] = multiplier;
    inverse_pivots[k * lanes] = inverse;
  }
}

__device__ void substitute_lane(int side, int lanes, const double* multipliers, const double* right,
                                int right_pitch, double* solved) {
  double last = 0;
  for (int k = 0; k < side; ++k) {
    last = right[k * right_pitch] - multipliers[k * lanes] * last;
    solved[k * lanes] = last;
  }
}

// Leave-one-out sums of squares of `count` targets from `target` on, and alphas from `first` on. A thread has
// one alpha and every n_slots-th sample.
template <class Real, int kThreads>
__device__ void score_lanes(const BlockProblem<Real, kThreads>& b, int first, int target, int count) {
  const int lanes = b.plan.alpha_lanes, lane = b.thread() % lanes, slot = b.thread() / lanes;
  const int n_slots = kThreads / lanes, side = b.side, q = b.targets(),
            n_alphas = static_cast<int>(b.p.n_alphas);
  double* const multipliers = b.s.lanes;
  double* const inverse_pivots = multipliers + side * lanes;
  double* const solved = inverse_pivots + side * lanes;  // (targets, side, lanes)
  const Vectors t = vectors_of(b.s, side);
  const double alpha = b.p.alphas[first + lane < n_alphas ? first + lane : n_alphas - 1];
  if (slot == 0) factorize_lane(t, side, alpha, lanes, multipliers + lane, inverse_pivots + lane);
  __syncthreads();
  for (int i = slot; i < count; i += n_slots)
    substitute_lane(side, lanes, multipliers + lane, b.room + b.at.rotated + target + i, q,
                    solved + i * side * lanes + lane);
  __syncthreads();
  const double centering = centering_term(b.primal, b.p.fit_intercept, b.n, alpha, b.lift);
  double sums[kTargetsAtOnce] = {};
  for (int start = 0; start < b.n; start += n_slots) {
    const int i = start + slot;
    double z = 0, leverage = 0, fitted[kTargetsAtOnce] = {};
    if (i < b.n) {
      const double* const row = b.samples() + static_cast<std::int64_t>(i) * b.samples_pitch();
      for (int k = 0; k < side; ++k) {
        z = row[k] - multipliers[k * lanes + lane] * z;
        const double scaled = z * inverse_pivots[k * lanes + lane];
        leverage += scaled * z;
        NK_UNROLL for (int j = 0; j < kTargetsAtOnce; ++j) if (j < count) fitted[j] +=
            scaled * solved[(j * side + k) * lanes + lane];
      }
    }
    const double scale = 1 / (b.primal ? (1 - centering) - leverage : leverage - centering);
    NK_UNROLL for (int j = 0; j < kTargetsAtOnce; ++j) {
      if (j >= count) continue;
      if (i < b.n) {
        const double y = b.room[b.at.y + static_cast<std::int64_t>(i) * q + target + j];
        const double error = (b.primal ? y - fitted[j] : fitted[j]) * scale;
        b.s.squares[slot * lanes + lane] = error * error;
      }
      __syncthreads();
      if (slot == 0)
        for (int k = 0; k < n_slots && start + k < b.n; ++k) sums[j] += b.s.squares[k * lanes + lane];
      __syncthreads();
    }
  }
  NK_UNROLL for (int j = 0; j < kTargetsAtOnce; ++j) if (slot == 0 && j < count && first + lane < n_alphas)
      b.room[b.at.errors + static_cast<std::int64_t>(first + lane) * q + target + j] = sums[j];
  __syncthreads();
}

template <class Real, int kThreads>
__device__ void score_alphas(const BlockProblem<Real, kThreads>& b) {
  const int n_alphas = static_cast<int>(b.p.n_alphas), q = b.targets();
  for (int first = 0; first < n_alphas; first += b.plan.alpha_lanes)
    for (int target = 0; target < q; target += b.plan.targets)
      score_lanes(b, first, target, q - target < b.plan.targets ? q - target : b.plan.targets);
}

// solution = (T + alpha I)^-1 rotated, each target with its alpha: targets take the lanes.
template <class Real, int kThreads, class AlphaOf>
__device__ void solve_targets(const BlockProblem<Real, kThreads>& b, const AlphaOf& alpha_of) {
  const int lanes = b.plan.alpha_lanes, q = b.targets(), side = b.side, lane = b.thread();
  double* const multipliers = b.s.lanes + lane;
  double* const inverse_pivots = multipliers + side * lanes;
  double* const solved = inverse_pivots + side * lanes;
  const Vectors t = vectors_of(b.s, side);
  for (int first = 0; first < q; first += lanes) {
    if (lane < lanes && first + lane < q) {
      const int target = first + lane;
      factorize_lane(t, side, alpha_of(target), lanes, multipliers, inverse_pivots);
      substitute_lane(side, lanes, multipliers, b.room + b.at.rotated + target, q, solved);
      double last = 0;
      for (int k = side - 1; k >= 0; --k) {
        double value = solved[k * lanes] * inverse_pivots[k * lanes];
        if (k + 1 < side) value -= multipliers[(k + 1) * lanes] * last;
        b.room[b.at.solution + static_cast<std::int64_t>(k) * q + target] = value;
        last = value;
      }
    }
    __syncthreads();
  }
}

// The dual room (n, targets) = samples * solution
template <class Real, int kThreads>
__device__ void combine_samples(const BlockProblem<Real, kThreads>& b) {
  const int q = b.targets(), pitch = b.samples_pitch();
  const double* const samples = b.samples();
  b.for_each(static_cast<std::int64_t>(b.n) * q, [&](std::int64_t k) {
    const std::int64_t i = k / q, t = k % q;
    double sum = 0;
    for (int c = 0; c < b.side; ++c) sum += samples[i * pitch + c] * b.room[b.at.solution + c * q + t];
    b.room[b.at.dual + k] = sum;
  });
}

// One number of Xc' times the dual room, or of Q times the solution (primal), which is the same for weights.
template <class Real, int kThreads>
__device__ double weight_of(const BlockProblem<Real, kThreads>& b, int f, int t) {
  const int q = b.targets();
  double sum = 0;
  if (b.primal) {
    for (int k = 0; k < b.side; ++k)
      sum += b.s.matrix[f * b.s.pitch + k] * b.room[b.at.solution + static_cast<std::int64_t>(k) * q + t];
  } else {
    for (int i = 0; i < b.n; ++i)
      sum += b.centered(i, f) * b.room[b.at.dual + static_cast<std::int64_t>(i) * q + t];
  }
  return sum;
}

}  // namespace
}  // namespace neurokern
