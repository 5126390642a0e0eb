// What a value of the file becomes: slope * raw + inter, rounded once to float32 where that can be done
// exactly.
#pragma once

#include <cstdint>
#include <cstring>

#include "common/host_device.h"
#include "decode_nifti/decode_nifti.h"

namespace neurokern {

// Cleaning takes so many rows of a basis out at a time: they are weighed together, before any of them is
// taken out, so that the number decides how results are rounded.
constexpr int kBasisStep = 4;
// What is left of a column, relative to what it was about its first value: below, it is rounding.
constexpr double kNothingLeft = 1e-12;

NK_HD int value_bytes(VoxelType type) {
  if (type == kHalf || type == kBFloat16) return 2;
  switch (type) {
    case VoxelType::u8:
    case VoxelType::i8:
      return 1;
    case VoxelType::u16:
    case VoxelType::i16:
      return 2;
    case VoxelType::u32:
    case VoxelType::i32:
    case VoxelType::f32:
      return 4;
    default:
      return 8;
  }
}

// Slope and intercept are floats in NIfTI-1, and raw values of up to 24 bits are floats exactly: one fused
// multiply-add then rounds the true result once. Wider values and scales go through double.
NK_HD bool scales_in_float(VoxelType type, double slope, double inter) {
  const bool narrow = type == VoxelType::u8 || type == VoxelType::i8 || type == VoxelType::u16 ||
                      type == VoxelType::i16 || type == VoxelType::f32 || type == kHalf || type == kBFloat16;
  return narrow && static_cast<double>(static_cast<float>(slope)) == slope &&
         static_cast<double>(static_cast<float>(inter)) == inter;
}

NK_HD float scaled_in_double(double raw, double slope, double inter) {
  return static_cast<float>(raw * slope + inter);
}

// a * b + c rounded once, where the processor has no fused multiply-add. The product of floats is exact in
// double; the sum is rounded to odd, so that rounding it again to float cannot err (Boldo and Melquiond
// 2008).
NK_HD float fused_by_double(float a, float b, float c) {
  const double product = static_cast<double>(a) * static_cast<double>(b), addend = static_cast<double>(c);
  double sum = product + addend;
  const double back = sum - product;
  const double error = (product - (sum - back)) + (addend - back);
  std::int64_t bits;
  memcpy(&bits, &sum, sizeof bits);
  const bool inexact = error != 0 && error == error;
  // The two doubles around the true sum differ in their last bit: take the odd one.
  if (inexact && (bits & 1) == 0) bits += ((error > 0) == (sum > 0)) ? 1 : -1;
  memcpy(&sum, &bits, sizeof bits);
  return static_cast<float>(sum);
}

// Rounded to nearest, ties to even; NaN stays NaN.
NK_HD std::uint16_t bfloat16_of(float x) {
  std::uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  const std::uint32_t rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
  return static_cast<std::uint16_t>(x == x ? rounded : (bits >> 16 | 0x40));
}

NK_HD std::uint16_t half_of(float x) {
  std::uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  const std::uint32_t sign = bits >> 16 & 0x8000, magnitude = bits & 0x7FFFFFFF;
  // Subnormal halves: adding 0.5 lets the addition round at the half's last place.
  float shifted;
  memcpy(&shifted, &magnitude, sizeof shifted);
  shifted += 0.5f;
  std::uint32_t small;
  memcpy(&small, &shifted, sizeof small);
  small -= 0x3F000000;
  const std::uint32_t normal = (magnitude - 0x38000000 + 0xFFF + (magnitude >> 13 & 1)) >> 13;
  std::uint32_t half = magnitude < 0x38800000 ? small : normal;
  half = magnitude >= 0x477FF000 ? 0x7C00 : half;
  half = magnitude > 0x7F800000 ? 0x7E00 : half;
  return static_cast<std::uint16_t>(sign | half);
}

// Exactly; infinity and NaN too.
NK_HD float float_of_half(std::uint16_t half) {
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000) << 16;
  const std::uint32_t magnitude = static_cast<std::uint32_t>(half & 0x7FFF) << 13;
  // The exponent's bias, also of subnormal halves: 2^112.
  const std::uint32_t power = 0x77800000;
  float value, scale;
  memcpy(&value, &magnitude, sizeof value);
  memcpy(&scale, &power, sizeof scale);
  value *= scale;
  std::uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  bits = magnitude >= 0x0F800000 ? magnitude | 0x7F800000 : bits;
  bits |= sign;
  memcpy(&value, &bits, sizeof value);
  return value;
}

NK_HD float float_of_bfloat16(std::uint16_t short_float) {
  const std::uint32_t bits = static_cast<std::uint32_t>(short_float) << 16;
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace neurokern
