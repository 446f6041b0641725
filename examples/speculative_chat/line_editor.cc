#include "examples/speculative_chat/line_editor.h"

#include <clocale>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <system_error>

#ifdef SPECDEC_HAVE_LIBEDIT
#include <histedit.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cwchar>

#include "tools/cli/terminal.h"
#endif

namespace specdec::chat {

#ifdef SPECDEC_HAVE_LIBEDIT

namespace {

constexpr int kHistoryLength = 1000;
constexpr wchar_t kInterruptKey = L'\x03';

std::filesystem::path history_file() {
  std::filesystem::path folder;
  if (const char* state = std::getenv("XDG_STATE_HOME"); state != nullptr && *state == '/')
    folder = state;
  else if (const char* home = std::getenv("HOME"); home != nullptr && *home == '/')
    folder = std::filesystem::path(home) / ".local" / "state";
  else
    return {};
  folder /= "specdec";
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  return error ? std::filesystem::path() : folder / "history";
}

}  // namespace

struct LineEditor::Impl {
  EditLine* editor = nullptr;
  History* history = nullptr;
  std::string prompt;
  std::filesystem::path file;
  bool interrupted = false;

  static Impl* of(EditLine* editor) {
    void* data = nullptr;
    el_get(editor, EL_CLIENTDATA, &data);
    return static_cast<Impl*>(data);
  }
  static char* show_prompt(EditLine* editor) { return of(editor)->prompt.data(); }
  /// The next key. libedit shows its prompt before it switches the terminal to editing, so that
  /// Ctrl-C may still come as a signal: here it becomes the key that it is from then on.
  static int read_key(EditLine* editor, wchar_t* key) {
    constexpr int kLookAround = 100;  // milliseconds
    std::mbstate_t state{};
    while (true) {
      if (cli::InterruptGuard::take()) {
        *key = kInterruptKey;
        return 1;
      }
      pollfd input{STDIN_FILENO, POLLIN, 0};
      if (poll(&input, 1, kLookAround) <= 0) {
        el_resize(editor);
        continue;
      }
      char byte = 0;
      const ssize_t count = ::read(STDIN_FILENO, &byte, 1);
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) return static_cast<int>(count);
      const std::size_t length = std::mbrtowc(key, &byte, 1, &state);
      if (length == static_cast<std::size_t>(-1))
        state = {};  // no UTF-8: the byte is dropped
      else if (length != static_cast<std::size_t>(-2))
        return 1;
    }
  }
  static unsigned char on_interrupt(EditLine* editor, int) {
    of(editor)->interrupted = true;
    return CC_EOF;
  }
  static unsigned char on_suspend(EditLine* editor, int) {
    el_set(editor, EL_PREP_TERM, 0);
    std::raise(SIGTSTP);
    el_set(editor, EL_PREP_TERM, 1);
    return CC_REDISPLAY;
  }
};

LineEditor::LineEditor() : impl_(std::make_unique<Impl>()) {
  // libedit decodes by the locale; a bare machine has C, which would mangle UTF-8.
  const char* locale = std::setlocale(LC_CTYPE, "");
  if (locale == nullptr || std::string(locale) == "C" || std::string(locale) == "POSIX")
    std::setlocale(LC_CTYPE, "C.UTF-8");

  impl_->editor = el_init("speculative_chat", stdin, stdout, stderr);
  if (impl_->editor == nullptr) return;  // read() falls back to plain lines
  EditLine* const editor = impl_->editor;
  el_set(editor, EL_CLIENTDATA, impl_.get());
  // The escape character brackets what has no width: colours.
  el_set(editor, EL_PROMPT_ESC, &Impl::show_prompt, '\1');
  el_set(editor, EL_EDITOR, "emacs");
  el_set(editor, EL_SIGNAL, 1);  // restores the terminal on SIGTERM and the like, follows resizes
  el_set(editor, EL_GETCFN, &Impl::read_key);
  // Ctrl-C comes as a character while a line is edited: a signal would leave el_gets in its loop.
  el_set(editor, EL_SETTY, "-d", "-isig", nullptr);
  el_set(editor, EL_ADDFN, "specdec-interrupt", "drop the line", &Impl::on_interrupt);
  el_set(editor, EL_ADDFN, "specdec-suspend", "stop the program", &Impl::on_suspend);
  el_set(editor, EL_BIND, "^C", "specdec-interrupt", nullptr);
  el_set(editor, EL_BIND, "^Z", "specdec-suspend", nullptr);
  el_set(editor, EL_BIND, "^R", "em-inc-search-prev", nullptr);
  // What terminals send for Home, End, Delete and Ctrl with the arrows.
  el_set(editor, EL_BIND, "\\e[1~", "ed-move-to-beg", nullptr);
  el_set(editor, EL_BIND, "\\e[4~", "ed-move-to-end", nullptr);
  el_set(editor, EL_BIND, "\\e[3~", "ed-delete-next-char", nullptr);
  el_set(editor, EL_BIND, "\\e[1;5C", "em-next-word", nullptr);
  el_set(editor, EL_BIND, "\\e[1;5D", "ed-prev-word", nullptr);

  impl_->history = history_init();
  if (impl_->history == nullptr) return;
  HistEvent event;
  history(impl_->history, &event, H_SETSIZE, kHistoryLength);
  history(impl_->history, &event, H_SETUNIQUE, 1);
  impl_->file = history_file();
  if (!impl_->file.empty()) history(impl_->history, &event, H_LOAD, impl_->file.c_str());
  el_set(editor, EL_HIST, history, impl_->history);
}

LineEditor::~LineEditor() {
  if (impl_->history != nullptr) {
    HistEvent event;
    if (!impl_->file.empty()) history(impl_->history, &event, H_SAVE, impl_->file.c_str());
    history_end(impl_->history);
  }
  if (impl_->editor != nullptr) el_end(impl_->editor);
}

LineEditor::Result LineEditor::read(const std::string& prompt, std::string& line) {
  line.clear();
  if (impl_->editor == nullptr) {
    std::cout << prompt << std::flush;
    return std::getline(std::cin, line) ? Result::line : Result::end;
  }
  impl_->prompt = prompt;
  impl_->interrupted = false;
  el_resize(impl_->editor);  // the window may have changed while an answer was printed
  int length = 0;
  const char* const text = el_gets(impl_->editor, &length);
  if (impl_->interrupted) {
    std::fputs("^C\n", stdout);
    el_reset(impl_->editor);
    return Result::interrupted;
  }
  if (text == nullptr || length <= 0) return Result::end;
  line.assign(text);
  while (!line.empty() && (line.back() == '\n' || line.back() == '\r')) line.pop_back();
  return Result::line;
}

void LineEditor::remember(const std::string& line) {
  if (impl_->history == nullptr || line.empty()) return;
  HistEvent event;
  history(impl_->history, &event, H_ENTER, line.c_str());
}

#else

struct LineEditor::Impl {};
LineEditor::LineEditor() = default;
LineEditor::~LineEditor() = default;

LineEditor::Result LineEditor::read(const std::string& prompt, std::string& line) {
  std::cout << prompt << std::flush;
  return std::getline(std::cin, line) ? Result::line : Result::end;
}

void LineEditor::remember(const std::string&) {}

#endif

}  // namespace specdec::chat

#if defined(__SANITIZE_ADDRESS__)
// libedit 3.1 leaves the wide copies of its history events behind after history_end() and el_end();
// nothing here uses wcsdup.
extern "C" __attribute__((visibility("default"))) const char* __lsan_default_suppressions() {
  return "leak:wcsdup\n";
}
#endif
