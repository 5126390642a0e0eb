// Turns rows into columns within registers: one step serves weaving volumes and taking them apart.
// Part of decode_nifti_cpu.cpp, compiled once per instruction set: no STL, nothing with external linkage.
#pragma once

#include <cstdint>
#include <cstring>

namespace neurokern {
namespace NEUROKERN_ISA {
namespace {

constexpr int kRegisterBytes = 16;

template <int kBytes>
struct Unsigned;
template <>
struct Unsigned<1> {
  using Type = std::uint8_t;
};
template <>
struct Unsigned<2> {
  using Type = std::uint16_t;
};
template <>
struct Unsigned<4> {
  using Type = std::uint32_t;
};
template <>
struct Unsigned<8> {
  using Type = std::uint64_t;
};
template <>
struct Unsigned<16> {
  using Type = unsigned __int128;
};

// Volumes that are decoded together: one value of each makes an element, of 8 or 16 bytes. A tile is a
// vector of each volume, or as many vectors of elements.
template <typename Bits, int kVolumes>
struct Layout {
  typedef Bits Vector __attribute__((vector_size(kRegisterBytes)));
  using Element = typename Unsigned<kVolumes* static_cast<int>(sizeof(Bits))>::Type;
  static constexpr int kValues = kRegisterBytes / static_cast<int>(sizeof(Bits));  // of a vector
  static constexpr std::int64_t kBytes = sizeof(Bits);
};

typedef Layout<std::uint8_t, 1>::Vector Bytes;
typedef Layout<std::uint16_t, 1>::Vector Halves;
typedef Layout<std::uint32_t, 1>::Vector Words;
typedef Layout<std::uint64_t, 1>::Vector LongWords;

inline __attribute__((always_inline)) Bytes zip_low(Bytes a, Bytes b) {
  return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
inline __attribute__((always_inline)) Bytes zip_high(Bytes a, Bytes b) {
  return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}
inline __attribute__((always_inline)) Halves zip_low(Halves a, Halves b) {
  return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
}
inline __attribute__((always_inline)) Halves zip_high(Halves a, Halves b) {
  return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
}
inline __attribute__((always_inline)) Words zip_low(Words a, Words b) {
  return __builtin_shufflevector(a, b, 0, 4, 1, 5);
}
inline __attribute__((always_inline)) Words zip_high(Words a, Words b) {
  return __builtin_shufflevector(a, b, 2, 6, 3, 7);
}

inline __attribute__((always_inline)) LongWords zip_low(LongWords a, LongWords b) {
  return __builtin_shufflevector(a, b, 0, 2);
}
inline __attribute__((always_inline)) LongWords zip_high(LongWords a, LongWords b) {
  return __builtin_shufflevector(a, b, 1, 3);
}

// A perfect shuffle: the values of the first half of the vectors and those of the second half, in turns. It
// rotates the bits of each value's position by one, so that log2(volumes) of them turn (volume, voxel) into
// (voxel, volume), and log2(voxels) of them turn that back.
template <typename Vector, int kVectors>
inline __attribute__((always_inline)) void shuffle_once(Vector (&v)[kVectors]) {
  Vector next[kVectors];
  for (int i = 0; i < kVectors / 2; ++i) {
    next[2 * i] = zip_low(v[i], v[i + kVectors / 2]);
    next[2 * i + 1] = zip_high(v[i], v[i + kVectors / 2]);
  }
  for (int i = 0; i < kVectors; ++i) v[i] = next[i];
}

template <int kSteps, typename Vector, int kVectors>
inline __attribute__((always_inline)) void shuffle(Vector (&v)[kVectors]) {
  for (int i = 0; i < kSteps; ++i) shuffle_once(v);
}

constexpr int log2_of(int n) { return n <= 1 ? 0 : 1 + log2_of(n / 2); }

template <int kBytes, typename Vector>
inline __attribute__((always_inline)) Vector swap_bytes(Vector v) {
  if constexpr (kBytes == 1) {
    return v;
  } else {
    Bytes bytes;
    memcpy(&bytes, &v, sizeof bytes);
    if constexpr (kBytes == 2)
      bytes = __builtin_shufflevector(bytes, bytes, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14);
    if constexpr (kBytes == 4)
      bytes = __builtin_shufflevector(bytes, bytes, 3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12);
    if constexpr (kBytes == 8)
      bytes = __builtin_shufflevector(bytes, bytes, 7, 6, 5, 4, 3, 2, 1, 0, 15, 14, 13, 12, 11, 10, 9, 8);
    memcpy(&v, &bytes, sizeof v);
    return v;
  }
}

}  // namespace
}  // namespace NEUROKERN_ISA
}  // namespace neurokern
