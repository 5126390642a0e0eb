// Python's door to decode_nifti: headers, files, masks, and addresses checked by neurokern.ops.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <new>
#include <string>
#include <utility>
#include <vector>

#include "decode_nifti/decode_nifti.h"
#if !defined(NEUROKERN_CUDA_MODULE)
#include "decode_nifti/decode_gzip.h"
#include "decode_nifti/gzip_stream.h"
#include "decode_nifti/header.h"
#include "decode_nifti/mapped_file.h"
#include "decode_nifti/mask_runs.h"
#include "decode_nifti/stored_runs.h"
#endif

namespace py = pybind11;

namespace neurokern {
namespace {

template <typename T>
T* pointer(std::uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

#if defined(NEUROKERN_CUDA_MODULE)

void bind_resident(py::module_& m) {
  m.def(
      "decode_resident",
      [](std::uintptr_t raw, std::int64_t volume_values, std::int64_t n_volumes, std::int64_t n_voxels,
         int type, bool swapped, double slope, double inter, std::uintptr_t positions, std::uintptr_t out,
         std::int64_t out_stride, int decoded, std::uintptr_t stream) {
        decode_resident_cuda(
            {pointer<const void>(raw), volume_values, n_volumes, n_voxels, static_cast<VoxelType>(type),
             swapped, slope, inter, pointer<const std::int64_t>(positions), pointer<void>(out), out_stride,
             static_cast<DecodedType>(decoded)},
            pointer<void>(stream));
      },
      py::kw_only(), py::arg("raw"), py::arg("volume_values"), py::arg("n_volumes"), py::arg("n_voxels"),
      py::arg("type"), py::arg("swapped"), py::arg("slope"), py::arg("inter"), py::arg("positions"),
      py::arg("out"), py::arg("out_stride"), py::arg("decoded"), py::arg("stream"));
  m.def(
      "reduce_resident",
      [](std::uintptr_t raw, std::int64_t volume_values, std::int64_t n_volumes, int type, bool swapped,
         double slope, double inter, std::uintptr_t positions, std::uintptr_t run_starts,
         std::uintptr_t parcel_runs, std::uintptr_t sizes, std::int64_t n_voxels, std::int64_t n_runs,
         std::int64_t n_parcels, std::uintptr_t out, std::uintptr_t stream) {
        reduce_resident_cuda(
            {pointer<const void>(raw), volume_values, n_volumes, static_cast<VoxelType>(type), swapped, slope,
             inter, pointer<const std::int64_t>(positions), pointer<const std::int64_t>(run_starts),
             pointer<const std::int64_t>(parcel_runs), pointer<const double>(sizes), n_voxels, n_runs,
             n_parcels, pointer<float>(out)},
            pointer<void>(stream));
      },
      py::kw_only(), py::arg("raw"), py::arg("volume_values"), py::arg("n_volumes"), py::arg("type"),
      py::arg("swapped"), py::arg("slope"), py::arg("inter"), py::arg("positions"), py::arg("run_starts"),
      py::arg("parcel_runs"), py::arg("sizes"), py::arg("n_voxels"), py::arg("n_runs"), py::arg("n_parcels"),
      py::arg("out"), py::arg("stream"));
  m.def(
      "clean_columns",
      [](std::uintptr_t values, std::uintptr_t basis, std::int64_t n_rows, std::int64_t n_columns,
         std::int64_t stride, std::int64_t n_basis, bool standardize, std::uintptr_t stream) {
        clean_columns_cuda({pointer<float>(values), pointer<const float>(basis), n_rows, n_columns, stride,
                            n_basis, standardize},
                           pointer<void>(stream));
      },
      py::kw_only(), py::arg("values"), py::arg("basis"), py::arg("n_rows"), py::arg("n_columns"),
      py::arg("stride"), py::arg("n_basis"), py::arg("standardize"), py::arg("stream"));
}

#else

// Errors of a file's content become ValueError, without the GIL while the work is done.
template <typename Work>
auto run_on_file(Work work) {
  try {
    const py::gil_scoped_release release;
    return work();
  } catch (const nifti::FormatError& error) {
    throw py::value_error(error.what());
  } catch (const StreamError& error) {
    throw py::value_error(error.what());
  }
}

void check_status(DecodeStatus status) {
  switch (status) {
    case DecodeStatus::ok:
      return;
    case DecodeStatus::out_of_memory:
      throw std::bad_alloc();
    case DecodeStatus::read_failed:
      throw StreamError("reading the file failed");
    case DecodeStatus::cut_short:
      throw StreamError("the file ends before its last value; it is cut short");
  }
}

py::tuple affine_of(const nifti::Header& header) {
  py::tuple rows(3);
  for (std::size_t i = 0; i < 3; ++i)
    rows[i] =
        py::make_tuple(header.affine[i][0], header.affine[i][1], header.affine[i][2], header.affine[i][3]);
  return rows;
}

void bind_header(py::module_& m) {
  using nifti::Header;
  py::class_<Header>(m, "NiftiHeader", "The fields of a NIfTI-1 or NIfTI-2 header that decoding needs.")
      .def_static(
          "parse",
          [](const std::string& bytes, bool has_image_file) {
            return run_on_file([&] {
              return nifti::parse_header(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(),
                                         has_image_file);
            });
          },
          py::arg("bytes"), py::arg("has_image_file"))
      .def(
          "check_size",
          [](const Header& header, std::int64_t file_bytes) {
            run_on_file([&] {
              nifti::check_size(header, file_bytes);
              return 0;
            });
          },
          py::arg("file_bytes"))
      .def_readonly("version", &Header::version)
      .def_readonly("swapped", &Header::swapped)
      .def_readonly("is_pair", &Header::is_pair)
      .def_readonly("n_dims", &Header::n_dims)
      .def_readonly("item_size", &Header::item_size)
      .def_readonly("offset", &Header::offset)
      .def_readonly("n_bytes", &Header::n_bytes)
      .def_readonly("slope", &Header::slope)
      .def_readonly("inter", &Header::inter)
      .def_readonly("spatial_unit", &Header::spatial_unit)
      .def_readonly("time_unit", &Header::time_unit)
      .def_readonly("affine_source", &Header::affine_source)
      .def_readonly("sform_code", &Header::sform_code)
      .def_readonly("qform_code", &Header::qform_code)
      .def_readonly("description", &Header::description)
      .def_property_readonly("dtype", [](const Header& h) { return nifti::type_name(h.type); })
      .def_property_readonly("affine", &affine_of)
      .def_property_readonly(
          "shape",
          [](const Header& h) { return py::make_tuple(h.shape[0], h.shape[1], h.shape[2], h.shape[3]); })
      .def_property_readonly("zooms", [](const Header& h) {
        return py::make_tuple(h.zooms[0], h.zooms[1], h.zooms[2], h.zooms[3]);
      });
}

void bind_file(py::module_& m) {
  py::class_<MappedFile>(m, "MappedFile", "A file opened, and mapped if asked to, for reading.")
      .def(py::init([](const std::string& path, bool map) { return new MappedFile(path, map); }),
           py::arg("path"), py::arg("map"))
      .def_property_readonly("address",
                             [](const MappedFile& f) { return reinterpret_cast<std::uintptr_t>(f.data()); })
      .def_property_readonly("descriptor", &MappedFile::descriptor)
      .def_property_readonly("size", &MappedFile::size)
      .def_property_readonly("state",
                             [](const MappedFile& f) {
                               const FileState& s = f.state();
                               return py::make_tuple(s.bytes, s.modified_ns, s.inode, s.device);
                             })
      .def("is_unchanged", &MappedFile::is_unchanged);
}

void bind_mask(py::module_& m) {
  m.def(
      "measure_mask",
      [](std::uintptr_t mask, std::int64_t n_x, std::int64_t n_y, std::int64_t n_z) {
        const MaskSize size = measure_mask(pointer<const unsigned char>(mask), {n_x, n_y, n_z});
        return py::make_tuple(size.n_voxels, size.n_runs);
      },
      py::arg("mask"), py::arg("n_x"), py::arg("n_y"), py::arg("n_z"), "Returns (voxels, runs).");
  m.def(
      "index_mask",
      [](std::uintptr_t mask, std::int64_t n_x, std::int64_t n_y, std::int64_t n_z, std::uintptr_t run_starts,
         std::uintptr_t run_lengths, std::uintptr_t order) {
        index_mask(pointer<const unsigned char>(mask), {n_x, n_y, n_z}, pointer<std::int64_t>(run_starts),
                   pointer<std::int64_t>(run_lengths), pointer<std::int32_t>(order));
      },
      py::arg("mask"), py::arg("n_x"), py::arg("n_y"), py::arg("n_z"), py::arg("run_starts"),
      py::arg("run_lengths"), py::arg("order"));
}

void bind_volumes(py::module_& m) {
  py::class_<DecodeVolumes>(m, "DecodeVolumes", "What to decode: addresses, sizes and the scale.")
      .def(py::init([](std::uintptr_t mapped, int descriptor, std::int64_t offset, std::int64_t volume_values,
                       std::int64_t n_volumes, int type, bool swapped, double slope, double inter,
                       std::uintptr_t run_starts, std::uintptr_t run_lengths, std::int64_t n_runs,
                       std::int64_t n_voxels, std::uintptr_t order, std::uintptr_t out,
                       std::int64_t out_stride, int decoded) {
             return DecodeVolumes{pointer<const unsigned char>(mapped),
                                  descriptor,
                                  offset,
                                  volume_values,
                                  n_volumes,
                                  static_cast<VoxelType>(type),
                                  swapped,
                                  slope,
                                  inter,
                                  pointer<const std::int64_t>(run_starts),
                                  pointer<const std::int64_t>(run_lengths),
                                  n_runs,
                                  n_voxels,
                                  pointer<const std::int32_t>(order),
                                  pointer<void>(out),
                                  out_stride,
                                  static_cast<DecodedType>(decoded)};
           }),
           py::kw_only(), py::arg("mapped"), py::arg("descriptor"), py::arg("offset"),
           py::arg("volume_values"), py::arg("n_volumes"), py::arg("type"), py::arg("swapped"),
           py::arg("slope"), py::arg("inter"), py::arg("run_starts"), py::arg("run_lengths"),
           py::arg("n_runs"), py::arg("n_voxels"), py::arg("order"), py::arg("out"), py::arg("out_stride"),
           py::arg("decoded"));
  py::class_<ParcelRuns>(m, "ParcelRuns", "Parcels as runs of the mask's voxels in file order.")
      .def(py::init([](std::uintptr_t lengths, std::uintptr_t parcels, std::uintptr_t sizes,
                       std::int64_t n_runs, std::int64_t n_parcels, std::uintptr_t voxels) {
             return ParcelRuns{pointer<const std::int32_t>(lengths),
                               pointer<const std::int32_t>(parcels),
                               pointer<const double>(sizes),
                               n_runs,
                               n_parcels,
                               pointer<const std::int32_t>(voxels)};
           }),
           py::kw_only(), py::arg("lengths"), py::arg("parcels"), py::arg("sizes"), py::arg("n_runs"),
           py::arg("n_parcels"), py::arg("voxels") = 0);
  m.def(
      "decode_volumes",
      [](const DecodeVolumes& p, const ParcelRuns* parcels, int n_threads) {
        run_on_file([&] {
          check_status(parcels != nullptr ? NK_DISPATCH(decode_parcels_cpu, p, *parcels, n_threads)
                                          : NK_DISPATCH(decode_volumes_cpu, p, n_threads));
          return 0;
        });
      },
      py::arg("volumes"), py::arg("parcels"), py::arg("n_threads"));
  m.def(
      "clean_columns",
      [](std::uintptr_t values, std::uintptr_t basis, std::int64_t n_rows, std::int64_t n_columns,
         std::int64_t stride, std::int64_t n_basis, bool standardize, int n_threads) {
        const CleanColumns p{pointer<float>(values),
                             pointer<const float>(basis),
                             n_rows,
                             n_columns,
                             stride,
                             n_basis,
                             standardize};
        run_on_file([&] {
          check_status(NK_DISPATCH(clean_columns_cpu, p, n_threads));
          return 0;
        });
      },
      py::kw_only(), py::arg("values"), py::arg("basis"), py::arg("n_rows"), py::arg("n_columns"),
      py::arg("stride"), py::arg("n_basis"), py::arg("standardize"), py::arg("n_threads"));
}

void bind_windows(py::module_& m) {
  py::class_<StoredRun>(m, "StoredRun", "Values of a run, time first, that windows are taken of.")
      .def(py::init([](std::uintptr_t raw, std::int64_t raw_stride, std::int64_t n_rows,
                       std::int64_t n_columns, std::uintptr_t columns, int type, double slope, double inter,
                       std::uintptr_t origin, std::uintptr_t factor, std::uintptr_t coefficients,
                       std::uintptr_t basis, std::int64_t n_basis, std::vector<const MappedFile*> files) {
             return StoredRun{{pointer<const void>(raw), raw_stride, n_columns,
                               pointer<const std::int32_t>(columns), static_cast<VoxelType>(type), slope,
                               inter, pointer<const float>(origin), pointer<const float>(factor),
                               pointer<const float>(coefficients), pointer<const float>(basis), n_basis},
                              n_rows,
                              std::move(files)};
           }),
           py::kw_only(), py::arg("raw"), py::arg("raw_stride"), py::arg("n_rows"), py::arg("n_columns"),
           py::arg("columns"), py::arg("type"), py::arg("slope"), py::arg("inter"), py::arg("origin"),
           py::arg("factor"), py::arg("coefficients"), py::arg("basis"), py::arg("n_basis"), py::arg("files"),
           py::keep_alive<1, 15>());
  m.def(
      "gather_windows",
      [](std::vector<const StoredRun*> runs, std::uintptr_t starts, std::uintptr_t lengths,
         std::int64_t n_rows, std::int64_t n_columns, std::int64_t out_stride, std::uintptr_t out,
         int decoded, int n_threads) {
        const py::gil_scoped_release release;
        return gather_windows(
            {std::move(runs), pointer<const std::int64_t>(starts), pointer<const std::int64_t>(lengths),
             n_rows, n_columns, out_stride, pointer<void>(out), static_cast<DecodedType>(decoded)},
            n_threads);
      },
      py::arg("runs"), py::arg("starts"), py::arg("lengths"), py::arg("n_rows"), py::arg("n_columns"),
      py::arg("out_stride"), py::arg("out"), py::arg("decoded"), py::arg("n_threads"),
      "Returns -1, or the number of a window of a run whose files were changed.");
  m.def(
      "fit_columns",
      [](std::uintptr_t values, std::int64_t stride, std::int64_t n_rows, std::int64_t n_columns,
         std::uintptr_t basis, std::int64_t n_basis, std::uintptr_t origin, std::uintptr_t sums,
         std::uintptr_t squares, int n_threads) {
        const py::gil_scoped_release release;
        const FitColumns p{pointer<const float>(values),
                           stride,
                           n_rows,
                           n_columns,
                           pointer<const double>(basis),
                           n_basis,
                           pointer<const float>(origin),
                           pointer<double>(sums),
                           pointer<double>(squares)};
        NK_DISPATCH(fit_columns_cpu, p, n_threads);
      },
      py::kw_only(), py::arg("values"), py::arg("stride"), py::arg("n_rows"), py::arg("n_columns"),
      py::arg("basis"), py::arg("n_basis"), py::arg("origin"), py::arg("sums"), py::arg("squares"),
      py::arg("n_threads"));
}

void bind_gzip(py::module_& m) {
  py::class_<GzipStream>(m, "GzipStream", "A gzip file's bytes from anywhere: one pass, and its seek points.")
      .def(py::init([](int descriptor, std::int64_t file_bytes, std::int64_t base, std::int64_t spacing) {
             return new GzipStream(descriptor, file_bytes, base, spacing);
           }),
           py::kw_only(), py::arg("descriptor"), py::arg("file_bytes"), py::arg("base"), py::arg("spacing"))
      .def_property_readonly("n_points", [](const GzipStream& s) { return s.index.n_points(); })
      .def_property_readonly("n_saved", [](const GzipStream& s) { return s.index.n_saved(); })
      .def_property_readonly("is_complete", [](const GzipStream& s) { return s.index.is_complete(); })
      .def_property_readonly("is_saved", [](const GzipStream& s) { return s.index.is_saved(); })
      .def_property_readonly("n_inflated", &GzipStream::n_inflated)
      .def(
          "load_index",
          [](GzipStream& s, const std::string& path, const std::string& key) {
            return s.index.load(path, key);
          },
          py::arg("path"), py::arg("key"))
      .def(
          "write_index",
          [](GzipStream& s, int descriptor, const std::string& key) {
            return run_on_file([&] { return s.index.write(descriptor, key); });
          },
          py::arg("descriptor"), py::arg("key"))
      .def(
          "adopt_index", [](GzipStream& s, const std::string& path) { s.index.adopt(path); }, py::arg("path"))
      .def(
          "spool_index", [](GzipStream& s, const std::string& folder) { s.index.spool_in(folder); },
          py::arg("folder"))
      .def(
          "decode",
          [](GzipStream& stream, const DecodeVolumes& p, const ParcelRuns* parcels, std::int64_t first,
             std::int64_t all_volumes, int n_threads) {
            run_on_file([&] {
              decode_gzip(stream, {p, first, all_volumes, parcels}, n_threads);
              return 0;
            });
          },
          py::arg("volumes"), py::arg("parcels"), py::arg("first"), py::arg("all_volumes"),
          py::arg("n_threads"));
  m.def(
      "inflate_start",
      [](int descriptor, std::int64_t file_bytes, std::int64_t n) {
        std::string bytes(static_cast<std::size_t>(n), '\0');
        const std::int64_t got = run_on_file([&] {
          return inflate_start(descriptor, file_bytes, reinterpret_cast<unsigned char*>(bytes.data()), n);
        });
        return py::bytes(bytes.data(), static_cast<std::size_t>(got));
      },
      py::arg("descriptor"), py::arg("file_bytes"), py::arg("n"),
      "Returns the first n inflated bytes, or fewer.");
}

#endif

}  // namespace

void bind_decode_nifti(py::module_& m) {
#if defined(NEUROKERN_CUDA_MODULE)
  bind_resident(m);
#else
  bind_header(m);
  bind_file(m);
  bind_mask(m);
  bind_volumes(m);
  bind_windows(m);
  bind_gzip(m);
#endif
}

}  // namespace neurokern
