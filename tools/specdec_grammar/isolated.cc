#include "tools/specdec_grammar/isolated.h"

#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cmath>
#include <csignal>
#include <system_error>

namespace specdec::grammar_tool {
namespace {

void start_clock(double seconds) {
  const double whole = std::floor(seconds);
  itimerval limit{};
  limit.it_value.tv_sec = static_cast<time_t>(whole);
  limit.it_value.tv_usec = static_cast<suseconds_t>((seconds - whole) * 1e6);
  setitimer(ITIMER_PROF, &limit, nullptr);
}

void write_all(int descriptor, const std::string& text) {
  for (std::size_t at = 0; at < text.size();) {
    const ssize_t written = write(descriptor, text.data() + at, text.size() - at);
    if (written < 0 && errno != EINTR) return;
    if (written > 0) at += static_cast<std::size_t>(written);
  }
}

}  // namespace

IsolatedRun run_isolated(const std::function<std::string(const std::function<void()>&)>& work,
                         double step_limit_s) {
  std::array<int, 2> ends{};
  if (pipe(ends.data()) != 0) throw std::system_error(errno, std::generic_category(), "pipe");
  const pid_t child = fork();
  if (child < 0) throw std::system_error(errno, std::generic_category(), "fork");
  if (child == 0) {
    close(ends[0]);
    std::signal(SIGPROF, SIG_DFL);
    const auto next_step = [step_limit_s] { start_clock(step_limit_s); };
    next_step();
    int status = 0;
    try {
      const std::string output = work(next_step);
      start_clock(0);
      write_all(ends[1], output);
    } catch (...) {
      status = 1;
    }
    _exit(status);
  }
  close(ends[1]);
  IsolatedRun run;
  std::array<char, 65536> buffer{};
  for (;;) {
    const ssize_t size = read(ends[0], buffer.data(), buffer.size());
    if (size == 0 || (size < 0 && errno != EINTR)) break;
    if (size > 0) run.output.append(buffer.data(), static_cast<std::size_t>(size));
  }
  close(ends[0]);
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGPROF) {
    run.end = IsolatedRun::End::timed_out;
  } else if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    run.end = IsolatedRun::End::crashed;
  }
  return run;
}

}  // namespace specdec::grammar_tool
