// The atomics that kernels may use, with the types that CUDA has them for. Relaxed: they order nothing else.
// Threads never run at the same time here, so that plain operations do; the checks learn of each.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace cuda_emulation {

void atomic_access(void* address, std::size_t bytes, void* caller);

}  // namespace cuda_emulation

// Not instrumented, since the checks must not take the access for a plain one; unsigned numbers wrap.
#define CUDA_EMULATION_ATOMIC(name, type, ...)                                                          \
  __attribute__((noinline, no_sanitize("thread", "undefined"), unused)) static type name(type* address, \
                                                                                         type value) {  \
    ::cuda_emulation::atomic_access(address, sizeof *address, __builtin_return_address(0));             \
    const type old = *address;                                                                          \
    *address = static_cast<type>(__VA_ARGS__);                                                          \
    return old;                                                                                         \
  }
#define CUDA_EMULATION_ATOMICS(type, wide)                                                  \
  CUDA_EMULATION_ATOMIC(atomicAdd, type, static_cast<wide>(old) + static_cast<wide>(value)) \
  CUDA_EMULATION_ATOMIC(atomicMax, type, old < value ? value : old)                         \
  CUDA_EMULATION_ATOMIC(atomicMin, type, value < old ? value : old)                         \
  CUDA_EMULATION_ATOMIC(atomicOr, type, old | value)                                        \
  CUDA_EMULATION_ATOMIC(atomicExch, type, value)

CUDA_EMULATION_ATOMICS(int, unsigned)
CUDA_EMULATION_ATOMICS(unsigned, unsigned)
CUDA_EMULATION_ATOMICS(unsigned long long, unsigned long long)
CUDA_EMULATION_ATOMIC(atomicAdd, float, old + value)

#undef CUDA_EMULATION_ATOMICS
#undef CUDA_EMULATION_ATOMIC

#define CUDA_EMULATION_CAS(type)                                                               \
  __attribute__((noinline, no_sanitize("thread", "undefined"), unused)) static type atomicCAS( \
      type* address, type expected, type desired) {                                            \
    ::cuda_emulation::atomic_access(address, sizeof *address, __builtin_return_address(0));    \
    const type old = *address;                                                                 \
    if (old == expected) *address = desired;                                                   \
    return old;                                                                                \
  }
CUDA_EMULATION_CAS(int)
CUDA_EMULATION_CAS(unsigned)
CUDA_EMULATION_CAS(unsigned long long)
#undef CUDA_EMULATION_CAS
