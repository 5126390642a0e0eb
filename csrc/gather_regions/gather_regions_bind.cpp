// Python's view of the region kernels: addresses and sizes in, nothing out. Values (not shapes) are checked
// here, where the arrays are readable: on the CPU.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <memory>
#include <stdexcept>
#include <string>

#include "gather_regions/gather_regions.h"

namespace py = pybind11;

namespace neurokern {
namespace {

using Address = std::uintptr_t;

template <class T>
T* pointer(Address address) {
  return reinterpret_cast<T*>(address);
}

MaskRegions mask_arguments(const py::dict& a) {
  const auto integer = [&](const char* name) { return a[name].cast<std::int64_t>(); };
  const auto address = [&](const char* name) { return a[name].cast<Address>(); };
  MaskRegions p{};
  p.x = pointer<const void>(address("x"));
  p.inputs = pointer<void>(address("inputs"));
  p.target_mask = pointer<std::uint8_t>(address("target_mask"));
  p.region = pointer<std::int64_t>(address("region"));
  p.regions = pointer<const std::int64_t>(address("regions"));
  p.unit_counts = pointer<const std::int64_t>(address("unit_counts"));
  p.bin_counts = pointer<const std::int64_t>(address("bin_counts"));
  p.schemes = pointer<const std::int64_t>(address("schemes"));
  p.best_ranks = pointer<std::uint64_t>(address("best_ranks"));
  std::tie(p.n_samples, p.n_bins, p.n_units) =
      a["shape"].cast<std::tuple<std::int64_t, std::int64_t, std::int64_t>>();
  std::tie(p.x_stride_sample, p.x_stride_bin) = a["x_strides"].cast<std::pair<std::int64_t, std::int64_t>>();
  std::tie(p.inputs_stride_sample, p.inputs_stride_bin) =
      a["inputs_strides"].cast<std::pair<std::int64_t, std::int64_t>>();
  p.regions_stride_sample = integer("regions_stride");
  p.element_size = static_cast<int>(integer("element_size"));
  p.scheme = static_cast<int>(integer("scheme"));
  const auto thresholds = a["thresholds"].cast<std::array<std::uint64_t, kMaskSchemes>>();
  for (int scheme = 0; scheme < kMaskSchemes; ++scheme) p.thresholds[scheme] = thresholds[scheme];
  p.seed = a["seed"].cast<std::uint64_t>();
  p.offset = a["offset"].cast<std::uint64_t>();
  p.forced_region = integer("region_id");
  p.choose_per_sample = a["choose_per_sample"].cast<bool>();
  p.span = integer("span");
  p.replacement = static_cast<int>(integer("replacement"));
  p.fill = a["fill"].cast<std::uint64_t>();
  return p;
}

PackTargets pack_arguments(const py::dict& a) {
  const auto address = [&](const char* name) { return a[name].cast<Address>(); };
  PackTargets p{};
  p.target_mask = pointer<const std::uint8_t>(address("target_mask"));
  p.index = pointer<std::int64_t>(address("index"));
  p.cu_seqlens = pointer<std::int32_t>(address("cu_seqlens"));
  p.chunk_starts = pointer<std::int32_t>(address("chunk_starts"));
  p.n_samples = a["n_samples"].cast<std::int64_t>();
  p.sample_cells = a["sample_cells"].cast<std::int64_t>();
  p.capacity = a["capacity"].cast<std::int64_t>();
  return p;
}

#if defined(NEUROKERN_CUDA_MODULE)

RegionRows row_arguments(const py::dict& a) {
  const auto integer = [&](const char* name) { return a[name].cast<std::int64_t>(); };
  const auto address = [&](const char* name) { return a[name].cast<Address>(); };
  RegionRows p{};
  p.x = pointer<const void>(address("x"));
  p.y = pointer<void>(address("y"));
  p.rows = pointer<void>(address("rows"));
  p.samples = pointer<const std::int64_t>(address("samples"));
  p.units = pointer<const std::int64_t>(address("units"));
  p.rows_of_units = pointer<const std::int32_t>(address("rows_of_units"));
  p.cu_seqlens = pointer<const std::int32_t>(address("cu_seqlens"));
  p.n_index = integer("n_index");
  p.n_rows = integer("n_rows");
  std::tie(p.n_samples, p.n_bins, p.n_units) =
      a["shape"].cast<std::tuple<std::int64_t, std::int64_t, std::int64_t>>();
  std::tie(p.x_stride_sample, p.x_stride_bin, p.x_stride_unit) =
      a["x_strides"].cast<std::tuple<std::int64_t, std::int64_t, std::int64_t>>();
  p.element_size = a["element_size"].cast<int>();
  p.max_rows = integer("max_rows");
  p.padded = p.max_rows >= 0;
  return p;
}

#else

void check_counts(const char* name, const std::int64_t* counts, std::int64_t n, std::int64_t size) {
  if (counts == nullptr) return;
  for (std::int64_t b = 0; b < n; ++b)
    if (counts[b] < 0 || counts[b] > size)
      throw std::invalid_argument(std::string("mask_regions: ") + name + " must lie in [0, " +
                                  std::to_string(size) + "], got " + std::to_string(counts[b]) +
                                  " for sample " + std::to_string(b));
}

// True if some sample's scheme hides by region.
bool check_schemes(const MaskRegions& p) {
  const auto by_region = [](std::int64_t scheme) { return scheme == kIntraRegion || scheme == kInterRegion; };
  if (p.schemes == nullptr) return by_region(p.scheme);
  bool any = false;
  for (std::int64_t b = 0; b < p.n_samples; ++b) {
    if (p.schemes[b] < 0 || p.schemes[b] >= kMaskSchemes)
      throw std::invalid_argument("mask_regions: scheme must hold numbers in [0, " +
                                  std::to_string(kMaskSchemes) + "), got " + std::to_string(p.schemes[b]) +
                                  " for sample " + std::to_string(b));
    any = any || by_region(p.schemes[b]);
  }
  return any;
}

void check_regions(const MaskRegions& p) {
  bool any = false, forced_found = p.forced_region < 0;
  const std::int64_t n_rows = p.regions_stride_sample == 0 ? (p.n_samples > 0 ? 1 : 0) : p.n_samples;
  for (std::int64_t i = 0; i < n_rows * p.n_units; ++i) {
    if (p.regions[i] > 0x7FFFFFFF)
      throw std::invalid_argument("mask_regions: regions must be below 2**31, got " +
                                  std::to_string(p.regions[i]) + "; number them from 0");
    any = any || p.regions[i] >= 0;
    forced_found = forced_found || p.regions[i] == p.forced_region;
  }
  if (n_rows * p.n_units == 0) return;
  if (!forced_found)
    throw std::invalid_argument("mask_regions: region must be one of the batch's regions, got " +
                                std::to_string(p.forced_region) + ", which no unit has");
  if (!any)
    throw std::invalid_argument(
        "mask_regions: regions must know the region of at least one unit, got only -1; use a "
        "scheme without regions such as \"neuron\"");
}

void mask_regions(const py::dict& arguments, int n_threads) {
  MaskRegions p = mask_arguments(arguments);
  check_counts("n_units", p.unit_counts, p.n_samples, p.n_units);
  check_counts("n_bins", p.bin_counts, p.n_samples, p.n_bins);
  if (check_schemes(p)) {
    if (p.regions == nullptr)
      throw std::invalid_argument(
          "mask_regions: regions must be given for the schemes \"intra-region\" and "
          "\"inter-region\", got None");
    check_regions(p);
  }
  const auto n_codes = static_cast<std::size_t>(p.n_samples * p.n_units);
  const auto n_states = static_cast<std::size_t>(p.n_samples * p.n_bins);
  const std::unique_ptr<std::uint8_t[]> scratch(new std::uint8_t[n_codes + n_states]);
  p.unit_codes = scratch.get();
  p.bin_states = scratch.get() + n_codes;
  const py::gil_scoped_release release;
  NK_DISPATCH(mask_regions_cpu, p, n_threads);
}

void count_targets(const py::dict& arguments, int n_threads) {
  const PackTargets p = pack_arguments(arguments);
  const py::gil_scoped_release release;
  NK_DISPATCH(count_targets_cpu, p, n_threads);
}

void write_targets(const py::dict& arguments, int n_threads) {
  const PackTargets p = pack_arguments(arguments);
  const py::gil_scoped_release release;
  NK_DISPATCH(write_targets_cpu, p, n_threads);
}

#endif

}  // namespace

#if defined(NEUROKERN_CUDA_MODULE)
void bind_gather_regions(py::module_& m) {
  const auto define = [&](const char* name, auto&& call) {
    m.def(name, call, py::arg("arguments"), py::arg("stream"));
  };
  define("mask_regions", [](const py::dict& arguments, Address stream) {
    mask_regions_cuda(mask_arguments(arguments), pointer<void>(stream));
  });
  define("gather_regions", [](const py::dict& arguments, Address stream) {
    gather_regions_cuda(row_arguments(arguments), pointer<void>(stream));
  });
  define("scatter_regions", [](const py::dict& arguments, Address stream) {
    scatter_regions_cuda(row_arguments(arguments), pointer<void>(stream));
  });
  define("count_targets", [](const py::dict& arguments, Address stream) {
    count_targets_cuda(pack_arguments(arguments), pointer<void>(stream));
  });
  define("write_targets", [](const py::dict& arguments, Address stream) {
    write_targets_cuda(pack_arguments(arguments), pointer<void>(stream));
  });
  m.def("target_chunks", &target_chunks, py::arg("n_samples"), py::arg("sample_cells"));
}
#else
void bind_gather_regions(py::module_& m) {
  m.def("mask_regions", &mask_regions, py::arg("arguments"), py::arg("n_threads"));
  m.def("count_targets", &count_targets, py::arg("arguments"), py::arg("n_threads"));
  m.def("write_targets", &write_targets, py::arg("arguments"), py::arg("n_threads"));
}
#endif

}  // namespace neurokern
