#include "decode_nifti/header.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <sstream>

namespace neurokern {
namespace nifti {
namespace {

// Where a field lies in each version, in bytes.
struct Layout {
  std::size_t size, magic, datatype, dim, pixdim, vox_offset, slope, inter, units, description, qform_code,
      sform_code, quaternion, quaternion_offset, sform;
};
constexpr Layout kNifti1{348, 344, 70, 40, 76, 108, 112, 116, 123, 148, 252, 254, 256, 268, 280};
constexpr Layout kNifti2{540, 4, 12, 16, 104, 168, 176, 184, 500, 240, 344, 348, 352, 376, 400};
constexpr std::size_t kDescriptionBytes = 80;

template <typename... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  throw FormatError(text.str());
}

template <typename T>
T swap_bytes(T value) {
  unsigned char bytes[sizeof(T)], swapped[sizeof(T)];
  std::memcpy(bytes, &value, sizeof(T));
  for (std::size_t i = 0; i < sizeof(T); ++i) swapped[i] = bytes[sizeof(T) - 1 - i];
  std::memcpy(&value, swapped, sizeof(T));
  return value;
}

// The fields of either version under one name and type; every read is inside the header.
class Fields {
 public:
  Fields(const unsigned char* bytes, const Layout& layout, int version, bool swapped)
      : bytes_(bytes), layout_(layout), version_(version), swapped_(swapped) {}

  std::int64_t dim(int i) const { return integer<std::int16_t, std::int64_t>(layout_.dim, i); }
  double pixdim(int i) const { return real(layout_.pixdim, i); }
  double slope() const { return real(layout_.slope, 0); }
  double inter() const { return real(layout_.inter, 0); }
  double quaternion(int i) const { return real(layout_.quaternion, i); }
  double quaternion_offset(int i) const { return real(layout_.quaternion_offset, i); }
  double sform(int i) const { return real(layout_.sform, i); }
  int datatype() const { return read<std::int16_t>(layout_.datatype); }
  int qform_code() const {
    return static_cast<int>(integer<std::int16_t, std::int32_t>(layout_.qform_code, 0));
  }
  int sform_code() const {
    return static_cast<int>(integer<std::int16_t, std::int32_t>(layout_.sform_code, 0));
  }
  int units() const { return static_cast<int>(integer<std::uint8_t, std::int32_t>(layout_.units, 0)); }
  std::int64_t vox_offset() const {
    if (version_ == 2) return read<std::int64_t>(layout_.vox_offset);
    const double value = read<float>(layout_.vox_offset);
    if (!(std::fabs(value) < 9e15) || value != std::floor(value))
      fail("vox_offset must be a whole number of bytes, got ", value);
    return static_cast<std::int64_t>(value);
  }
  std::string description() const {
    std::string text;
    for (std::size_t i = 0; i < kDescriptionBytes && bytes_[layout_.description + i] != 0; ++i) {
      const char c = static_cast<char>(bytes_[layout_.description + i]);
      text += c >= ' ' && c <= '~' ? c : '?';
    }
    return text;
  }

 private:
  template <typename T>
  T read(std::size_t at) const {
    T value;
    std::memcpy(&value, bytes_ + at, sizeof(T));
    return swapped_ ? swap_bytes(value) : value;
  }
  template <typename Narrow, typename Wide>
  std::int64_t integer(std::size_t at, int i) const {
    const auto index = static_cast<std::size_t>(i);
    return version_ == 1 ? static_cast<std::int64_t>(read<Narrow>(at + index * sizeof(Narrow)))
                         : static_cast<std::int64_t>(read<Wide>(at + index * sizeof(Wide)));
  }
  double real(std::size_t at, int i) const {
    const auto index = static_cast<std::size_t>(i);
    return version_ == 1 ? static_cast<double>(read<float>(at + index * sizeof(float)))
                         : read<double>(at + index * sizeof(double));
  }

  const unsigned char* bytes_;
  const Layout& layout_;
  int version_;
  bool swapped_;
};

bool has_magic(const unsigned char* at, const char* magic) { return std::memcmp(at, magic, 4) == 0; }

std::string printable(const unsigned char* at, std::size_t n) {
  std::ostringstream text;
  for (std::size_t i = 0; i < n; ++i) {
    if (at[i] >= ' ' && at[i] <= '~') {
      text << static_cast<char>(at[i]);
    } else {
      text << "\\x" << "0123456789abcdef"[at[i] >> 4] << "0123456789abcdef"[at[i] & 15];
    }
  }
  return text.str();
}

struct Kind {
  int version;
  bool is_pair;
};

Kind kind_of(const unsigned char* bytes, std::size_t n) {
  const auto at = [&](const Layout& layout) { return bytes + layout.magic; };
  if (n == 0) fail("the file is empty");
  if (n >= kNifti2.size && (has_magic(at(kNifti2), "n+2") || has_magic(at(kNifti2), "ni2")))
    return {2, has_magic(at(kNifti2), "ni2")};
  if (n < kNifti1.size) fail("the header must have 348 bytes (NIfTI-1) or 540 (NIfTI-2), the file has ", n);
  if (has_magic(at(kNifti1), "n+1") || has_magic(at(kNifti1), "ni1"))
    return {1, has_magic(at(kNifti1), "ni1")};
  fail("magic must be 'n+1', 'ni1', 'n+2' or 'ni2', got '", printable(at(kNifti1), 4),
       "'; Analyze and other formats are not read");
}

int item_size(int code) {
  switch (static_cast<DataType>(code)) {
    case DataType::u8:
    case DataType::i8:
      return 1;
    case DataType::i16:
    case DataType::u16:
      return 2;
    case DataType::rgb24:
      return 3;
    case DataType::i32:
    case DataType::u32:
    case DataType::f32:
    case DataType::rgba32:
      return 4;
    case DataType::i64:
    case DataType::u64:
    case DataType::f64:
    case DataType::c64:
      return 8;
    case DataType::f128:
    case DataType::c128:
      return 16;
    case DataType::c256:
      return 32;
  }
  return 0;
}

void read_shape(const Fields& fields, Header& header) {
  const int n = static_cast<int>(fields.dim(0));
  std::int64_t size[7] = {1, 1, 1, 1, 1, 1, 1};
  for (int i = 0; i < n; ++i) {
    size[i] = fields.dim(i + 1);
    if (size[i] < 1)
      fail("dim[", i + 1, "] must be at least 1, got ", size[i],
           size[i] == -1 ? " (FreeSurfer's form of long vectors is not read)" : "");
  }
  // A time series may be stored as (x, y, z, 1, t).
  if (size[3] == 1) std::swap(size[3], size[4]);
  for (int i = 4; i < 7; ++i)
    if (size[i] != 1)
      fail("dim must describe (x, y, z, t), got dim[", i + 1, "] = ", size[i], " beyond a time axis of ",
           size[3]);
  header.n_dims = n > 4 ? 4 : n;
  std::int64_t total = header.item_size;
  for (int i = 0; i < 4; ++i) {
    header.shape[i] = size[i];
    if (size[i] > std::numeric_limits<std::int64_t>::max() / total)
      fail("dim must describe fewer than 2^63 bytes, got ", size[0], " x ", size[1], " x ", size[2], " x ",
           size[3]);
    total *= size[i];
  }
  header.n_bytes = total;
}

void read_offset(const Fields& fields, const Layout& layout, bool has_image_file, Header& header) {
  header.offset = fields.vox_offset();
  const std::int64_t least = header.is_pair ? 0 : static_cast<std::int64_t>(layout.size) + 4;
  if (header.is_pair && !has_image_file) {
    // A single file that calls itself a pair is read where its values can only lie behind the header.
    if (header.offset < static_cast<std::int64_t>(layout.size) + 4)
      fail("magic 'ni", header.version,
           "' says that the values lie in an .img file, and there is none beside it");
    header.is_pair = false;
    return;
  }
  if (header.offset < least)
    fail("vox_offset must be at least ", least, " (the header's end), got ", header.offset);
}

void read_scaling(const Fields& fields, Header& header) {
  header.slope = fields.slope();
  header.inter = fields.inter();
  if (header.slope == 0 || std::isnan(header.slope)) {  // the standard: no scaling
    header.slope = 1;
    header.inter = 0;
    return;
  }
  if (std::isinf(header.slope)) fail("scl_slope must be finite, got ", header.slope);
  if (!std::isfinite(header.inter)) fail("scl_inter must be finite, got ", header.inter);
}

void affine_from_sform(const Fields& fields, Header& header) {
  for (int row = 0; row < 3; ++row)
    for (int column = 0; column < 4; ++column) header.affine[row][column] = fields.sform(4 * row + column);
}

// Rotation by the unit quaternion (a, b, c, d), a >= 0, of which the file holds b, c, d.
void affine_from_qform(const Fields& fields, Header& header) {
  double b = fields.quaternion(0), c = fields.quaternion(1), d = fields.quaternion(2);
  double a = 1 - (b * b + c * c + d * d);
  if (a < 1e-7) {  // half a turn, or rounded beyond it
    const double length = std::sqrt(b * b + c * c + d * d);
    b /= length, c /= length, d /= length;
    a = 0;
  } else {
    a = std::sqrt(a);
  }
  const double rotation[3][3] = {{a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)},
                                 {2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)},
                                 {2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - c * c - b * b}};
  const double flip = fields.pixdim(0) < 0 ? -1 : 1;
  for (int row = 0; row < 3; ++row) {
    for (int column = 0; column < 3; ++column)
      header.affine[row][column] = rotation[row][column] * header.zooms[column] * (column == 2 ? flip : 1);
    header.affine[row][3] = fields.quaternion_offset(row);
  }
}

// No orientation: voxels of the zooms' size about the middle, the first axis from right to left (as Analyze).
void affine_from_zooms(Header& header) {
  for (int row = 0; row < 3; ++row) {
    const double step = row == 0 ? -header.zooms[row] : header.zooms[row];
    for (int column = 0; column < 3; ++column) header.affine[row][column] = row == column ? step : 0;
    header.affine[row][3] = -step * static_cast<double>(header.shape[row] - 1) / 2;
  }
}

void read_space(const Fields& fields, Header& header) {
  for (int i = 0; i < 4; ++i) header.zooms[i] = std::fabs(fields.pixdim(i + 1));
  header.spatial_unit = fields.units() & 7;
  header.time_unit = fields.units() & 56;
  header.sform_code = fields.sform_code();
  header.qform_code = fields.qform_code();
  header.affine_source = header.sform_code > 0 ? 3 : header.qform_code > 0 ? 2 : 0;
  if (header.affine_source == 3) {
    affine_from_sform(fields, header);
  } else if (header.affine_source == 2) {
    affine_from_qform(fields, header);
  } else {
    affine_from_zooms(header);
  }
}

}  // namespace

const char* type_name(DataType type) {
  switch (type) {
    case DataType::u8:
      return "uint8";
    case DataType::i8:
      return "int8";
    case DataType::i16:
      return "int16";
    case DataType::u16:
      return "uint16";
    case DataType::i32:
      return "int32";
    case DataType::u32:
      return "uint32";
    case DataType::i64:
      return "int64";
    case DataType::u64:
      return "uint64";
    case DataType::f32:
      return "float32";
    case DataType::f64:
      return "float64";
    case DataType::f128:
      return "float128";
    case DataType::c64:
      return "complex64";
    case DataType::c128:
      return "complex128";
    case DataType::c256:
      return "complex256";
    case DataType::rgb24:
      return "RGB24";
    case DataType::rgba32:
      return "RGBA32";
  }
  return "unknown";
}

Header parse_header(const unsigned char* bytes, std::size_t n, bool has_image_file) {
  const Kind kind = kind_of(bytes, n);
  const Layout& layout = kind.version == 1 ? kNifti1 : kNifti2;
  Header header{};
  header.version = kind.version;
  header.is_pair = kind.is_pair;
  const auto count = [&](bool swapped) { return Fields(bytes, layout, kind.version, swapped).dim(0); };
  const auto possible = [](std::int64_t dims) { return dims >= 1 && dims <= 7; };
  header.swapped = !possible(count(false));
  if (header.swapped && !possible(count(true)))
    fail("dim[0] must be 1 to 7 in either byte order, got ", count(false), " and ", count(true));
  const Fields fields(bytes, layout, kind.version, header.swapped);

  const int code = fields.datatype();
  header.item_size = item_size(code);
  if (header.item_size == 0) fail("datatype must be a code of the NIfTI standard, got ", code);
  header.type = static_cast<DataType>(code);
  read_shape(fields, header);
  read_offset(fields, layout, has_image_file, header);
  read_scaling(fields, header);
  read_space(fields, header);
  header.description = fields.description();
  return header;
}

void check_size(const Header& header, std::int64_t file_bytes) {
  if (header.offset > file_bytes)
    fail("vox_offset must lie inside the file of ", file_bytes, " bytes, got ", header.offset);
  if (header.n_bytes > file_bytes - header.offset)
    fail("the file must hold ", header.n_bytes, " bytes of values from byte ", header.offset, " on (",
         header.shape[0], " x ", header.shape[1], " x ", header.shape[2], " x ", header.shape[3], " ",
         type_name(header.type), "), it has ", file_bytes - header.offset, "; it is cut short");
}

}  // namespace nifti
}  // namespace neurokern
