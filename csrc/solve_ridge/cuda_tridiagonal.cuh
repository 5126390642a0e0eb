// A block's Gram matrix in shared memory, brought to tridiagonal form: a thread for each column, rows one
// after the other, so that no sum is shared between threads and all have the CPU's order.
#pragma once

#include <cstdint>

#include "common/launch.cuh"
#include "solve_ridge/solve_ridge_body.h"

namespace neurokern {
namespace {

constexpr int kGramTile = 8;   // rows that are multiplied at a time
constexpr int kGramBlock = 4;  // a thread's part of the matrix is so wide and high

// What lies in shared memory, in doubles.
struct SharedRoom {
  double *matrix, *vectors, *eight, *squares, *lanes;
  int pitch;
};

// Rows and columns of the matrix are `pitch` apart, an odd number: lanes that read down a column, or in rows
// of their own, meet in no bank.
__device__ SharedRoom shared_room(double* at, int side, int pitch, int n_threads) {
  SharedRoom s{};
  s.matrix = at;
  s.vectors = s.matrix + side * pitch;
  s.eight = s.vectors + 7 * side;
  s.squares = s.eight + kEight;
  s.lanes = s.squares + n_threads;
  s.pitch = pitch;
  return s;
}

// matrix += tile' tile, for a tile of `count` rows.
template <int kThreads>
__device__ void add_tile(const SharedRoom& s, const double* tile, int count, int side) {
  const int n_blocks = (side + kGramBlock - 1) / kGramBlock;
  for (int block = static_cast<int>(threadIdx.x); block < n_blocks * n_blocks; block += kThreads) {
    const int a = block / n_blocks * kGramBlock, b = block % n_blocks * kGramBlock;
    if (b > a) continue;
    double sums[kGramBlock][kGramBlock];
    NK_UNROLL for (int i = 0; i < kGramBlock; ++i) {
      NK_UNROLL for (int j = 0; j < kGramBlock; ++j) sums[i][j] =
          a + i < side && b + j < side ? s.matrix[(a + i) * s.pitch + b + j] : 0;
    }
    for (int r = 0; r < count; ++r) {
      double left[kGramBlock], right[kGramBlock];
      NK_UNROLL for (int i = 0; i < kGramBlock; ++i) {
        left[i] = a + i < side ? tile[r * side + a + i] : 0;
        right[i] = b + i < side ? tile[r * side + b + i] : 0;
      }
      NK_UNROLL for (int i = 0; i < kGramBlock; ++i) {
        NK_UNROLL for (int j = 0; j < kGramBlock; ++j) sums[i][j] += left[i] * right[j];
      }
    }
    NK_UNROLL for (int i = 0; i < kGramBlock; ++i) {
      NK_UNROLL for (int j = 0; j < kGramBlock; ++j) {
        if (a + i >= side || b + j >= side) continue;
        s.matrix[(a + i) * s.pitch + b + j] = sums[i][j];
        s.matrix[(b + j) * s.pitch + a + i] = sums[i][j];
      }
    }
  }
}

// The sum of a[c] * b[c] over c < n, as EightSums on the CPU; all threads get it.
__device__ double dot_eight(const SharedRoom& s, const double* a, const double* b, int n) {
  if (threadIdx.x < kEight) {
    double sum = 0;
    for (int c = static_cast<int>(threadIdx.x); c < n; c += kEight) sum += a[c] * b[c];
    s.eight[threadIdx.x] = sum;
  }
  __syncthreads();
  const double total = add_eight(s.eight);
  __syncthreads();
  return total;
}

// rows -= a b' + b a' (or a b' alone), and sums = (next_a' rows) * factor, for a column of each thread.
template <int kThreads, bool kTwoTerms>
__device__ void update_columns(const SharedRoom& s, int n, const double* a, const double* b,
                               const double* next_a, double factor, double* sums) {
  for (int c = static_cast<int>(threadIdx.x); c < n; c += kThreads) {
    const double a_column = a[c], b_column = b[c];
    double sum = 0;
    for (int r = 0; r < n; ++r) {
      double change = a[r] * b_column;
      if (kTwoTerms) change += b[r] * a_column;
      const double value = s.matrix[r * s.pitch + c] - change;
      s.matrix[r * s.pitch + c] = value;
      sum += value * next_a[r];
    }
    sums[c] = sum * factor;
  }
}

// The parts of `vectors`: diagonal, off, tau, and two pairs that take turns.
struct Vectors {
  double *diagonal, *off, *tau, *v, *w, *next_v, *next_w;
};

__device__ Vectors vectors_of(const SharedRoom& s, int side) {
  double* const at = s.vectors;
  return {at, at + side, at + 2 * side, at + 3 * side, at + 4 * side, at + 5 * side, at + 6 * side};
}

__device__ void swap_pairs(Vectors& x) {
  double *const v = x.v, *const w = x.w;
  x.v = x.next_v;
  x.w = x.next_w;
  x.next_v = v;
  x.next_w = w;
}

template <int kThreads>
__device__ void make_tridiagonal(const SharedRoom& s, int n) {
  Vectors x = vectors_of(s, n);
  const int thread = static_cast<int>(threadIdx.x);
  for (int c = thread; c < n; c += kThreads) x.v[c] = x.w[c] = 0;
  __syncthreads();
  for (int j = n - 1; j > 0; --j) {
    double* const row = s.matrix + j * s.pitch;
    for (int c = thread; c <= j; c += kThreads) {
      const double value = row[c] - (x.w[c] * x.v[j] + x.v[c] * x.w[j]);
      row[c] = value;
      if (c == j) x.diagonal[j] = value;
      if (c < j) x.next_v[c] = c < j - 1 ? value : 0;
    }
    __syncthreads();
    const Reflector h = make_reflector(dot_eight(s, x.next_v, x.next_v, j), row[j - 1]);
    if (thread == 0) {
      x.off[j] = h.off;
      x.tau[j] = h.tau;
      x.next_v[j - 1] = h.last;
    }
    __syncthreads();
    update_columns<kThreads, true>(s, j, x.v, x.w, x.next_v, h.tau, x.next_w);
    __syncthreads();
    const double half = h.tau / 2 * dot_eight(s, x.next_v, x.next_w, j);
    for (int c = thread; c < j; c += kThreads) {
      x.next_w[c] -= x.next_v[c] * half;
      row[c] = x.next_v[c];
    }
    __syncthreads();
    swap_pairs(x);
  }
  if (thread == 0 && n > 0) x.diagonal[0] = s.matrix[0];
  __syncthreads();
}

template <int kThreads>
__device__ void form_product(const SharedRoom& s, int n) {
  Vectors x = vectors_of(s, n);
  const int thread = static_cast<int>(threadIdx.x);
  for (int c = thread; c < n; c += kThreads) x.v[c] = x.w[c] = 0;
  __syncthreads();
  for (int j = 1; j <= n; ++j) {
    for (int c = thread; c < j; c += kThreads) {
      x.next_v[c] = j < n ? s.matrix[j * s.pitch + c] : 0;
      s.matrix[c * s.pitch + j - 1] = c == j - 1 ? 1 : 0;
      if (c < j - 1) s.matrix[(j - 1) * s.pitch + c] = 0;
      if (c == j - 1) x.v[c] = x.w[c] = 0;
    }
    __syncthreads();
    update_columns<kThreads, false>(s, j, x.v, x.w, x.next_v, j < n ? x.tau[j] : 0, x.next_w);
    __syncthreads();
    swap_pairs(x);
  }
}

}  // namespace
}  // namespace neurokern
