// Python's door to the batched ridge solver: addresses and sizes, checked by neurokern.ops.
#include <pybind11/pybind11.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>
#include <string>

#include "solve_ridge/solve_ridge.h"
#include "solve_ridge/solve_ridge_body.h"

namespace py = pybind11;

namespace neurokern {
namespace {

using Address = std::uintptr_t;

template <typename T>
T* pointer(const py::dict& arguments, const char* name) {
  return reinterpret_cast<T*>(arguments[name].cast<Address>());
}

RidgeBatch batch_arguments(const py::dict& a) {
  const auto integer = [&](const char* name) { return a[name].cast<std::int64_t>(); };
  const auto flag = [&](const char* name) { return a[name].cast<bool>(); };
  RidgeBatch p{};
  p.X = pointer<const void>(a, "X");
  p.Y = pointer<const void>(a, "Y");
  p.alphas = pointer<const double>(a, "alphas");
  p.counts = pointer<const std::int64_t>(a, "counts");
  p.weights = pointer<void>(a, "weights");
  p.intercept = pointer<void>(a, "intercept");
  p.dual = pointer<void>(a, "dual");
  p.choice = pointer<std::int64_t>(a, "choice");
  p.scores = pointer<double>(a, "scores");
  p.n_problems = integer("n_problems");
  p.n_samples = integer("n_samples");
  p.n_features = integer("n_features");
  p.n_targets = integer("n_targets");
  p.n_alphas = integer("n_alphas");
  p.double_precision = flag("double_precision");
  p.fit_intercept = flag("fit_intercept");
  p.shared_alpha = flag("shared_alpha");
  return p;
}

RidgeGradient gradient_arguments(const py::dict& a) {
  return {batch_arguments(a),
          pointer<const void>(a, "grad_weights"),
          pointer<const void>(a, "grad_intercept"),
          pointer<void>(a, "grad_X"),
          pointer<void>(a, "grad_Y"),
          pointer<double>(a, "grad_alphas")};
}

RidgeSums sums_arguments(const py::dict& a) {
  const auto integer = [&](const char* name) { return a[name].cast<std::int64_t>(); };
  const auto flag = [&](const char* name) { return a[name].cast<bool>(); };
  RidgeSums p{};
  p.parts = pointer<const void>(a, "parts");
  p.mix = pointer<const void>(a, "mix");
  p.truth = pointer<const void>(a, "truth");
  p.scale = pointer<const void>(a, "scale");
  p.ones = pointer<const void>(a, "ones");
  p.sums = pointer<double>(a, "sums");
  p.combinations = pointer<void>(a, "combinations");
  p.n_targets = integer("n_targets");
  p.n_parts = integer("n_parts");
  p.n_samples = integer("n_samples");
  p.n_penalties = integer("n_penalties");
  p.double_precision = flag("double_precision");
  p.pairs = flag("pairs");
  p.residuals = flag("residuals");
  return p;
}

#if !defined(NEUROKERN_CUDA_MODULE)

constexpr double kSerialProducts = 1e6;  // about 200 us: threads cost more than they bring

// Products of one problem, by its leading terms.
double products(const RidgeBatch& p) {
  const auto n = static_cast<double>(p.n_samples), features = static_cast<double>(p.n_features);
  const double side = std::min(n, features);
  return n * side * (features + 2 * side) +
         n * side * static_cast<double>(p.n_alphas) * (3.0 + static_cast<double>(p.n_targets));
}

struct Room {
  std::unique_ptr<double, void (*)(void*)> memory{nullptr, std::free};
  std::int64_t n_tasks = 1;

  // For `n_items` tasks at most, of as many products and of `doubles`, a multiple of 8, each.
  Room(std::int64_t n_items, double products_of_item, std::int64_t doubles, int n_threads) {
    const bool serial = products_of_item * static_cast<double>(n_items) < kSerialProducts;
    if (!serial && n_threads > 1)
      n_tasks = std::clamp<std::int64_t>(4 * n_threads, 1, std::max<std::int64_t>(n_items, 1));
    const auto size = static_cast<std::size_t>(doubles * n_tasks);
    memory.reset(
        static_cast<double*>(std::aligned_alloc(64, std::max<std::size_t>(size, 8) * sizeof(double))));
    if (memory == nullptr) throw std::bad_alloc();
  }
};

Room make_room(RidgeBatch* p, int n_threads) {
  Room room(p->n_problems, products(*p), room_of(*p).total, n_threads);
  p->scratch = room.memory.get();
  return room;
}

void add_sums(const py::dict& arguments, int n_threads) {
  RidgeSums p = sums_arguments(arguments);
  const py::gil_scoped_release release;
  const auto n_penalties = static_cast<double>(p.n_penalties);
  const double of_sample = n_penalties * (static_cast<double>(p.n_parts) + (p.pairs ? n_penalties / 2 : 4.0));
  const Room room(p.n_targets, of_sample * static_cast<double>(p.n_samples), sums_room(p), n_threads);
  p.scratch = room.memory.get();
  NK_DISPATCH(ridge_sums_cpu, p, room.n_tasks, n_threads);
}

std::int64_t solve_batch(const py::dict& arguments, int n_threads) {
  RidgeBatch p = batch_arguments(arguments);
  std::int64_t n_bad = 0;
  p.n_bad = &n_bad;
  const py::gil_scoped_release release;
  const Room room = make_room(&p, n_threads);
  NK_DISPATCH(solve_ridge_cpu, p, room.n_tasks, n_threads);
  return n_bad;
}

void solve_batch_backward(const py::dict& arguments, int n_threads) {
  RidgeGradient g = gradient_arguments(arguments);
  const py::gil_scoped_release release;
  const Room room = make_room(&g.batch, n_threads);
  NK_DISPATCH(solve_ridge_backward_cpu, g, room.n_tasks, n_threads);
}

#endif

}  // namespace

#if defined(NEUROKERN_CUDA_MODULE)
void bind_solve_ridge(py::module_& m) {
  m.def(
      "ridge_room",
      [](const py::dict& arguments) { return solve_ridge_cuda_scratch(batch_arguments(arguments)); },
      py::arg("arguments"), "Numbers of scratch that both directions need.");
  m.def(
      "solve_ridge_batched",
      [](const py::dict& arguments, Address scratch, std::uintptr_t stream) {
        RidgeBatch p = batch_arguments(arguments);
        p.scratch = reinterpret_cast<double*>(scratch);
        solve_ridge_cuda(p, reinterpret_cast<void*>(stream));
      },
      py::arg("arguments"), py::arg("scratch"), py::arg("stream"));
  m.def(
      "solve_ridge_batched_backward",
      [](const py::dict& arguments, Address scratch, std::uintptr_t stream) {
        RidgeGradient g = gradient_arguments(arguments);
        g.batch.scratch = reinterpret_cast<double*>(scratch);
        solve_ridge_backward_cuda(g, reinterpret_cast<void*>(stream));
      },
      py::arg("arguments"), py::arg("scratch"), py::arg("stream"));
  m.def(
      "ridge_sums",
      [](const py::dict& arguments, std::uintptr_t stream) {
        ridge_sums_cuda(sums_arguments(arguments), reinterpret_cast<void*>(stream));
      },
      py::arg("arguments"), py::arg("stream"));
}
#else
void bind_solve_ridge(py::module_& m) {
  m.attr("max_ridge_side") = kMaxRidgeSide;
  m.attr("max_cuda_ridge_side") = kMaxCudaRidgeSide;
  m.def("solve_ridge_batched", &solve_batch, py::arg("arguments"), py::arg("n_threads"),
        "Returns the number of problems with numbers that are not finite.");
  m.def("solve_ridge_batched_backward", &solve_batch_backward, py::arg("arguments"), py::arg("n_threads"));
  m.attr("max_cuda_ridge_pairs") = kMaxCudaPairs;
  m.def("ridge_sums", &add_sums, py::arg("arguments"), py::arg("n_threads"));
}
#endif

}  // namespace neurokern
