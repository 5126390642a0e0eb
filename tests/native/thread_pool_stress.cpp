// Many callers at once, then forked children that use the pool again. Exit status 0 if every sum is right.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstring>
#include <thread>
#include <vector>

#include "common/thread_pool.h"

namespace {

constexpr std::int64_t kTasks = 1000;

bool sums_are_right(int repeats, int n_threads) {
  for (int repeat = 0; repeat < repeats; ++repeat) {
    std::vector<std::int64_t> out(kTasks, 0);
    neurokern::parallel_for(
        kTasks, n_threads, [](void* context, std::int64_t i) { static_cast<std::int64_t*>(context)[i] += i; },
        out.data());
    for (std::int64_t i = 0; i < kTasks; ++i)
      if (out[static_cast<std::size_t>(i)] != i) return false;
  }
  return true;
}

bool concurrent_callers() {
  std::atomic<int> wrong{0};
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 4; ++caller)
    callers.emplace_back([&wrong] { wrong += !sums_are_right(200, 3); });
  for (auto& caller : callers) caller.join();
  return wrong == 0;
}

bool forked_children() {
  if (!sums_are_right(1, 4)) return false;  // the parent's pool has threads when it forks
  for (int child = 0; child < 8; ++child) {
    const pid_t id = fork();
    if (id == 0) {
      alarm(20);  // a hang ends as a failure
      _exit(sums_are_right(20, 4) ? 0 : 1);
    }
    int status = 0;
    if (waitpid(id, &status, 0) != id || status != 0) return false;
  }
  return sums_are_right(20, 4);
}

}  // namespace

int main(int argc, char** argv) {
  const bool with_fork = argc < 2 || std::strcmp(argv[1], "no-fork") != 0;
  if (!concurrent_callers()) return std::puts("concurrent callers: wrong sums"), 1;
  if (with_fork && !forked_children()) return std::puts("forked children: hang or wrong sums"), 1;
  return 0;
}
