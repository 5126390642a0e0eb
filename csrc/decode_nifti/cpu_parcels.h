// From woven elements to means over parcels.
// Part of decode_nifti_cpu.cpp, compiled once per instruction set: no STL, nothing with external linkage.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "decode_nifti/cpu_shuffle.h"
#include "decode_nifti/decode_nifti_body.h"

namespace neurokern {
namespace NEUROKERN_ISA {
namespace {

// Sums of a run: integers while they are exact, whatever the order; else doubles, in the order of the file.
// The runs' sums, each from 0 on, are added in that order, too (cuda_parcels.cuh does the same).
template <typename Type>
struct RunSum {
  using Number = double;
};
template <>
struct RunSum<std::uint8_t> {
  using Number = std::int32_t;
};
template <>
struct RunSum<std::int8_t> {
  using Number = std::int32_t;
};
template <>
struct RunSum<std::uint16_t> {
  using Number = std::uint32_t;  // 65536 voxels of 65535 fit
};
template <>
struct RunSum<std::int16_t> {
  using Number = std::int32_t;
};

// Sums of voxels of a list: twice the bits of the values, one instruction away, and as many voxels as they
// can add up, whatever those are.
template <typename Type>
struct ListSum {
  using Number = typename RunSum<Type>::Number;
  static constexpr std::int64_t kMost = 65536;
};
template <>
struct ListSum<std::uint8_t> {
  using Number = std::uint16_t;
  static constexpr std::int64_t kMost = 256;
};
template <>
struct ListSum<std::int8_t> {
  using Number = std::int16_t;
  static constexpr std::int64_t kMost = 256;
};
#if defined(__AVX2__)
constexpr int kSumBytes = 32;  // of a register
#else
constexpr int kSumBytes = 16;
#endif

template <typename Bits, int kVolumes>
struct Parcels {
  using L = Layout<Bits, kVolumes>;
  using Element = typename L::Element;

  const ParcelRuns* runs = nullptr;
  double* sums = nullptr;  // (n_parcels, kVolumes)

  bool allocate(const ParcelRuns* parcels) {
    runs = parcels;
    sums =
        static_cast<double*>(malloc(static_cast<std::size_t>(runs->n_parcels) * kVolumes * sizeof(double)));
    return sums != nullptr;
  }
  void release() { free(sums); }

  void write(const DecodeVolumes& p, const Element* elements, std::int64_t volume) {
    if constexpr (sizeof(Bits) <= 2) {
      if (runs->voxels != nullptr) return add_voxels(p, elements, volume);
    }
    memset(sums, 0, static_cast<std::size_t>(runs->n_parcels) * kVolumes * sizeof(double));
    add(p.type, elements);
    for (int k = 0; k < kVolumes && volume + k < p.n_volumes; ++k) {
      float* out = static_cast<float*>(p.out) + (volume + k) * p.out_stride;
      for (std::int64_t i = 0; i < runs->n_parcels; ++i)
        out[i] = scaled_in_double(sums[i * kVolumes + k] / runs->sizes[i], p.slope, p.inter);
    }
  }

 private:
  // Whole numbers, whose sums are exact in any order: parcel by parcel, so that nothing but a list is
  // followed.
  void add_voxels(const DecodeVolumes& p, const Element* elements, std::int64_t volume) {
    if constexpr (sizeof(Bits) == 1) {
      p.type == VoxelType::u8 ? add_voxels<std::uint8_t>(p, elements, volume)
                              : add_voxels<std::int8_t>(p, elements, volume);
    } else {
      p.type == VoxelType::u16 ? add_voxels<std::uint16_t>(p, elements, volume)
                               : add_voxels<std::int16_t>(p, elements, volume);
    }
  }

  template <typename Type>
  void add_voxels(const DecodeVolumes& p, const Element* elements, std::int64_t volume) {
    const std::int32_t* voxels = runs->voxels;
    for (std::int64_t parcel = 0; parcel < runs->n_parcels; ++parcel) {
      double totals[kVolumes] = {};
      auto left = static_cast<std::int64_t>(runs->sizes[parcel]);
      for (std::int64_t n; left > 0; left -= n, voxels += n) {
        n = left < ListSum<Type>::kMost ? left : ListSum<Type>::kMost;
        add_exactly<Type>(elements, voxels, n, totals);
      }
      float* out = static_cast<float*>(p.out) + volume * p.out_stride + parcel;
      for (int k = 0; k < kVolumes && volume + k < p.n_volumes; ++k, out += p.out_stride)
        *out = scaled_in_double(totals[k] / runs->sizes[parcel], p.slope, p.inter);
    }
  }

  template <typename Type>
  static void add_exactly(const Element* elements, const std::int32_t* voxels, std::int64_t n,
                          double* totals) {
    using Number = typename ListSum<Type>::Number;
    constexpr int kMostLanes = kSumBytes / static_cast<int>(sizeof(Number));
    constexpr int kLanes = kVolumes < kMostLanes ? kVolumes : kMostLanes, kParts = kVolumes / kLanes;
    typedef Type Values __attribute__((vector_size(sizeof(Type) * kLanes)));
    typedef Number Numbers __attribute__((vector_size(sizeof(Number) * kLanes)));
    Numbers sums[kParts] = {};
    for (std::int64_t i = 0; i < n; ++i) {
      const auto* from = reinterpret_cast<const unsigned char*>(elements + voxels[i]);
      for (int part = 0; part < kParts; ++part) {
        Values values;
        memcpy(&values, from + part * sizeof values, sizeof values);
        sums[part] += __builtin_convertvector(values, Numbers);
      }
    }
    for (int k = 0; k < kVolumes; ++k) totals[k] += static_cast<double>(sums[k / kLanes][k % kLanes]);
  }

  void add(VoxelType type, const Element* elements) {
    if constexpr (sizeof(Bits) == 1) {
      return type == VoxelType::u8 ? add_runs<std::uint8_t>(elements) : add_runs<std::int8_t>(elements);
    } else if constexpr (sizeof(Bits) == 2) {
      return type == VoxelType::u16 ? add_runs<std::uint16_t>(elements) : add_runs<std::int16_t>(elements);
    } else if constexpr (sizeof(Bits) == 4) {
      return type == VoxelType::u32   ? add_runs<std::uint32_t>(elements)
             : type == VoxelType::i32 ? add_runs<std::int32_t>(elements)
                                      : add_runs<float>(elements);
    } else {
      return type == VoxelType::u64   ? add_runs<std::uint64_t>(elements)
             : type == VoxelType::i64 ? add_runs<std::int64_t>(elements)
                                      : add_runs<double>(elements);
    }
  }

  template <typename Type>
  void add_runs(const Element* elements) {
    using Number = typename RunSum<Type>::Number;
    typedef Type Values __attribute__((vector_size(sizeof(Type) * kVolumes)));
    typedef Number Numbers __attribute__((vector_size(sizeof(Number) * kVolumes)));
    typedef double Doubles __attribute__((vector_size(sizeof(double) * kVolumes)));
    for (std::int64_t run = 0; run < runs->n_runs; ++run) {
      const std::int64_t n = runs->lengths[run];
      Numbers sum = {};
      for (std::int64_t i = 0; i < n; ++i) {
        Values values;
        memcpy(&values, elements + i, sizeof values);
        sum += __builtin_convertvector(values, Numbers);
      }
      elements += n;
      double* to = sums + std::int64_t{runs->parcels[run]} * kVolumes;
      Doubles total;
      memcpy(&total, to, sizeof total);
      total += __builtin_convertvector(sum, Doubles);
      memcpy(to, &total, sizeof total);
    }
  }
};

}  // namespace
}  // namespace NEUROKERN_ISA
}  // namespace neurokern
