// Trends and confounds out of columns in a GPU's memory, with the arithmetic of cpu_clean.h in its order: a
// thread takes a column, and neighbouring threads neighbouring columns.
#pragma once

#include <cmath>
#include <cstdint>

#include "decode_nifti/cuda_values.cuh"

namespace neurokern {
namespace {

// What a group of rows of the basis explains of a column; rows beyond the last are not there.
struct BasisGroup {
  const CleanColumns& p;
  std::int64_t first;

  __device__ bool has(int j) const { return first + j < p.n_basis; }
  __device__ float at(int j, std::int64_t t) const { return p.basis[(first + j) * p.n_rows + t]; }
  __device__ void weigh(float value, std::int64_t t, float* weights) const {
    NK_UNROLL
    for (int j = 0; j < kBasisStep; ++j)
      if (has(j)) weights[j] += at(j, t) * value;
  }
  __device__ float without(float value, std::int64_t t, const float* weights) const {
    NK_UNROLL
    for (int j = 0; j < kBasisStep; ++j)
      if (has(j)) value -= at(j, t) * weights[j];
    return value;
  }
};

// Each pass takes one group out and weighs the next.
__global__ void __launch_bounds__(kThreads) clean_column(CleanColumns p) {
  for (std::int64_t c = blockIdx.x * std::int64_t{kThreads} + threadIdx.x; c < p.n_columns;
       c += gridDim.x * std::int64_t{kThreads}) {
    float* column = p.values + c;
    const float origin = column[0];
    double before = 0, after = 0;
    float weights[kBasisStep] = {};
    for (std::int64_t t = 0; t < p.n_rows; ++t) {
      const float value = column[t * p.stride] - origin;
      before += static_cast<double>(value) * static_cast<double>(value);
      BasisGroup{p, 0}.weigh(value, t, weights);
      column[t * p.stride] = value;
    }
    for (std::int64_t k = 0; k < p.n_basis; k += kBasisStep) {
      float next[kBasisStep] = {};
      after = 0;
      for (std::int64_t t = 0; t < p.n_rows; ++t) {
        const float value = BasisGroup{p, k}.without(column[t * p.stride], t, weights);
        after += static_cast<double>(value) * static_cast<double>(value);
        BasisGroup{p, k + kBasisStep}.weigh(value, t, next);
        column[t * p.stride] = value;
      }
      NK_UNROLL
      for (int j = 0; j < kBasisStep; ++j) weights[j] = next[j];
    }
    if (!p.standardize) continue;
    const float factor = after <= kNothingLeft * before
                             ? 0.0f
                             : static_cast<float>(sqrt(static_cast<double>(p.n_rows - 1) / after));
    for (std::int64_t t = 0; t < p.n_rows; ++t) column[t * p.stride] *= factor;
  }
}

}  // namespace
}  // namespace neurokern
