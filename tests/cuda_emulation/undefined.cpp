// What g++ -fsanitize=undefined calls: ours instead of UndefinedBehaviorSanitizer's, so that undefined
// behaviour of a kernel (a signed overflow, a shift too far, an index beyond a declared array, a misaligned
// access) ends its launch like any other error.
#include <cstdio>
#include <cstdlib>

#include "runtime.h"

namespace {

struct SourceLocation {  // how g++ lays out the start of what it passes
  const char* file;
  unsigned line, column;
};

[[noreturn]] void undefined(const char* what, const void* data) {
  const auto* at = static_cast<const SourceLocation*>(data);
  const std::string text =
      std::string("undefined: ") + what + ", " + at->file + ":" + std::to_string(at->line);
  if (cuda_emulation::in_kernel)
    cuda_emulation::fail(cuda_emulation::thread_name(cuda_emulation::current) + " " + text);
  std::fprintf(stderr, "cuda_emulation: %s\n", text.c_str());
  std::abort();
}

}  // namespace

#define CUDA_EMULATION_UNDEFINED(name, what)                                                        \
  extern "C" __attribute__((visibility("hidden"))) void __ubsan_handle_##name##_abort(void* data) { \
    undefined(what, data);                                                                          \
  }
CUDA_EMULATION_UNDEFINED(add_overflow, "signed overflow of a sum")
CUDA_EMULATION_UNDEFINED(sub_overflow, "signed overflow of a difference")
CUDA_EMULATION_UNDEFINED(mul_overflow, "signed overflow of a product")
CUDA_EMULATION_UNDEFINED(negate_overflow, "signed overflow of a negation")
CUDA_EMULATION_UNDEFINED(divrem_overflow, "division by zero, or its overflow")
CUDA_EMULATION_UNDEFINED(shift_out_of_bounds, "shift too far")
CUDA_EMULATION_UNDEFINED(out_of_bounds, "index beyond the array")
CUDA_EMULATION_UNDEFINED(pointer_overflow, "overflow of a pointer")
CUDA_EMULATION_UNDEFINED(type_mismatch_v1, "null or misaligned address")
CUDA_EMULATION_UNDEFINED(load_invalid_value, "no value of this type")
CUDA_EMULATION_UNDEFINED(float_cast_overflow, "number beyond the integer type")
CUDA_EMULATION_UNDEFINED(nonnull_arg, "null argument")
CUDA_EMULATION_UNDEFINED(nonnull_return_v1, "null result")
CUDA_EMULATION_UNDEFINED(invalid_builtin, "argument that a builtin cannot take")
CUDA_EMULATION_UNDEFINED(vla_bound_not_positive, "array without elements")

extern "C" {
#pragma GCC visibility push(hidden)
void __ubsan_handle_builtin_unreachable(void* data) { undefined("unreachable code", data); }
void __ubsan_handle_missing_return(void* data) { undefined("function without a result", data); }
#pragma GCC visibility pop
}
