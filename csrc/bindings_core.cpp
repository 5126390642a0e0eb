#include <pybind11/pybind11.h>

#include "common/huge_pages.h"
#include "common/isa.h"

namespace py = pybind11;

namespace neurokern {
// One line per op.
void bind_bin_spikes(py::module_& m);
void bind_decode_nifti(py::module_& m);
void bind_gather_regions(py::module_& m);
void bind_solve_ridge(py::module_& m);
}  // namespace neurokern

PYBIND11_MODULE(_core, m, py::mod_gil_not_used()) {
  m.doc() = "CPU kernels of neurokern. Functions take addresses and sizes; neurokern.ops checks them.";
  m.def("isa", [] { return neurokern::isa_name(neurokern::selected_isa()); }, "Instruction set in use.");
  m.def(
      "best_isa", [] { return neurokern::isa_name(neurokern::best_isa()); },
      "Best instruction set of this CPU.");
  m.def(
      "advise_huge_pages",
      [](std::uintptr_t address, std::int64_t bytes) {
        neurokern::advise_huge_pages(reinterpret_cast<void*>(address), bytes);
      },
      "Ask for huge pages under fresh memory of 4 MiB or more.");
  neurokern::bind_bin_spikes(m);
  neurokern::bind_decode_nifti(m);
  neurokern::bind_gather_regions(m);
  neurokern::bind_solve_ridge(m);
  neurokern::selected_isa();  // a bad NEUROKERN_ISA fails the import, not the first call
}
