// NK_HD marks the functions of an op's shared rule (<op>_body.h): host code on the CPU, device code under
// nvcc. They are static, so that each translation unit keeps its own copy (see common/isa.h).
// NK_UNROLL before a loop of a kernel keeps the small arrays that it goes through in registers.
#pragma once

#if defined(__CUDACC__)
#define NK_UNROLL _Pragma("unroll")
#define NK_HD static __host__ __device__ __forceinline__
#else
#define NK_UNROLL
#define NK_HD static inline __attribute__((always_inline, unused))
#endif
