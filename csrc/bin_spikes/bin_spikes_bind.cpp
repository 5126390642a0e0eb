// Python's door to bin_spikes: addresses and sizes, checked by neurokern.ops.
#include <pybind11/pybind11.h>

#include <stdexcept>

#include "bin_spikes/bin_spikes.h"

namespace py = pybind11;

namespace neurokern {
namespace {

template <typename T>
T* pointer(std::uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

}  // namespace

void bind_bin_spikes(py::module_& m) {
  // Local to the module, since _core and _cuda both have it.
  py::class_<BinSpikes>(m, "BinSpikes", py::module_local(),
                        "What to bin: addresses, sizes and the grid of bins.")
      .def(
          py::init([](std::uintptr_t times, std::uintptr_t units, std::uintptr_t starts, std::uintptr_t edges,
                      std::uintptr_t unit_map, std::uintptr_t counts, std::int64_t n_spikes,
                      std::int64_t n_windows, std::int64_t n_bins, std::int64_t n_units, std::int64_t n_ids,
                      double start, double step, double tolerance, std::int64_t first_sample,
                      std::int64_t width_numerator, std::int64_t width_denominator,
                      std::int64_t largest_exact, int count_type, int order, bool integer_times,
                      bool wide_units, bool step_is_rate, bool closed_last, std::uintptr_t train_ends,
                      std::int64_t n_trains, int smoothing, std::uintptr_t weights, std::int64_t n_weights) {
            return BinSpikes{pointer<const void>(times),
                             pointer<const void>(units),
                             pointer<const void>(starts),
                             pointer<const void>(edges),
                             pointer<const std::int64_t>(unit_map),
                             pointer<void>(counts),
                             n_spikes,
                             n_windows,
                             n_bins,
                             n_units,
                             n_ids,
                             start,
                             step,
                             tolerance,
                             first_sample,
                             width_numerator,
                             width_denominator,
                             largest_exact,
                             static_cast<CountType>(count_type),
                             static_cast<SpikeOrder>(order),
                             integer_times,
                             wide_units,
                             step_is_rate,
                             closed_last,
                             pointer<const std::int64_t>(train_ends),
                             n_trains,
                             static_cast<Smoothing>(smoothing),
                             pointer<const float>(weights),
                             n_weights};
          }),
          py::kw_only(), py::arg("times"), py::arg("units"), py::arg("starts"), py::arg("edges"),
          py::arg("unit_map"), py::arg("counts"), py::arg("n_spikes"), py::arg("n_windows"),
          py::arg("n_bins"), py::arg("n_units"), py::arg("n_ids"), py::arg("start"), py::arg("step"),
          py::arg("tolerance"), py::arg("first_sample"), py::arg("width_numerator"),
          py::arg("width_denominator"), py::arg("largest_exact"), py::arg("count_type"), py::arg("order"),
          py::arg("integer_times"), py::arg("wide_units"), py::arg("step_is_rate"), py::arg("closed_last"),
          py::arg("train_ends"), py::arg("n_trains"), py::arg("smoothing"), py::arg("weights"),
          py::arg("n_weights"));
#if defined(NEUROKERN_CUDA_MODULE)
  py::class_<CudaLimits>(m, "CudaLimits", py::module_local(),
                         "How large the parts are that a GPU's work is cut into; for tests.")
      .def(py::init([](const py::kwargs& changes) {
        CudaLimits limits;
        const py::object self = py::cast(&limits, py::return_value_policy::reference);
        for (const auto& [name, value] : changes) py::setattr(self, name, value);
        return limits;
      }))
      .def_readwrite("tile_cells", &CudaLimits::tile_cells)
      .def_readwrite("wanted_items", &CudaLimits::wanted_items)
      .def_readwrite("heavy_spikes", &CudaLimits::heavy_spikes)
      .def_readwrite("heavy_slots", &CudaLimits::heavy_slots)
      .def_readwrite("buckets", &CudaLimits::buckets)
      .def_readwrite("shares", &CudaLimits::shares)
      .def_readwrite("smooth_chunk", &CudaLimits::smooth_chunk)
      .def_readwrite("smooth_warm_up", &CudaLimits::smooth_warm_up);
  m.def("bin_spikes_workspace", &bin_spikes_cuda_workspace, py::arg("problem"), py::arg("limits"),
        "Bytes of scratch memory that bin_spikes needs.");
  m.def(
      "bin_spikes",
      [](const BinSpikes& p, const CudaLimits& limits, std::uintptr_t workspace, std::uintptr_t report,
         std::uintptr_t stream) {
        bin_spikes_cuda(p, limits, pointer<void>(workspace), pointer<std::int64_t>(report),
                        pointer<void>(stream));
      },
      py::arg("problem"), py::arg("limits"), py::arg("workspace"), py::arg("report"), py::arg("stream"));
#else
  m.def(
      "bin_spikes",
      [](const BinSpikes& p, int n_threads) {
        BinSpikesReport report;
        {
          const py::gil_scoped_release release;
          NK_DISPATCH(bin_spikes_cpu, p, n_threads, &report);
        }
        if (report.out_of_memory != 0) throw std::bad_alloc();
        return py::make_tuple(report.outside, report.unknown, report.unmapped, report.largest);
      },
      py::arg("problem"), py::arg("n_threads"), "Returns (outside, unknown, unmapped, largest).");
#endif
}

}  // namespace neurokern
