// A small pool of threads that survives fork.
//
// libgomp and plain pools hang in forked DataLoader workers: the child inherits the pool but not its threads.
// Here a forked child forgets the pool and makes its own when it first needs one. The interface is plain
// functions, so that kernel files (common/isa.h) may use it.
#pragma once

#include <cstdint>

namespace neurokern {

using Task = void (*)(void* context, std::int64_t index);

// Calls task(context, i) for i in [0, n_tasks), on at most n_threads threads including the caller's; returns
// when all are done. Tasks must not throw. Serial if the pool is busy with another caller's tasks.
void parallel_for(std::int64_t n_tasks, int n_threads, Task task, void* context);

}  // namespace neurokern
