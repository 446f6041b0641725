#pragma once

#include <string>
#include <vector>

namespace specdec::test {

struct ProgramResult {
  int exit_code = -1;
  std::string out;
  std::string err;
};

/// Runs a program to its end with `input` as standard input; none of the three streams is a
/// terminal.
ProgramResult run_program(const std::string& program, const std::vector<std::string>& arguments,
                          const std::string& input = "");

/// A program on a pseudo-terminal of its own, typed at by the test.
class TerminalProgram {
 public:
  TerminalProgram(const std::string& program, const std::vector<std::string>& arguments);
  ~TerminalProgram();
  TerminalProgram(const TerminalProgram&) = delete;
  TerminalProgram& operator=(const TerminalProgram&) = delete;

  void type(const std::string& keys);
  /// Waits until `text` has been shown after what an earlier call found. False when a minute has
  /// passed or the program has ended.
  bool wait_for(const std::string& text);
  /// Waits for the end; -1 when it does not come within a minute.
  int wait_for_exit();
  const std::string& shown() const noexcept { return shown_; }

 private:
  bool read_some(int milliseconds);

  int terminal_ = -1;
  int process_ = -1;
  std::string shown_;
  std::size_t found_ = 0;
};

}  // namespace specdec::test
