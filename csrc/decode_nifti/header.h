// The header of a NIfTI-1 or NIfTI-2 file, read from bytes that may be hostile.
//
// Source: the NIfTI-1.1 and NIfTI-2 standards (nifti1.h, nifti2.h of the Data Format Working Group). No
// Python and no I/O here, so that it can be fuzzed by itself.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace neurokern {
namespace nifti {

constexpr std::size_t kHeaderBytes = 540;  // the longer of both versions; shorter files are looked at too

// Codes of the standard's `datatype`; those that are not here are unknown to it.
enum class DataType : int {
  u8 = 2,
  i16 = 4,
  i32 = 8,
  f32 = 16,
  c64 = 32,
  f64 = 64,
  rgb24 = 128,
  i8 = 256,
  u16 = 512,
  u32 = 768,
  i64 = 1024,
  u64 = 1280,
  f128 = 1536,
  c128 = 1792,
  c256 = 2048,
  rgba32 = 2304,
};

// What is wrong, by field and value; the reader of the file adds its name.
struct FormatError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Header {
  int version;            // 1 or 2
  bool swapped;           // the file's byte order is not this machine's
  bool is_pair;           // values lie in an .img file of their own
  std::int64_t shape[4];  // x, y, z, t; 1 where the file has fewer dimensions
  int n_dims;             // 1 to 4, as the file says; (x, y, z, 1, t) counts as 4
  DataType type;
  int item_size;         // bytes of a value
  std::int64_t offset;   // first byte of the values, in the file that holds them
  std::int64_t n_bytes;  // of all values
  double slope, inter;   // 1 and 0 where the file asks for no scaling
  double zooms[4];       // as in the file: size of a voxel, and what it says of the time between volumes
  int spatial_unit, time_unit;  // codes of xyzt_units: 1 m, 2 mm, 3 um; 8 s, 16 ms, 24 us, 32 Hz, 0 unknown
  double affine[3][4];          // voxel to millimeters: sform, else qform, else the zooms about the middle
  int affine_source;            // 3 sform, 2 qform, 0 neither
  int sform_code, qform_code;
  std::string description;  // printable characters alone
};

// Reads a header from the first `n` bytes of a file (give kHeaderBytes, fewer if the file is shorter). Throws
// FormatError. `has_image_file`: an .img file lies beside it.
Header parse_header(const unsigned char* bytes, std::size_t n, bool has_image_file);

// Throws FormatError unless a file of `file_bytes` bytes holds all values.
void check_size(const Header& header, std::int64_t file_bytes);

const char* type_name(DataType type);

}  // namespace nifti
}  // namespace neurokern
