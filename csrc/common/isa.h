// Which instruction set a kernel runs on.
//
// Every <op>_cpu.cpp is compiled once per level in a namespace of its own (NEUROKERN_ISA) and reached through
// NK_DISPATCH. Such a file may include nothing that leaves a weak symbol (no STL): the linker keeps one copy
// of a shared inline function, and if that is the AVX-512 one, an older CPU dies of SIGILL.
#pragma once

namespace neurokern {

enum class Isa { base = 0, v2 = 2, v3 = 3, v4 = 4 };

Isa selected_isa();               // best level of this CPU, or what the variable NEUROKERN_ISA asks for
const char* isa_name(Isa level);  // "v3"
Isa best_isa();                   // best level of this CPU

}  // namespace neurokern

#if defined(__x86_64__)
#define NK_DECLARE_KERNEL(...) \
  namespace isa_v2 {           \
  __VA_ARGS__;                 \
  }                            \
  namespace isa_v3 {           \
  __VA_ARGS__;                 \
  }                            \
  namespace isa_v4 {           \
  __VA_ARGS__;                 \
  }
#define NK_DISPATCH(kernel, ...)                                                       \
  (::neurokern::selected_isa() == ::neurokern::Isa::v4   ? isa_v4::kernel(__VA_ARGS__) \
   : ::neurokern::selected_isa() == ::neurokern::Isa::v3 ? isa_v3::kernel(__VA_ARGS__) \
                                                         : isa_v2::kernel(__VA_ARGS__))
#else
#define NK_DECLARE_KERNEL(...) \
  namespace isa_base {         \
  __VA_ARGS__;                 \
  }
#define NK_DISPATCH(kernel, ...) (isa_base::kernel(__VA_ARGS__))
#endif
