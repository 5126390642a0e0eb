// The rules that every device shares, one number at a time. In which order sums run is part of them, so that
// all devices give the same bits: sums over samples, features or components run upwards from 0, one term
// after the other; those of `EightSums` have eight such sums, one for each remainder of the index by 8.
//
// The smaller of Xc Xc' (dual) and Xc'Xc (primal) is brought to tridiagonal form once: Q'GQ = T. Then
// (G + alpha I)^-1 = Q (T + alpha I)^-1 Q' costs two numbers a row for each alpha, and what leave-one-out
// wants of it m products a sample: z = L^-1 Q' e_i, where L D L' = T + alpha I, gives the diagonal element
// z'D^-1 z and the prediction z'D^-1 (L^-1 Q'y) together.
#pragma once

#include <math.h>

#include <cstdint>

#include "common/host_device.h"
#include "solve_ridge/solve_ridge.h"

namespace neurokern {

constexpr int kEight = 8;

NK_HD std::int64_t round_to_eight(std::int64_t n) { return (n + kEight - 1) / kEight * kEight; }

NK_HD double add_eight(const double* sums) {
  return ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
}

NK_HD bool is_primal(std::int64_t n_samples, std::int64_t n_features) { return n_features < n_samples; }

// ---- Room of one task on the CPU, in doubles; every array starts at a multiple of 8

constexpr std::int64_t kFeatureChunk = 256;  // features that are centered at a time in the dual form

struct RidgeRoom {
  std::int64_t side, feature_chunk, target_pitch;
  std::int64_t matrix, panel, means, y_means, vectors, factor, solved, y, rotated, solution, dual, weights,
      errors, shift, grad_weights, terms, factors, total;
};

NK_HD std::int64_t smaller(std::int64_t a, std::int64_t b) { return a < b ? a : b; }

NK_HD RidgeRoom room_of(const RidgeBatch& p) {
  RidgeRoom r{};
  r.side = round_to_eight(smaller(p.n_samples, p.n_features));
  r.feature_chunk = smaller(round_to_eight(p.n_features), kFeatureChunk);
  r.target_pitch = round_to_eight(p.n_targets);
  const std::int64_t n_samples = round_to_eight(p.n_samples), features = round_to_eight(p.n_features);
  const bool primal = is_primal(p.n_samples, p.n_features);
  const std::int64_t rows = primal && n_samples > r.feature_chunk ? n_samples : r.feature_chunk;
  const std::int64_t sizes[] = {r.side * r.side,
                                rows * r.side + kEight * r.side,
                                features,
                                r.target_pitch,
                                7 * r.side,
                                2 * kEight * r.side,
                                4 * kEight * r.side,
                                n_samples * r.target_pitch,
                                r.side * r.target_pitch,
                                r.side * r.target_pitch,
                                n_samples * r.target_pitch,
                                r.feature_chunk * r.target_pitch,
                                round_to_eight(p.n_alphas) * r.target_pitch,
                                features,
                                r.feature_chunk * r.target_pitch,
                                2 * r.target_pitch * n_samples,
                                2 * r.target_pitch * r.feature_chunk};
  std::int64_t* const starts[] = {&r.matrix, &r.panel, &r.means,        &r.y_means,  &r.vectors, &r.factor,
                                  &r.solved, &r.y,     &r.rotated,      &r.solution, &r.dual,    &r.weights,
                                  &r.errors, &r.shift, &r.grad_weights, &r.terms,    &r.factors};
  for (int i = 0; i < 17; ++i) {
    *starts[i] = r.total;
    r.total += sizes[i];
  }
  return r;
}

// ---- Tridiagonal form (Golub and Van Loan, Matrix Computations, 4th ed., 5.1 and 8.3)

// H = I - tau v v' takes x to (0, ..., 0, off); v is x but for its last number.
struct Reflector {
  double tau, last, off;
};

// `rest` is the sum of squares of x without its last number.
NK_HD Reflector make_reflector(double rest, double last) {
  if (rest == 0) return {0, 0, last};
  const double norm = sqrt(rest + last * last), off = last > 0 ? -norm : norm, v = last - off;
  return {2 / (rest + v * v), v, off};
}

// ---- One alpha

// Pivots of L D L' = T + alpha I are at least alpha; rounding may not take them below.
NK_HD double next_pivot(double diagonal, double alpha, double off, double multiplier) {
  const double pivot = (diagonal + alpha) - off * multiplier;
  return pivot < alpha ? alpha : pivot;
}

// ---- Leave-one-out

// What centering takes off the diagonal. The dual factors K + lift 11' and not K, whose eigenvalue 0 along
// the ones would make the diagonal's two parts cancel (relative error 1e-1 in float32 for five samples).
NK_HD double centering_term(bool primal, bool fit_intercept, std::int64_t n, double alpha, double lift) {
  if (!fit_intercept) return 0;
  const double count = static_cast<double>(n);
  return primal ? 1 / count : 1 / (count * (alpha + lift * count));
}

NK_HD double lift_of(double trace, std::int64_t n) {
  const double mean = trace / static_cast<double>(n);
  return mean > 0 ? mean : 1;  // samples are all the same: any positive number does
}

// ---- Choice

constexpr double kEqualErrors = 1 + 1e-10;  // within rounding: leaving out one of two samples is all the same

// Of errors (n_alphas, stride), each the sum of the first n_targets of its row.
NK_HD double sum_row(const double* errors, std::int64_t n_targets) {
  double sum = 0;
  for (std::int64_t t = 0; t < n_targets; ++t) sum += errors[t];
  return sum;
}

// The last (largest) alpha whose error equals the smallest, as in ridge_cv; the last of all if there is none.
NK_HD std::int64_t choose_alpha(const double* errors, std::int64_t n_alphas, std::int64_t stride,
                                std::int64_t n_targets) {
  double smallest = sum_row(errors, n_targets);
  for (std::int64_t a = 1; a < n_alphas; ++a) {
    const double error = sum_row(errors + a * stride, n_targets);
    if (error < smallest) smallest = error;
  }
  for (std::int64_t a = n_alphas - 1; a > 0; --a)
    if (sum_row(errors + a * stride, n_targets) <= smallest * kEqualErrors) return a;
  return smallest == smallest ? 0 : n_alphas - 1;
}

// ---- Sums of scores: over 128 samples by 16 sums in the arrays' type, one for each remainder of the sample
// by 16, upwards; from one such tile to the next in double.

constexpr int kSixteen = 16, kTile = 128;

template <class Real>
NK_HD Real add_sixteen(Real* sums) {
  for (int step = kSixteen / 2; step > 0; step /= 2)
    for (int i = 0; i < step; ++i) sums[i] += sums[i + step];
  return sums[0];
}

NK_HD std::int64_t n_vectors(const RidgeSums& p) {
  return p.n_penalties + (p.pairs && p.truth != nullptr ? 1 : 0);
}

NK_HD std::int64_t sums_of_target(const RidgeSums& p) {
  const std::int64_t n = n_vectors(p);
  return p.pairs ? n * (n + 1) / 2 : (p.ones != nullptr ? 4 : 1) * n;
}

// Numbers of the combinations of a tile, and of its truth, which all start at a multiple of 64 bytes.
NK_HD std::int64_t sums_room(const RidgeSums& p) { return (p.n_penalties + 1) * kTile; }

NK_HD double r_squared(double error, double total) { return total > 0 ? 1 - error / total : NAN; }

}  // namespace neurokern
