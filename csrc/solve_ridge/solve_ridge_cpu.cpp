// One problem after the other on each thread, all of it in double precision and in the first two levels of
// cache: Gram matrix, tridiagonal form, leave-one-out errors of every alpha, solution.
//
// Compiled once per instruction set (common/isa.h): no STL, nothing with external linkage but the kernels.
#include <cstdint>

#include "common/thread_pool.h"
#include "solve_ridge/cpu_alphas.h"
#include "solve_ridge/cpu_lanes.h"
#include "solve_ridge/cpu_products.h"
#include "solve_ridge/cpu_scores.h"
#include "solve_ridge/cpu_tridiagonal.h"
#include "solve_ridge/solve_ridge.h"

namespace neurokern {
namespace NEUROKERN_ISA {
namespace {

// One problem of a batch, and the memory of the task that solves it.
template <class Real>
struct Problem {
  const RidgeBatch& p;
  RidgeRoom at;
  double* room;
  std::int64_t index, n, pitch;
  bool primal;
  Rows<Real> x;

  Problem(const RidgeBatch& batch, std::int64_t task, std::int64_t problem)
      : p(batch),
        at(room_of(batch)),
        room(batch.scratch + task * at.total),
        index(problem),
        n(batch.counts != nullptr ? batch.counts[problem] : batch.n_samples),
        pitch(round_to_eight(smaller(n, batch.n_features))),
        primal(is_primal(n, batch.n_features)),
        x{of(static_cast<const Real*>(batch.X), batch.n_samples * batch.n_features), n, batch.n_features} {}

  template <class T>
  T* of(T* array, std::int64_t size) const {
    return array + index * size;
  }
  std::int64_t side() const { return primal ? p.n_features : n; }
  Factor factor() const { return {room + at.factor, room + at.factor + kEight * at.side}; }
  std::int64_t chunk_size(std::int64_t first) const {
    return smaller(p.n_features - first, at.feature_chunk);
  }
  void center_chunk(std::int64_t first) const {
    center_columns(x, first, chunk_size(first), room + at.means, pitch, room + at.panel);
  }
};

// ---- Decomposition

// The samples of the primal form in the basis Q: Xc Q takes the place of Xc.
template <class Real>
void rotate_samples(const Problem<Real>& problem) {
  const std::int64_t pitch = problem.pitch, side = problem.side();
  double* const panel = problem.room + problem.at.panel;
  double* const rotated = panel + round_to_eight(problem.n) * pitch;
  for (std::int64_t first = 0; first < problem.n; first += kEight) {
    const std::int64_t n_rows = smaller(problem.n - first, kEight);
    multiply(panel + first * pitch, pitch, problem.room + problem.at.matrix, pitch, side, n_rows, side,
             rotated, pitch);
    __builtin_memcpy(panel + first * pitch, rotated,
                     static_cast<std::size_t>(n_rows * pitch) * sizeof(double));
  }
}

template <class Real>
double make_gram(const Problem<Real>& problem) {
  double* const gram = problem.room + problem.at.matrix;
  double* const panel = problem.room + problem.at.panel;
  const std::int64_t pitch = problem.pitch, side = problem.side();
  clear(gram, pitch * pitch);
  if (problem.primal) {
    center_rows(problem.x, problem.room + problem.at.means, pitch, panel);
    add_gram(panel, problem.n, pitch, gram);
  } else {
    for (std::int64_t first = 0; first < problem.p.n_features; first += problem.at.feature_chunk) {
      problem.center_chunk(first);
      add_gram(panel, problem.chunk_size(first), pitch, gram);
    }
  }
  mirror(gram, side, pitch);
  double trace = 0;
  for (std::int64_t i = 0; i < side; ++i) trace += gram[i * pitch + i];
  return trace;
}

void add_lift(double* gram, std::int64_t side, std::int64_t pitch, double lift) {
  for (std::int64_t i = 0; i < side; ++i)
    for (std::int64_t c = 0; c < pitch; c += kLanes)
      store(load(gram + i * pitch + c) + lift, gram + i * pitch + c);
}

// Needs the means of X. False if numbers are not finite, or too large to be squared.
template <class Real>
bool decompose(const Problem<Real>& problem, Decomposition* out) {
  const RidgeRoom& at = problem.at;
  double *const room = problem.room, *const vectors = room + at.vectors;
  Tridiagonal t{};
  t.matrix = room + at.matrix;
  t.n = problem.side();
  t.pitch = problem.pitch;
  double** const parts[] = {&t.diagonal, &t.off, &t.tau, &t.v, &t.w, &t.next_v, &t.next_w};
  for (int i = 0; i < 7; ++i) *parts[i] = vectors + i * at.side;
  const double trace = make_gram(problem);
  if (!(trace - trace == 0)) return false;
  const bool lifted = problem.p.fit_intercept && !problem.primal;
  const double lift = lifted ? lift_of(trace, problem.n) : 0;
  if (lifted) add_lift(t.matrix, t.n, t.pitch, lift);
  make_tridiagonal(t);
  form_product(t);
  if (problem.primal) rotate_samples(problem);
  *out = {t.matrix,
          problem.primal ? room + at.panel : t.matrix,
          t.n,
          t.pitch,
          problem.n,
          t.diagonal,
          t.off,
          lift,
          problem.primal,
          problem.p.fit_intercept};
  return true;
}

// (samples)' values, values (n, target_pitch).
template <class Real>
void rotate(const Problem<Real>& problem, const Decomposition& t, const double* values, double* rotated) {
  const std::int64_t targets = problem.at.target_pitch;
  clear(rotated, t.side * targets);
  add_product(t.samples, t.pitch, values, targets, t.n, t.side, problem.p.n_targets, rotated, targets);
}

template <class T>
void fill(T* at, std::int64_t n, double value) {
  for (std::int64_t i = 0; i < n; ++i) at[i] = static_cast<T>(value);
}

// ---- Leave-one-out

template <class Real>
void score_alphas(const Problem<Real>& problem, const Decomposition& t, double* errors) {
  const RidgeBatch& p = problem.p;
  const RidgeRoom& at = problem.at;
  for (std::int64_t a = 0; a < p.n_alphas; a += kLanes) {
    Errors e{nullptr, nullptr, at.target_pitch, problem.factor(), problem.room + at.solved, {}};
    for (std::int64_t lane = 0; lane < kLanes; ++lane)
      e.alphas[lane] = p.alphas[smaller(a + lane, p.n_alphas - 1)];
    factorize(t, e.alphas, e.factor);
    for (std::int64_t target = 0; target < p.n_targets; target += kTargetBlock) {
      e.y = problem.room + at.y + target;
      e.rotated = problem.room + at.rotated + target;
      const std::int64_t n_targets = smaller(p.n_targets - target, kTargetBlock);
      Lanes sums[kTargetBlock];
      switch (n_targets) {
        case 1:
          sum_errors<1>(t, e, sums);
          break;
        case 2:
          sum_errors<2>(t, e, sums);
          break;
        case 3:
          sum_errors<3>(t, e, sums);
          break;
        default:
          sum_errors<4>(t, e, sums);
      }
      for (int lane = 0; lane < kLanes && a + lane < p.n_alphas; ++lane)
        for (int i = 0; i < n_targets; ++i) errors[(a + lane) * p.n_targets + target + i] = sums[i][lane];
    }
  }
}

template <class Real>
void choose_alphas(const Problem<Real>& problem, const double* errors, std::int64_t* choice) {
  const RidgeBatch& p = problem.p;
  if (p.shared_alpha)
    return fill(choice, p.n_targets,
                static_cast<double>(choose_alpha(errors, p.n_alphas, p.n_targets, p.n_targets)));
  for (std::int64_t t = 0; t < p.n_targets; ++t)
    choice[t] = choose_alpha(errors + t, p.n_alphas, p.n_targets, 1);
}

template <class Real>
void write_scores(const Problem<Real>& problem, const double* errors, double* scores) {
  const RidgeBatch& p = problem.p;
  for (std::int64_t t = 0; t < p.n_targets; ++t) {
    double total = 0;
    for (std::int64_t i = 0; i < problem.n; ++i) {
      const double y = problem.room[problem.at.y + i * problem.at.target_pitch + t];
      total += y * y;
    }
    for (std::int64_t a = 0; a < p.n_alphas; ++a)
      scores[a * p.n_targets + t] = r_squared(errors[a * p.n_targets + t], total);
  }
}

// ---- Solution

// For the right sides `rotated`, each with its alpha: solution = (T + alpha I)^-1 rotated.
template <class Real, class AlphaOf>
void solve_targets(const Problem<Real>& problem, const Decomposition& t, const AlphaOf& alpha_of) {
  const RidgeRoom& at = problem.at;
  for (std::int64_t target = 0; target < problem.p.n_targets; target += kLanes) {
    Lanes alphas;
    for (std::int64_t lane = 0; lane < kLanes; ++lane)
      alphas[lane] = alpha_of(smaller(target + lane, problem.p.n_targets - 1));
    solve(t, alphas, problem.room + at.rotated + target, at.target_pitch, problem.factor(),
          problem.room + at.solution + target);
  }
}

// out (n, target_pitch) = samples * solution
template <class Real>
void combine_samples(const Problem<Real>& problem, const Decomposition& t, double* out) {
  const std::int64_t targets = problem.at.target_pitch;
  multiply(t.samples, t.pitch, problem.room + problem.at.solution, targets, t.side, t.n, problem.p.n_targets,
           out, targets);
}

// Rows of features from `first` on of Xc' right, where right is (n, target_pitch).
template <class Real>
void multiply_chunk(const Problem<Real>& problem, std::int64_t first, const double* right, double* out) {
  const std::int64_t targets = problem.at.target_pitch;
  if (problem.p.n_features > problem.at.feature_chunk) problem.center_chunk(first);
  multiply(problem.room + problem.at.panel, problem.pitch, right, targets, problem.n,
           problem.chunk_size(first), problem.p.n_targets, out, targets);
}

// The eight sums of means * weights, (8, pitch), go on over features; chunks begin at multiples of 8.
NK_INLINE void add_to_intercept(const double* means, const double* weights, std::int64_t count,
                                std::int64_t pitch, double* sums) {
  Lanes eight[kEight];
  for (int i = 0; i < kEight; ++i) eight[i] = load(sums + i * pitch);
  std::int64_t f = 0;
  for (; f + kEight <= count; f += kEight)
#pragma GCC unroll 8
    for (int i = 0; i < kEight; ++i) eight[i] += spread(means[f + i]) * load(weights + (f + i) * pitch);
  for (int i = 0; i < kEight; ++i) store(eight[i], sums + i * pitch);
  for (int i = 0; f + i < count; ++i)
    store(load(sums + i * pitch) + means[f + i] * load(weights + (f + i) * pitch), sums + i * pitch);
}

template <class Real>
void write_weights(const Problem<Real>& problem, const Decomposition& t, const double* dual) {
  const RidgeBatch& p = problem.p;
  const RidgeRoom& at = problem.at;
  const std::int64_t targets = at.target_pitch;
  double* const weights = problem.room + at.weights;
  Real* const out = problem.of(static_cast<Real*>(p.weights), p.n_features * p.n_targets);
  double* const sums = problem.room + at.terms;  // (8, target_pitch)
  clear(sums, kEight * targets);
  for (std::int64_t first = 0; first < p.n_features; first += at.feature_chunk) {
    const std::int64_t count = problem.chunk_size(first);
    if (t.primal) {
      multiply(t.product, t.pitch, problem.room + at.solution, targets, t.side, count, p.n_targets, weights,
               targets);
    } else {
      multiply_chunk(problem, first, dual, weights);
    }
    write_rows(weights, targets, count, p.n_targets, out + first * p.n_targets);
    if (!p.fit_intercept) continue;
    for (std::int64_t c = 0; c < targets; c += kLanes)
      add_to_intercept(problem.room + at.means + first, weights + c, count, targets, sums + c);
  }
  Real* const intercept = problem.of(static_cast<Real*>(p.intercept), p.n_targets);
  for (std::int64_t target = 0; target < p.n_targets; ++target) {
    double eight[kEight];
    for (int i = 0; i < kEight; ++i) eight[i] = sums[i * targets + target];
    intercept[target] = static_cast<Real>(problem.room[at.y_means + target] - add_eight(eight));
  }
}

template <class Real>
void spoil(const Problem<Real>& problem) {
  const RidgeBatch& p = problem.p;
  const std::int64_t n_weights = p.n_features * p.n_targets, n_dual = p.n_samples * p.n_targets;
  fill(problem.of(static_cast<Real*>(p.weights), n_weights), n_weights, __builtin_nan(""));
  fill(problem.of(static_cast<Real*>(p.intercept), p.n_targets), p.n_targets, __builtin_nan(""));
  fill(problem.of(static_cast<Real*>(p.dual), n_dual), n_dual, __builtin_nan(""));
  fill(problem.of(p.choice, p.n_targets), p.n_targets, 0);
  if (p.n_alphas > 1)
    fill(problem.of(p.scores, p.n_alphas * p.n_targets), p.n_alphas * p.n_targets, __builtin_nan(""));
  __atomic_fetch_add(p.n_bad, 1, __ATOMIC_RELAXED);
}

// Are the squares of the targets finite?
template <class Real>
bool is_finite(const Problem<Real>& problem) {
  bool finite = true;
  for (std::int64_t i = 0; i < problem.n; ++i)
    for (std::int64_t t = 0; t < problem.p.n_targets; ++t) {
      const double y = problem.room[problem.at.y + i * problem.at.target_pitch + t], square = y * y;
      finite = finite && square - square == 0;
    }
  return finite;
}

template <class Real>
void solve_problem(const RidgeBatch& p, std::int64_t task, std::int64_t index) {
  const Problem<Real> problem(p, task, index);
  const RidgeRoom& at = problem.at;
  double* const room = problem.room;
  const Rows<Real> y{problem.of(static_cast<const Real*>(p.Y), p.n_samples * p.n_targets), problem.n,
                     p.n_targets};
  find_means(problem.x, p.fit_intercept, room + at.means);
  find_means(y, p.fit_intercept, room + at.y_means);
  center_rows(y, room + at.y_means, at.target_pitch, room + at.y);
  Decomposition t;
  if (!is_finite(problem) || !decompose(problem, &t)) return spoil(problem);
  std::int64_t* const choice = problem.of(p.choice, p.n_targets);
  rotate(problem, t, room + at.y, room + at.rotated);
  if (p.n_alphas > 1) {
    score_alphas(problem, t, room + at.errors);
    choose_alphas(problem, room + at.errors, choice);
    write_scores(problem, room + at.errors, problem.of(p.scores, p.n_alphas * p.n_targets));
  } else {
    fill(choice, p.n_targets, 0);
  }
  solve_targets(problem, t, [&](std::int64_t target) { return p.alphas[choice[target]]; });
  combine_samples(problem, t, room + at.dual);
  if (t.primal)
    for (std::int64_t i = 0; i < problem.n; ++i)
      for (std::int64_t target = 0; target < p.n_targets; ++target) {
        const std::int64_t k = i * at.target_pitch + target;
        room[at.dual + k] = (room[at.y + k] - room[at.dual + k]) / p.alphas[choice[target]];
      }
  write_weights(problem, t, room + at.dual);
  Real* const dual = problem.of(static_cast<Real*>(p.dual), p.n_samples * p.n_targets);
  write_rows(room + at.dual, at.target_pitch, problem.n, p.n_targets, dual);
  fill(dual + problem.n * p.n_targets, (p.n_samples - problem.n) * p.n_targets, 0);
}

// ---- Gradient: with S = (G + alpha I)^-1 Xc gW (dual) and V = Xc'S, gX = dual (gW - V)' - S W' and gY = S

// Rows of the weights' gradient from feature `first` on, with what reaches them through the intercept.
template <class Real>
void read_grad_weights(const RidgeGradient& g, const Problem<Real>& problem, std::int64_t first) {
  const RidgeBatch& p = problem.p;
  const RidgeRoom& at = problem.at;
  const std::int64_t targets = at.target_pitch, count = problem.chunk_size(first);
  double* const out = problem.room + at.grad_weights;
  const Real* const weights =
      problem.of(static_cast<const Real*>(g.grad_weights), p.n_features * p.n_targets);
  const Real* const intercept = problem.of(static_cast<const Real*>(g.grad_intercept), p.n_targets);
  for (std::int64_t f = 0; f < count; ++f)
    for (std::int64_t t = 0; t < targets; ++t)
      out[f * targets + t] = t < p.n_targets
                                 ? static_cast<double>(weights[(first + f) * p.n_targets + t]) -
                                       problem.room[at.means + first + f] * static_cast<double>(intercept[t])
                                 : 0;
}

// S into the room of the dual coefficients; (T + alpha I)^-1 Q'gW stays in `solution` (primal).
template <class Real>
void solve_gradient(const RidgeGradient& g, const Problem<Real>& problem, const Decomposition& t) {
  const RidgeBatch& p = problem.p;
  const RidgeRoom& at = problem.at;
  double* const room = problem.room;
  const std::int64_t targets = at.target_pitch;
  if (t.primal) {
    read_grad_weights(g, problem, 0);
    clear(room + at.rotated, t.side * targets);
    add_product(t.product, t.pitch, room + at.grad_weights, targets, t.side, t.side, p.n_targets,
                room + at.rotated, targets);
  } else {
    clear(room + at.y, round_to_eight(t.n) * targets);
    for (std::int64_t first = 0; first < p.n_features; first += at.feature_chunk) {
      read_grad_weights(g, problem, first);
      if (p.n_features > at.feature_chunk) problem.center_chunk(first);
      add_product(room + at.panel, t.pitch, room + at.grad_weights, targets, problem.chunk_size(first), t.n,
                  p.n_targets, room + at.y, targets);
    }
    rotate(problem, t, room + at.y, room + at.rotated);
  }
  const double* const alphas = problem.of(p.alphas, p.n_targets);
  solve_targets(problem, t, [&](std::int64_t target) { return alphas[target]; });
  combine_samples(problem, t, room + at.dual);
}

// Of a chunk of features: gW - V and W by turns, (2 targets, chunk), and the gradient that comes by the mean.
template <class Real>
void gather_factors(const RidgeGradient& g, const Problem<Real>& problem, const Decomposition& t,
                    std::int64_t first) {
  const RidgeBatch& p = problem.p;
  const RidgeRoom& at = problem.at;
  double* const room = problem.room;
  const std::int64_t targets = at.target_pitch, count = problem.chunk_size(first), pitch = at.feature_chunk;
  const Real* const weights = problem.of(static_cast<const Real*>(p.weights), p.n_features * p.n_targets);
  const Real* const intercept = problem.of(static_cast<const Real*>(g.grad_intercept), p.n_targets);
  const double* const alphas = problem.of(p.alphas, p.n_targets);
  if (t.primal) {
    multiply(t.product, t.pitch, room + at.solution, targets, t.side, count, p.n_targets, room + at.weights,
             targets);
  } else {
    multiply_chunk(problem, first, room + at.dual, room + at.weights);
    read_grad_weights(g, problem, first);
  }
  clear(room + at.factors, 2 * p.n_targets * pitch);
  for (std::int64_t f = 0; f < count; ++f) {
    double shift = 0;
    for (std::int64_t target = 0; target < p.n_targets; ++target) {
      const double v = room[at.weights + f * targets + target];
      const double weight = static_cast<double>(weights[(first + f) * p.n_targets + target]);
      room[at.factors + 2 * target * pitch + f] =
          t.primal ? alphas[target] * v : room[at.grad_weights + f * targets + target] - v;
      room[at.factors + (2 * target + 1) * pitch + f] = weight;
      shift += weight * static_cast<double>(intercept[target]);
    }
    room[at.shift + f] = p.fit_intercept ? -(shift / static_cast<double>(t.n)) : 0;
  }
}

// gY and the gradient of the alphas; the dual coefficients and -S by turns, (n, 2 targets).
template <class Real>
void write_grad_targets(const RidgeGradient& g, const Problem<Real>& problem) {
  const RidgeBatch& p = problem.p;
  const RidgeRoom& at = problem.at;
  double* const room = problem.room;
  const Real* const dual = problem.of(static_cast<const Real*>(p.dual), p.n_samples * p.n_targets);
  const Real* const intercept = problem.of(static_cast<const Real*>(g.grad_intercept), p.n_targets);
  Real* const grad_y = problem.of(static_cast<Real*>(g.grad_Y), p.n_samples * p.n_targets);
  double* const grad_alphas = problem.of(g.grad_alphas, p.n_targets);
  for (std::int64_t t = 0; t < p.n_targets; ++t) {
    const double shift =
        p.fit_intercept ? static_cast<double>(intercept[t]) / static_cast<double>(problem.n) : 0;
    double sum = 0;
    for (std::int64_t i = 0; i < problem.n; ++i) {
      const double s = room[at.dual + i * at.target_pitch + t];
      const double c = static_cast<double>(dual[i * p.n_targets + t]);
      room[at.terms + (2 * i) * p.n_targets + 2 * t] = c;
      room[at.terms + (2 * i) * p.n_targets + 2 * t + 1] = -s;
      grad_y[i * p.n_targets + t] = static_cast<Real>(s + shift);
      sum += s * c;
    }
    grad_alphas[t] = -sum;
  }
  fill(grad_y + problem.n * p.n_targets, (p.n_samples - problem.n) * p.n_targets, 0);
}

template <class Real>
void differentiate_problem(const RidgeGradient& g, std::int64_t task, std::int64_t index) {
  const RidgeBatch& p = g.batch;
  const Problem<Real> problem(p, task, index);
  const RidgeRoom& at = problem.at;
  double* const room = problem.room;
  const std::int64_t n_terms = 2 * p.n_targets, pitch = at.feature_chunk;
  Real* const grad_x = problem.of(static_cast<Real*>(g.grad_X), p.n_samples * p.n_features);
  find_means(problem.x, p.fit_intercept, room + at.means);
  Decomposition t;
  if (!decompose(problem, &t)) {
    fill(grad_x, p.n_samples * p.n_features, __builtin_nan(""));
    fill(problem.of(static_cast<Real*>(g.grad_Y), p.n_samples * p.n_targets), p.n_samples * p.n_targets,
         __builtin_nan(""));
    return fill(problem.of(g.grad_alphas, p.n_targets), p.n_targets, __builtin_nan(""));
  }
  solve_gradient(g, problem, t);
  write_grad_targets(g, problem);
  for (std::int64_t first = 0; first < p.n_features; first += pitch) {
    const std::int64_t count = problem.chunk_size(first);
    gather_factors(g, problem, t, first);
    double* const out = room + at.panel;  // which the next chunk fills anew
    multiply(room + at.terms, n_terms, room + at.factors, pitch, n_terms, problem.n, count, out, pitch);
    for (std::int64_t i = 0; i < problem.n; ++i)
      for (std::int64_t c = 0; c < count; c += kLanes)
        store_first(load(out + i * pitch + c) + load(room + at.shift + c), count - c,
                    grad_x + i * p.n_features + first + c);
  }
  fill(grad_x + problem.n * p.n_features, (p.n_samples - problem.n) * p.n_features, 0);
}

// ---- Tasks

template <class Call>
struct Share {
  std::int64_t n_problems, n_tasks;
  const Call& call;  // call(task, problem)

  static void run(void* context, std::int64_t task) {
    const Share& share = *static_cast<const Share*>(context);
    const std::int64_t end = share.n_problems * (task + 1) / share.n_tasks;
    for (std::int64_t i = share.n_problems * task / share.n_tasks; i < end; ++i) share.call(task, i);
  }
};

template <class Call>
void for_each_problem(std::int64_t n_problems, std::int64_t n_tasks, int n_threads, const Call& call) {
  Share<Call> share{n_problems, n_tasks, call};
  parallel_for(n_tasks, n_threads, Share<Call>::run, &share);
}

}  // namespace

void solve_ridge_cpu(const RidgeBatch& p, std::int64_t n_tasks, int n_threads) {
  for_each_problem(p.n_problems, n_tasks, n_threads, [&](std::int64_t task, std::int64_t i) {
    p.double_precision ? solve_problem<double>(p, task, i) : solve_problem<float>(p, task, i);
  });
}

void solve_ridge_backward_cpu(const RidgeGradient& g, std::int64_t n_tasks, int n_threads) {
  for_each_problem(g.batch.n_problems, n_tasks, n_threads, [&](std::int64_t task, std::int64_t i) {
    g.batch.double_precision ? differentiate_problem<double>(g, task, i)
                             : differentiate_problem<float>(g, task, i);
  });
}

void ridge_sums_cpu(const RidgeSums& p, std::int64_t n_tasks, int n_threads) {
  for_each_problem(p.n_targets, n_tasks, n_threads, [&](std::int64_t task, std::int64_t target) {
    p.double_precision ? TargetScores<double>(p, task).run(target) : TargetScores<float>(p, task).run(target);
  });
}

}  // namespace NEUROKERN_ISA
}  // namespace neurokern
