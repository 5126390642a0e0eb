// A block for each problem: its Gram matrix stays in shared memory from the first product to the solution.
#include <cstdint>

#include "common/launch.cuh"
#include "solve_ridge/cuda_problem.cuh"
#include "solve_ridge/cuda_scores.cuh"

namespace neurokern {
namespace {

constexpr int kWarp = 32, kWide = 128;
constexpr std::int64_t kMaxBlocks = 2048;         // each has scratch; more than run at once on any GPU
constexpr std::int64_t kSharedBytes = 163 << 10;  // of an A100

template <class Real, int kThreads>
__device__ BlockProblem<Real, kThreads> problem_of(const RidgeBatch& p, const DeviceRoom& at,
                                                   const RidgePlan& plan, double* shared,
                                                   std::int64_t index) {
  const std::int64_t n = p.counts != nullptr ? p.counts[index] : p.n_samples;
  const bool valid = n >= (p.scores != nullptr && p.n_alphas > 1 ? 2 : 1) && n <= p.n_samples;
  const int rows = static_cast<int>(valid ? n : 0);
  const bool primal = is_primal(rows, p.n_features);
  const int side = static_cast<int>(primal ? p.n_features : rows);
  return {p,
          at,
          p.scratch + static_cast<std::int64_t>(blockIdx.x) * at.total,
          shared_room(shared, side, side | 1, kThreads),
          plan,
          index,
          rows,
          side,
          primal,
          valid,
          static_cast<const Real*>(p.X) + index * p.n_samples * p.n_features,
          0};
}

template <class Real>
__device__ Real not_a_number() {
  return static_cast<Real>(NAN);
}

// ---- Solutions

template <class Real, int kThreads>
__device__ void spoil(const BlockProblem<Real, kThreads>& b) {
  const RidgeBatch& p = b.p;
  const std::int64_t q = p.n_targets, n_weights = p.n_features * q, n_dual = p.n_samples * q;
  b.for_each(n_weights, [&](std::int64_t k) {
    static_cast<Real*>(p.weights)[b.index * n_weights + k] = not_a_number<Real>();
  });
  b.for_each(n_dual, [&](std::int64_t k) {
    static_cast<Real*>(p.dual)[b.index * n_dual + k] = not_a_number<Real>();
  });
  b.for_each(q, [&](std::int64_t t) {
    static_cast<Real*>(p.intercept)[b.index * q + t] = not_a_number<Real>();
    p.choice[b.index * q + t] = 0;
  });
  if (p.n_alphas > 1)
    b.for_each(p.n_alphas * q, [&](std::int64_t k) { p.scores[b.index * p.n_alphas * q + k] = NAN; });
}

// Centered targets; false if they are not finite, or too large to be squared.
template <class Real, int kThreads>
__device__ bool center_targets(const BlockProblem<Real, kThreads>& b) {
  const RidgeBatch& p = b.p;
  const std::int64_t q = p.n_targets;
  const Real* const y = static_cast<const Real*>(p.Y) + b.index * p.n_samples * q;
  b.for_each(
      q, [&](std::int64_t t) { b.room[b.at.y_means + t] = p.fit_intercept ? mean_of(y + t, b.n, q) : 0; });
  bool bad = false;
  b.for_each(b.n * q, [&](std::int64_t k) {
    const double value = static_cast<double>(y[k]) - b.room[b.at.y_means + k % q], square = value * value;
    b.room[b.at.y + k] = value;
    bad = bad || !(square - square == 0);
  });
  return __syncthreads_or(bad) == 0;
}

// A thread for each target.
template <class Real, int kThreads>
__device__ void choose_alphas(const BlockProblem<Real, kThreads>& b) {
  const RidgeBatch& p = b.p;
  const std::int64_t q = p.n_targets;
  const double* const errors = b.room + b.at.errors;
  b.for_each(q, [&](std::int64_t t) {
    p.choice[b.index * q + t] =
        p.shared_alpha ? choose_alpha(errors, p.n_alphas, q, q) : choose_alpha(errors + t, p.n_alphas, q, 1);
    double total = 0;
    for (int i = 0; i < b.n; ++i) total += b.room[b.at.y + i * q + t] * b.room[b.at.y + i * q + t];
    for (std::int64_t a = 0; a < p.n_alphas; ++a)
      p.scores[(b.index * p.n_alphas + a) * q + t] = r_squared(errors[a * q + t], total);
  });
}

template <class Real, int kThreads>
__device__ void write_solution(const BlockProblem<Real, kThreads>& b) {
  const RidgeBatch& p = b.p;
  const std::int64_t q = p.n_targets, n_weights = p.n_features * q, n_dual = p.n_samples * q;
  double* const weights = b.room + b.at.weights;
  b.for_each(n_weights, [&](std::int64_t k) {
    weights[k] = weight_of(b, static_cast<int>(k / q), static_cast<int>(k % q));
    static_cast<Real*>(p.weights)[b.index * n_weights + k] = static_cast<Real>(weights[k]);
  });
  b.for_each(n_dual, [&](std::int64_t k) {
    static_cast<Real*>(p.dual)[b.index * n_dual + k] =
        static_cast<Real>(k < b.n * q ? b.room[b.at.dual + k] : 0);
  });
  double* const eight = weights + n_weights;  // (targets, 8)
  b.for_each(kEight * q, [&](std::int64_t k) {
    double sum = 0;
    for (std::int64_t f = k % kEight; f < p.n_features; f += kEight)
      sum += b.room[b.at.means + f] * weights[f * q + k / kEight];
    eight[k] = sum;
  });
  b.for_each(q, [&](std::int64_t t) {
    const double shift = p.fit_intercept ? add_eight(eight + t * kEight) : 0;
    static_cast<Real*>(p.intercept)[b.index * q + t] = static_cast<Real>(b.room[b.at.y_means + t] - shift);
  });
}

template <class Real, int kThreads>
__device__ void solve_block(BlockProblem<Real, kThreads>& b) {
  const RidgeBatch& p = b.p;
  const std::int64_t q = p.n_targets;
  if (!b.valid || !center_targets(b) || !decompose(b)) return spoil(b);
  rotate(b, b.room + b.at.y);
  if (p.n_alphas > 1) {
    score_alphas(b);
    choose_alphas(b);
  } else {
    b.for_each(q, [&](std::int64_t t) { p.choice[b.index * q + t] = 0; });
  }
  solve_targets(b, [&](int t) { return p.alphas[p.choice[b.index * q + t]]; });
  combine_samples(b);
  if (b.primal)
    b.for_each(b.n * q, [&](std::int64_t k) {
      const double alpha = p.alphas[p.choice[b.index * q + k % q]];
      b.room[b.at.dual + k] = (b.room[b.at.y + k] - b.room[b.at.dual + k]) / alpha;
    });
  write_solution(b);
}

template <class Real, int kThreads>
__global__ void __launch_bounds__(kThreads, 1) solve_problems(RidgeBatch p, DeviceRoom at, RidgePlan plan) {
  NK_DYNAMIC_SHARED(double, shared);
  for (std::int64_t i = blockIdx.x; i < p.n_problems; i += gridDim.x) {
    BlockProblem<Real, kThreads> b = problem_of<Real, kThreads>(p, at, plan, shared, i);
    solve_block(b);
    __syncthreads();
  }
}

// ---- Gradients

template <class Real, int kThreads>
__device__ double grad_weight(const RidgeGradient& g, const BlockProblem<Real, kThreads>& b, std::int64_t k) {
  const std::int64_t q = b.p.n_targets;
  const double direct =
      static_cast<double>(static_cast<const Real*>(g.grad_weights)[b.index * b.p.n_features * q + k]);
  const double intercept =
      static_cast<double>(static_cast<const Real*>(g.grad_intercept)[b.index * q + k % q]);
  return direct - b.room[b.at.means + k / q] * intercept;
}

// S = (G + alpha I)^-1 Xc gW into the dual room.
template <class Real, int kThreads>
__device__ void solve_gradient(const RidgeGradient& g, const BlockProblem<Real, kThreads>& b) {
  const int q = b.targets();
  const double* const alphas = b.p.alphas + b.index * q;
  double* const room = b.room;
  if (b.primal) {
    b.for_each(static_cast<std::int64_t>(b.side) * q, [&](std::int64_t k) {
      double sum = 0;
      for (int f = 0; f < b.side; ++f)
        sum += b.s.matrix[f * b.s.pitch + k / q] * grad_weight(g, b, f * q + k % q);
      room[b.at.rotated + k] = sum;
    });
  } else {
    b.for_each(static_cast<std::int64_t>(b.n) * q, [&](std::int64_t k) {
      double sum = 0;
      for (int f = 0; f < b.features(); ++f)
        sum += b.centered(static_cast<int>(k / q), f) *
               grad_weight(g, b, static_cast<std::int64_t>(f) * q + k % q);
      room[b.at.y + k] = sum;
    });
    rotate(b, room + b.at.y);
  }
  solve_targets(b, [&](int t) { return alphas[t]; });
  combine_samples(b);
}

template <class Real, int kThreads>
__device__ void write_gradients(const RidgeGradient& g, const BlockProblem<Real, kThreads>& b) {
  const RidgeBatch& p = b.p;
  const std::int64_t q = p.n_targets, features = p.n_features, n = b.n;
  const Real* const dual = static_cast<const Real*>(p.dual) + b.index * p.n_samples * q;
  const Real* const weights = static_cast<const Real*>(p.weights) + b.index * features * q;
  const Real* const intercept = static_cast<const Real*>(g.grad_intercept) + b.index * q;
  const double* const s = b.room + b.at.dual;
  double* const rest = b.room + b.at.weights;  // gW - V
  b.for_each(features * q, [&](std::int64_t k) {
    const double v = weight_of(b, static_cast<int>(k / q), static_cast<int>(k % q));
    rest[k] = b.primal ? p.alphas[b.index * q + k % q] * v : grad_weight(g, b, k) - v;
  });
  b.for_each(p.n_samples * features, [&](std::int64_t k) {
    const std::int64_t i = k / features, f = k % features;
    double sum = 0, shift = 0;
    for (std::int64_t t = 0; i < n && t < q; ++t) {
      const double weight = static_cast<double>(weights[f * q + t]);
      sum += static_cast<double>(dual[i * q + t]) * rest[f * q + t];
      sum += -s[i * q + t] * weight;
      shift += weight * static_cast<double>(intercept[t]);
    }
    if (i < n) sum += p.fit_intercept ? -(shift / static_cast<double>(n)) : 0;
    static_cast<Real*>(g.grad_X)[b.index * p.n_samples * features + k] = static_cast<Real>(sum);
  });
  b.for_each(p.n_samples * q, [&](std::int64_t k) {
    const double shift = p.fit_intercept ? static_cast<double>(intercept[k % q]) / static_cast<double>(n) : 0;
    static_cast<Real*>(g.grad_Y)[b.index * p.n_samples * q + k] =
        static_cast<Real>(k < n * q ? s[k] + shift : 0);
  });
  b.for_each(q, [&](std::int64_t t) {
    double sum = 0;
    for (std::int64_t i = 0; i < n; ++i) sum += s[i * q + t] * static_cast<double>(dual[i * q + t]);
    g.grad_alphas[b.index * q + t] = -sum;
  });
}

template <class Real, int kThreads>
__device__ void spoil_gradients(const RidgeGradient& g, const BlockProblem<Real, kThreads>& b) {
  const RidgeBatch& p = b.p;
  const std::int64_t n_x = p.n_samples * p.n_features, n_y = p.n_samples * p.n_targets;
  b.for_each(n_x,
             [&](std::int64_t k) { static_cast<Real*>(g.grad_X)[b.index * n_x + k] = not_a_number<Real>(); });
  b.for_each(n_y,
             [&](std::int64_t k) { static_cast<Real*>(g.grad_Y)[b.index * n_y + k] = not_a_number<Real>(); });
  b.for_each(p.n_targets, [&](std::int64_t t) { g.grad_alphas[b.index * p.n_targets + t] = NAN; });
}

template <class Real, int kThreads>
__global__ void __launch_bounds__(kThreads, 1)
    differentiate_problems(RidgeGradient g, DeviceRoom at, RidgePlan plan) {
  NK_DYNAMIC_SHARED(double, shared);
  for (std::int64_t i = blockIdx.x; i < g.batch.n_problems; i += gridDim.x) {
    BlockProblem<Real, kThreads> b = problem_of<Real, kThreads>(g.batch, at, plan, shared, i);
    if (b.valid && decompose(b)) {
      solve_gradient(g, b);
      write_gradients(g, b);
    } else {
      spoil_gradients(g, b);
    }
    __syncthreads();
  }
}

// ---- Launches

std::int64_t shared_bytes(const RidgePlan& plan, int n_threads) {
  const std::int64_t lanes = std::int64_t{plan.alpha_lanes} * plan.side * (2 + plan.targets);
  const std::int64_t tile = std::int64_t{kGramTile} * plan.side;
  const std::int64_t doubles =
      plan.side * plan.pitch + 7 * plan.side + kEight + n_threads + (lanes > tile ? lanes : tile);
  return doubles * std::int64_t{sizeof(double)};
}

// As many alphas and targets at once as there are, and as shared memory holds.
RidgePlan plan_batch(const RidgeBatch& p, int n_threads) {
  const int side = static_cast<int>(smaller(p.n_samples, p.n_features));
  RidgePlan plan{side, side | 1, 8, static_cast<int>(smaller(p.n_targets, kTargetsAtOnce))};
  if (plan.targets < 1) plan.targets = 1;
  const std::int64_t wanted = p.n_alphas > p.n_targets ? p.n_alphas : p.n_targets;
  while (plan.alpha_lanes < wanted && plan.alpha_lanes < kWarp) plan.alpha_lanes *= 2;
  while (plan.alpha_lanes > 8 && shared_bytes(plan, n_threads) > kSharedBytes) plan.alpha_lanes /= 2;
  while (plan.targets > 1 && shared_bytes(plan, n_threads) > kSharedBytes) --plan.targets;
  return plan;
}

unsigned blocks_of(const RidgeBatch& p) { return static_cast<unsigned>(smaller(p.n_problems, kMaxBlocks)); }

template <class Real, int kThreads>
void launch_solve(const RidgeBatch& p, void* stream) {
  const RidgePlan plan = plan_batch(p, kThreads);
  const auto kernel = solve_problems<Real, kThreads>;
  NK_LAUNCH_SHARED(kernel, blocks_of(p), kThreads, shared_bytes(plan, kThreads), stream, p, device_room(p),
                   plan);
}

template <class Real, int kThreads>
void launch_gradient(const RidgeGradient& g, void* stream) {
  const RidgePlan plan = plan_batch(g.batch, kThreads);
  const auto kernel = differentiate_problems<Real, kThreads>;
  NK_LAUNCH_SHARED(kernel, blocks_of(g.batch), kThreads, shared_bytes(plan, kThreads), stream, g,
                   device_room(g.batch), plan);
}

bool is_narrow(const RidgeBatch& p) { return smaller(p.n_samples, p.n_features) <= kWarp; }

}  // namespace

std::int64_t solve_ridge_cuda_scratch(const RidgeBatch& p) { return blocks_of(p) * device_room(p).total; }

void solve_ridge_cuda(const RidgeBatch& p, void* stream) {
  if (p.n_problems == 0) return;
  if (p.double_precision)
    return is_narrow(p) ? launch_solve<double, kWarp>(p, stream) : launch_solve<double, kWide>(p, stream);
  return is_narrow(p) ? launch_solve<float, kWarp>(p, stream) : launch_solve<float, kWide>(p, stream);
}

void solve_ridge_backward_cuda(const RidgeGradient& g, void* stream) {
  if (g.batch.n_problems == 0) return;
  if (g.batch.double_precision)
    return is_narrow(g.batch) ? launch_gradient<double, kWarp>(g, stream)
                              : launch_gradient<double, kWide>(g, stream);
  return is_narrow(g.batch) ? launch_gradient<float, kWarp>(g, stream)
                            : launch_gradient<float, kWide>(g, stream);
}

void ridge_sums_cuda(const RidgeSums& p, void* stream) {
  if (p.n_targets == 0 || p.n_penalties == 0) return;
  p.double_precision ? launch_sums<double>(p, stream) : launch_sums<float>(p, stream);
}

}  // namespace neurokern
