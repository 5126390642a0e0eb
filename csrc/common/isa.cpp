#include "common/isa.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace neurokern {
namespace {

Isa detect() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool v3 =
      __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("fma");
  const bool v4 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                  __builtin_cpu_supports("avx512vl");
  return v3 ? (v4 ? Isa::v4 : Isa::v3) : Isa::v2;
#else
  return Isa::base;
#endif
}

Isa choose() {
  const Isa best = detect();
  const char* asked = std::getenv("NEUROKERN_ISA");
  if (asked == nullptr || *asked == '\0') return best;
  for (const Isa level : {Isa::base, Isa::v2, Isa::v3, Isa::v4}) {
    if (std::string(asked) != isa_name(level)) continue;
    const bool same_family = (level == Isa::base) == (best == Isa::base);
    if (same_family && level <= best) return level;
  }
  throw std::runtime_error(std::string("NEUROKERN_ISA=") + asked + " cannot run here: this CPU offers " +
                           (best == Isa::base ? "base" : "v2 (x86-64-v2) up to ") +
                           (best == Isa::base ? "" : isa_name(best)) +
                           ". Unset the variable for the best level.");
}

}  // namespace

const char* isa_name(Isa level) {
  switch (level) {
    case Isa::v2:
      return "v2";
    case Isa::v3:
      return "v3";
    case Isa::v4:
      return "v4";
    default:
      return "base";
  }
}

Isa best_isa() { return detect(); }

Isa selected_isa() {
  static const Isa level = choose();
  return level;
}

}  // namespace neurokern
