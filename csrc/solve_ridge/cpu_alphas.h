// What one decomposition gives for every alpha: leave-one-out errors, with alphas in the lanes, and
// solutions, with targets in the lanes.
#pragma once

#include "solve_ridge/cpu_lanes.h"

namespace neurokern {
namespace NEUROKERN_ISA {
namespace {

// Q'GQ = T of the smaller Gram matrix G.
struct Decomposition {
  const double* product;  // Q (side, pitch)
  const double* samples;  // (n, pitch): Q itself in the dual, Xc Q in the primal form
  std::int64_t side, pitch, n;
  const double *diagonal, *off;
  double lift;
  bool primal, fit_intercept;
};

// L D L' = T + alpha I for an alpha in each lane.
struct Factor {
  double *multipliers, *inverse_pivots;  // (side, kLanes)
};

void factorize(const Decomposition& t, Lanes alphas, const Factor& out) {
  Lanes multiplier = {}, inverse = {};
  for (std::int64_t k = 0; k < t.side; ++k) {
    const double off = k > 0 ? t.off[k] : 0;
    multiplier = off * inverse;
    const Lanes pivot = (t.diagonal[k] + alphas) - off * multiplier;
    inverse = 1 / (pivot < alphas ? alphas : pivot);
    store(multiplier, out.multipliers + k * kLanes);
    store(inverse, out.inverse_pivots + k * kLanes);
  }
}

// ---- Leave-one-out

constexpr int kTargetBlock = 4;
constexpr int kSampleBlock = kManyRegisters ? 4 : 2;

struct Errors {
  const double *y, *rotated;  // centered targets (n, target_pitch), and (samples)'y (side, target_pitch)
  std::int64_t target_pitch;
  Factor factor;
  double* solved;  // (side, kTargets, kLanes): work
  Lanes alphas;
};

// Adds the squared errors of samples `rows` on, of which `n_counted` count, to those of each target.
template <int kTargets, int kSamples>
NK_INLINE void add_errors(const Decomposition& t, const Errors& e, std::int64_t first, std::int64_t n_counted,
                          Lanes centering, Lanes (&sums)[kTargets]) {
  const double* rows[kSamples];
  Lanes z[kSamples] = {}, leverage[kSamples] = {}, fitted[kSamples][kTargets] = {};
  for (int i = 0; i < kSamples; ++i)
    rows[i] = t.samples + (first + (i < n_counted ? i : n_counted - 1)) * t.pitch;
  for (std::int64_t k = 0; k < t.side; ++k) {
    const Lanes multiplier = load(e.factor.multipliers + k * kLanes);
    const Lanes inverse = load(e.factor.inverse_pivots + k * kLanes);
    const double* solved = e.solved + k * kTargets * kLanes;
#pragma GCC unroll 4
    for (int i = 0; i < kSamples; ++i) {
      z[i] = rows[i][k] - multiplier * z[i];
      const Lanes scaled = z[i] * inverse;
      leverage[i] += scaled * z[i];
#pragma GCC unroll 4
      for (int target = 0; target < kTargets; ++target)
        fitted[i][target] += scaled * load(solved + target * kLanes);
    }
  }
  for (int i = 0; i < n_counted && i < kSamples; ++i) {
    const Lanes scale = 1 / (t.primal ? (1 - centering) - leverage[i] : leverage[i] - centering);
    for (int target = 0; target < kTargets; ++target) {
      const double y = e.y[(first + i) * e.target_pitch + target];
      const Lanes error = (t.primal ? y - fitted[i][target] : fitted[i][target]) * scale;
      sums[target] += error * error;
    }
  }
}

// Leave-one-out sums of squares of kTargets targets, for an alpha in each lane.
template <int kTargets>
void sum_errors(const Decomposition& t, const Errors& e, Lanes* sums_out) {
  Lanes last[kTargets] = {}, sums[kTargets] = {}, centering;
  for (std::int64_t k = 0; k < t.side; ++k) {
    const Lanes multiplier = load(e.factor.multipliers + k * kLanes);
    for (int target = 0; target < kTargets; ++target) {
      last[target] = e.rotated[k * e.target_pitch + target] - multiplier * last[target];
      store(last[target], e.solved + (k * kTargets + target) * kLanes);
    }
  }
  for (int lane = 0; lane < kLanes; ++lane)
    centering[lane] = centering_term(t.primal, t.fit_intercept, t.n, e.alphas[lane], t.lift);
  std::int64_t i = 0;
  for (; i + 1 < t.n; i += kSampleBlock)
    add_errors<kTargets, kSampleBlock>(t, e, i, t.n - i, centering, sums);
  if (i < t.n) add_errors<kTargets, 1>(t, e, i, 1, centering, sums);
  for (int target = 0; target < kTargets; ++target) sums_out[target] = sums[target];
}

// ---- Solutions

// solution (side, kLanes) = (T + alpha I)^-1 right for a target, and its alpha, in each lane.
void solve(const Decomposition& t, Lanes alphas, const double* right, std::int64_t pitch, const Factor& work,
           double* solution) {
  factorize(t, alphas, work);
  Lanes last = {};
  for (std::int64_t k = 0; k < t.side; ++k) {
    last = load(right + k * pitch) - load(work.multipliers + k * kLanes) * last;
    store(last, solution + k * pitch);
  }
  last = Lanes{};
  for (std::int64_t k = t.side - 1; k >= 0; --k) {
    Lanes value = load(solution + k * pitch) * load(work.inverse_pivots + k * kLanes);
    if (k + 1 < t.side) value -= load(work.multipliers + (k + 1) * kLanes) * last;
    store(value, solution + k * pitch);
    last = value;
  }
}

}  // namespace
}  // namespace NEUROKERN_ISA
}  // namespace neurokern
