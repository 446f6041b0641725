#pragma once

#include <iosfwd>
#include <string>
#include <string_view>

#include "examples/speculative_chat/chat.h"
#include "examples/speculative_chat/word_wrap.h"
#include "tools/cli/terminal.h"

namespace specdec::chat {

/// What the terminal does with answers: streams them, in colours when marking is on.
class Screen {
 public:
  Screen(std::ostream& out, cli::Painter paint) : out_(out), paint_(paint) {}

  std::ostream& out() noexcept { return out_; }
  const cli::Painter& paint() const noexcept { return paint_; }
  /// Streams with accepted draft tokens coloured.
  void set_marking(bool on) noexcept { marking_ = on; }
  /// The sink for Chat::ask.
  std::function<void(const Output&)> streamer(const Tokenizer& tokenizer);
  /// Ends an answer: newline, closing line, how it ended.
  void close(const Answer& answer, Chat& chat);

 private:
  std::ostream& out_;
  cli::Painter paint_;
  bool marking_ = false;
  WordWrap wrap_;
};

/// Runs one line that begins with '/'. False: the program is to end. Errors are shown, not thrown.
bool run_command(std::string_view line, Chat& chat, Screen& screen);

/// The text of /help.
std::string_view command_help() noexcept;

}  // namespace specdec::chat
