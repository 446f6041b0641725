#include "tests/examples/run_program.h"

#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

namespace specdec::test {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::seconds kPatience(120);  // sanitizers make a token take a while

std::vector<char*> argument_pointers(const std::string& program,
                                     const std::vector<std::string>& arguments) {
  std::vector<char*> pointers{const_cast<char*>(program.c_str())};
  for (const std::string& argument : arguments)
    pointers.push_back(const_cast<char*>(argument.c_str()));
  pointers.push_back(nullptr);
  return pointers;
}

int exit_code(int status) {
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

std::string slurp(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

ProgramResult run_program(const std::string& program, const std::vector<std::string>& arguments,
                          const std::string& input) {
  std::string pattern = (std::filesystem::temp_directory_path() / "specdec-test-XXXXXX").string();
  const std::filesystem::path folder = mkdtemp(pattern.data());
  std::ofstream(folder / "in", std::ios::binary) << input;
  std::vector<char*> pointers = argument_pointers(program, arguments);
  const pid_t process = fork();
  if (process == 0) {
    const auto redirect = [&](const char* name, int flags, int descriptor) {
      const int file = open((folder / name).c_str(), flags, 0600);
      if (file < 0 || dup2(file, descriptor) < 0) _exit(126);
    };
    redirect("in", O_RDONLY, STDIN_FILENO);
    redirect("out", O_WRONLY | O_CREAT, STDOUT_FILENO);
    redirect("err", O_WRONLY | O_CREAT, STDERR_FILENO);
    execv(program.c_str(), pointers.data());
    _exit(127);
  }
  int status = 0;
  waitpid(process, &status, 0);
  ProgramResult result{exit_code(status), slurp(folder / "out"), slurp(folder / "err")};
  std::filesystem::remove_all(folder);
  return result;
}

TerminalProgram::TerminalProgram(const std::string& program,
                                 const std::vector<std::string>& arguments) {
  winsize size{};
  size.ws_row = 40;
  size.ws_col = 200;
  std::vector<char*> pointers = argument_pointers(program, arguments);
  process_ = forkpty(&terminal_, nullptr, nullptr, &size);
  if (process_ == 0) {
    setenv("TERM", "xterm", 1);
    setenv("NO_COLOR", "1", 1);
    setenv("LC_ALL", "C.UTF-8", 1);
    setenv("XDG_STATE_HOME", "/nonexistent", 1);  // a test leaves no history behind
    execv(program.c_str(), pointers.data());
    _exit(127);
  }
}

TerminalProgram::~TerminalProgram() {
  if (process_ > 0) {
    kill(process_, SIGKILL);
    waitpid(process_, nullptr, 0);
  }
  if (terminal_ >= 0) close(terminal_);
}

void TerminalProgram::type(const std::string& keys) {
  if (write(terminal_, keys.data(), keys.size()) != static_cast<ssize_t>(keys.size()))
    shown_ += "[the test could not type]";
}

bool TerminalProgram::read_some(int milliseconds) {
  pollfd waiting{terminal_, POLLIN, 0};
  if (poll(&waiting, 1, milliseconds) <= 0) return true;
  char buffer[4096];
  const ssize_t count = read(terminal_, buffer, sizeof buffer);
  if (count <= 0) return false;  // EIO: the other end is closed
  shown_.append(buffer, static_cast<std::size_t>(count));
  return true;
}

bool TerminalProgram::wait_for(const std::string& text) {
  const auto deadline = Clock::now() + kPatience;
  bool open = true;
  while (true) {
    if (const std::size_t at = shown_.find(text, found_); at != std::string::npos) {
      found_ = at + text.size();
      return true;
    }
    if (!open || Clock::now() > deadline) return false;
    open = read_some(100);
  }
}

int TerminalProgram::wait_for_exit() {
  const auto deadline = Clock::now() + kPatience;
  while (Clock::now() < deadline) {
    int status = 0;
    if (waitpid(process_, &status, WNOHANG) == process_) {
      process_ = -1;
      return exit_code(status);
    }
    if (!read_some(50)) usleep(20'000);
  }
  return -1;
}

}  // namespace specdec::test
