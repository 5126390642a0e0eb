#include <cuda_runtime.h>
#include <pybind11/pybind11.h>

namespace py = pybind11;

namespace neurokern {
// One line per op.
void bind_bin_spikes(py::module_& m);
void bind_decode_nifti(py::module_& m);
void bind_gather_regions(py::module_& m);
void bind_solve_ridge(py::module_& m);
}  // namespace neurokern

namespace {

// Versions as cudart writes them (13000 is 13.0). Without a driver the numbers are 0 and nothing is raised.
py::dict info() {
  int runtime = 0, driver = 0, devices = 0;
  static_cast<void>(cudaRuntimeGetVersion(&runtime));
  static_cast<void>(cudaDriverGetVersion(&driver));
  if (cudaGetDeviceCount(&devices) != cudaSuccess) devices = 0;
  static_cast<void>(cudaGetLastError());
  py::dict facts;
  facts["archs"] = NEUROKERN_CUDA_ARCHS;
  facts["runtime"] = runtime;
  facts["driver"] = driver;
  facts["devices"] = devices;
  return facts;
}

}  // namespace

PYBIND11_MODULE(_cuda, m, py::mod_gil_not_used()) {
  m.doc() = "CUDA kernels of neurokern. Functions take device addresses, sizes and a stream.";
  m.def("info", &info);
  neurokern::bind_bin_spikes(m);
  neurokern::bind_decode_nifti(m);
  neurokern::bind_gather_regions(m);
  neurokern::bind_solve_ridge(m);
}
