#pragma once

#include <memory>
#include <string>

namespace specdec::chat {

/// Reads lines from a terminal with editing and a history (libedit, where it was found at build
/// time; otherwise plain lines).
class LineEditor {
 public:
  enum class Result { line, interrupted, end };

  /// The history lives in $XDG_STATE_HOME/specdec/history (~/.local/state without it); it is
  /// kept in memory alone when that cannot be written.
  LineEditor();
  ~LineEditor();
  LineEditor(const LineEditor&) = delete;
  LineEditor& operator=(const LineEditor&) = delete;

  /// One line without its newline. interrupted: Ctrl-C, the line is dropped; end: Ctrl-D on an
  /// empty line.
  Result read(const std::string& prompt, std::string& line);
  void remember(const std::string& line);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace specdec::chat
