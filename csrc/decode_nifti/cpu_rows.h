// From woven elements to rows of the output: output order, then type and scale.
// Part of decode_nifti_cpu.cpp, compiled once per instruction set: no STL, nothing with external linkage.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "decode_nifti/cpu_shuffle.h"
#include "decode_nifti/cpu_values.h"
#include "decode_nifti/decode_nifti_body.h"

namespace neurokern {
namespace NEUROKERN_ISA {
namespace {

constexpr std::int64_t kChunk = 1024;  // voxels taken apart at once; all volumes of them stay in L1
constexpr std::int64_t kStreamBytes = std::int64_t{1} << 20;  // outputs above it bypass the caches

inline std::int64_t decoded_bytes(const DecodeVolumes& p) {
  switch (p.decoded) {
    case DecodedType::f32:
      return 4;
    case DecodedType::f16:
    case DecodedType::bf16:
      return 2;
    default:
      return value_bytes(p.type);
  }
}

template <typename Bits, int kVolumes>
struct Rows {
  using L = Layout<Bits, kVolumes>;
  using Element = typename L::Element;
  static constexpr std::int64_t kStagedValues = kChunk + 2 * kLineBytes;  // with a line left over

  Bits* staged = nullptr;  // (kVolumes, kStagedValues): taken apart, not yet written
  std::int64_t pending[kVolumes] = {};

  bool allocate(const ParcelRuns*) {
    staged = static_cast<Bits*>(aligned_alloc(64, kVolumes * kStagedValues * sizeof(Bits)));
    return staged != nullptr;
  }
  void release() { free(staged); }

  // Rows volume ... of the output, from the elements of these volumes.
  void write(const DecodeVolumes& p, const Element* elements, std::int64_t volume) {
    const Scale scale(p);
    const std::int64_t bytes = decoded_bytes(p);
    const bool streamed = p.n_volumes * p.n_voxels * bytes >= kStreamBytes;
    for (int k = 0; k < kVolumes; ++k) pending[k] = 0;
    for (std::int64_t i = 0; i < p.n_voxels; i += kChunk) {
      const std::int64_t n = p.n_voxels - i < kChunk ? p.n_voxels - i : kChunk;
      if (p.order != nullptr) {
        const std::int32_t* order = p.order + i;
        take_apart(elements, n, [order](std::int64_t j) { return order[j]; });
      } else {
        take_apart(elements + i, n, [](std::int64_t j) { return j; });
      }
      for (int k = 0; k < kVolumes; ++k) {
        if (volume + k >= p.n_volumes) {
          pending[k] = 0;  // the last volume again: nobody's
          continue;
        }
        const std::int64_t first = (volume + k) * p.out_stride + i + n - pending[k];
        const Target target{static_cast<unsigned char*>(p.out) + first * bytes, streamed,
                            i + n == p.n_voxels};
        flush(p, scale, target, k);
      }
    }
  }

 private:
  // Appends elements place(0) ... place(n - 1) to what is staged.
  template <typename Place>
  inline __attribute__((always_inline)) void take_apart(const Element* elements, std::int64_t n,
                                                        Place place) {
    Bits* to[kVolumes];
    for (int k = 0; k < kVolumes; ++k) to[k] = staged + k * kStagedValues + pending[k];
    std::int64_t j = 0;
    if constexpr (kVolumes > 1) {
      for (; j + kVolumes <= n; j += kVolumes) {
        typename L::Vector tile[kVolumes];
        for (int i = 0; i < kVolumes; ++i) memcpy(&tile[i], elements + place(j + i), kRegisterBytes);
        shuffle<log2_of(kVolumes)>(tile);
        for (int k = 0; k < kVolumes; ++k) memcpy(to[k] + j, &tile[k], kRegisterBytes);
      }
    }
    for (; j < n; ++j) {
      Bits values[kVolumes];
      memcpy(values, elements + place(j), sizeof values);
      for (int k = 0; k < kVolumes; ++k) to[k][j] = values[k];
    }
    for (int k = 0; k < kVolumes; ++k) pending[k] += n;
  }

  // Writes what is staged of volume k, and keeps what is less than a line.
  void flush(const DecodeVolumes& p, const Scale& scale, const Target& target, int k) {
    Bits* from = staged + k * kStagedValues;
    const std::int64_t n = pending[k];
    std::int64_t written;
    if (p.decoded == DecodedType::raw) {
      written = emit<Bits>(target, from, n, [](Bits bits) { return bits; });
    } else if (p.decoded == DecodedType::f32) {
      written =
          with_floats<Bits>(p.type, scale, [&](auto value) { return emit<float>(target, from, n, value); });
    } else {
      float values[kStagedValues];
      const Target to_floats{values, false, true};
      with_floats<Bits>(p.type, scale, [&](auto value) { return emit<float>(to_floats, from, n, value); });
      written = p.decoded == DecodedType::f16
                    ? emit<std::uint16_t>(target, values, n, [](float x) { return half_of(x); })
                    : emit<std::uint16_t>(target, values, n, [](float x) { return bfloat16_of(x); });
    }
    pending[k] = n - written;
    memmove(from, from + written, static_cast<std::size_t>(pending[k]) * sizeof(Bits));
  }
};

}  // namespace
}  // namespace NEUROKERN_ISA
}  // namespace neurokern
