// Huge pages for memory that will be written wholly and for the first time.
//
// Touching fresh memory page by page costs several times the work of a kernel that streams to it: 125 ms
// against 20 ms for 115 MB of counts (bench_bin_spikes, fresh output). numpy asks for huge pages by itself,
// torch does not.
#pragma once

#include <cstdint>

namespace neurokern {

// Advice for the whole pages within [address, address + bytes): what they hold stays, and a refusal is no
// error.
void advise_huge_pages(void* address, std::int64_t bytes);

}  // namespace neurokern
