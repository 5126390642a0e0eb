// Mappings that survive their file.
//
// Reading a mapping beyond the end of a file that another process cut short raises SIGBUS, which ends the
// process. While a mapping is guarded the rest of it becomes zeros instead, and the reader can ask afterwards
// whether that happened.
#pragma once

#include <cstddef>

namespace neurokern {

// Guards [begin, begin + bytes) and returns its number; -1 if too many are guarded, and the caller had better
// not map. The first call sets a handler of SIGBUS, which hands on what does not concern it.
int guard_mapping(const unsigned char* begin, std::size_t bytes);

// To be called before the mapping is undone.
void release_mapping(int number);

// True if part of the mapping had to be replaced by zeros.
bool is_torn(int number);

}  // namespace neurokern
