// Philox 4x32-10, the counter-based generator of Salmon et al. (2011), "Parallel random numbers: as easy as
// 1, 2, 3".
//
// A draw is a pure function of (key, counter): any thread, device or chunk can make any draw, and all make
// the same bits. Decisions compare the 32-bit word with an integer threshold, never a float.
#pragma once

#include <cstdint>

#include "common/host_device.h"

namespace neurokern {

struct Philox4 {
  std::uint32_t word[4];
};

NK_HD Philox4 philox4x32(std::uint64_t key, std::uint32_t c0, std::uint32_t c1, std::uint32_t c2,
                         std::uint32_t c3) {
  constexpr std::uint32_t kMultiplier0 = 0xD2511F53u, kMultiplier1 = 0xCD9E8D57u;
  constexpr std::uint32_t kWeyl0 = 0x9E3779B9u, kWeyl1 = 0xBB67AE85u;
  std::uint32_t k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{kMultiplier0} * c0, p1 = std::uint64_t{kMultiplier1} * c2;
    c0 = static_cast<std::uint32_t>(p1 >> 32) ^ c1 ^ k0;
    c1 = static_cast<std::uint32_t>(p1);
    c2 = static_cast<std::uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c3 = static_cast<std::uint32_t>(p0);
    k0 += kWeyl0;
    k1 += kWeyl1;
  }
  return {{c0, c1, c2, c3}};
}

}  // namespace neurokern
