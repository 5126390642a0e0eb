// solve_ridge: many small ridge problems at once, each with its penalty chosen by leave-one-out.
#pragma once

#include <cstdint>

#include "common/isa.h"

namespace neurokern {

// min |Xc W - Yc|^2 + sum_t alpha_t |W_t|^2 for each problem of the batch; Xc and Yc are centered if there is
// an intercept. All arrays are contiguous; X, Y and what has their type are float, or double if
// `double_precision`.
struct RidgeBatch {
  const void* X;               // (n_problems, n_samples, n_features)
  const void* Y;               // (n_problems, n_samples, n_targets)
  const double* alphas;        // (n_alphas,), above 0
  const std::int64_t* counts;  // (n_problems,): samples that are there, the first ones; null: all
  void* weights;               // (n_problems, n_features, n_targets)
  void* intercept;             // (n_problems, n_targets)
  void* dual;                  // (n_problems, n_samples, n_targets), residuals over alpha: W = Xc' dual
  std::int64_t* choice;        // (n_problems, n_targets), place of the alpha
  double* scores;       // (n_problems, n_alphas, n_targets), leave-one-out R2; not touched for one alpha
  std::int64_t* n_bad;  // problems with numbers that are not finite; their results are NaN
  double* scratch;      // ridge_scratch() doubles for each task, aligned to 64 bytes
  std::int64_t n_problems, n_samples, n_features, n_targets, n_alphas;
  bool double_precision, fit_intercept, shared_alpha;
};

// The gradient of a solved batch, with each target's alpha held where the choice put it.
struct RidgeGradient {
  RidgeBatch batch;            // X, counts, weights and dual are read; `alphas` is (n_problems, n_targets)
  const void* grad_weights;    // (n_problems, n_features, n_targets)
  const void* grad_intercept;  // (n_problems, n_targets)
  void* grad_X;                // (n_problems, n_samples, n_features)
  void* grad_Y;                // (n_problems, n_samples, n_targets)
  double* grad_alphas;         // (n_problems, n_targets)
};

// Sums over the samples of a fold, for each target and penalty, without an array of all predictions:
//   combination[m][r] = sum over parts c, upwards from 0, of mix[c][m] parts[t][c][r]
//   missed[m][r] = (combination[m][r] - truth[t][r]) scale[m][r]
// All arrays are contiguous; all but `sums` are float, or double if `double_precision`.
struct RidgeSums {
  const void* parts;  // (n_targets, n_parts, n_samples)
  const void* mix;    // (n_parts, n_penalties), or null: the parts are the combinations
  const void* truth;  // (n_targets, n_samples), or null: nothing is taken off
  const void* scale;  // (n_penalties, n_samples), or null: 1
  const void* ones;   // (n_samples,), or null
  // (n_targets, n_penalties): of missed^2. With `ones`, (n_targets, 4, n_penalties): of missed^2, and with
  // guess = truth + missed of ones guess, guess^2, guess truth. With `pairs`, (n_targets, v (v + 1) / 2): of
  // products of all pairs of the v combinations, and of the truth behind them if there is one: (0, 0),
  // (1, 0), (1, 1), (2, 0) ...
  double* sums;
  void* combinations;  // (n_targets, n_penalties, n_samples), or null; with it there are no sums
  void* scratch;       // sums_room() numbers for each task, aligned to 64 bytes; on the CPU
  std::int64_t n_targets, n_parts, n_samples, n_penalties;
  bool double_precision, pairs;
  bool residuals;  // the combinations are missed / scale already: the truth is only for guesses
};

// Of min(n_samples, n_features): a matrix that stays in the second level of cache, or in shared memory.
constexpr std::int64_t kMaxRidgeSide = 512, kMaxCudaRidgeSide = 128;

NK_DECLARE_KERNEL(void solve_ridge_cpu(const RidgeBatch& p, std::int64_t n_tasks, int n_threads);
                  void solve_ridge_backward_cpu(const RidgeGradient& p, std::int64_t n_tasks, int n_threads);
                  void ridge_sums_cpu(const RidgeSums& p, std::int64_t n_tasks, int n_threads))

std::int64_t solve_ridge_cuda_scratch(const RidgeBatch& p);  // doubles, for either call

// `scratch` is on the device. Everything goes on `stream`; nothing is allocated, nothing waits. A problem
// that cannot be solved (a count out of range, numbers that are not finite) gives NaN; `n_bad` is not
// touched.
void solve_ridge_cuda(const RidgeBatch& p, void* stream);
void solve_ridge_backward_cuda(const RidgeGradient& p, void* stream);

constexpr std::int64_t kMaxCudaPairs = 128;  // combinations, with the truth: they stay in shared memory

void ridge_sums_cuda(const RidgeSums& p, void* stream);  // `sums` need no values

}  // namespace neurokern
