#include "tools/cli/terminal.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace specdec::cli {
namespace {

volatile std::sig_atomic_t g_interrupted = 0;
struct sigaction g_previous;

extern "C" void specdec_cli_on_interrupt(int) { g_interrupted = 1; }

const char* escape(Style style) noexcept {
  switch (style) {
    case Style::bold:
      return "\x1b[1m";
    case Style::dim:
      return "\x1b[2m";
    case Style::red:
      return "\x1b[31m";
    case Style::green:
      return "\x1b[32m";
    case Style::yellow:
      return "\x1b[33m";
    case Style::cyan:
      return "\x1b[36m";
    case Style::plain:
      break;
  }
  return "";
}

// Length of the UTF-8 character at the front of `bytes`: 0 = cut off by the end, -1 = none is here.
// Table 3-7 of the Unicode standard: no overlong forms, no surrogates.
int character_length(std::string_view bytes) noexcept {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(bytes[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return 1;
  const int length = lead >= 0xC2 && lead <= 0xDF   ? 2
                     : lead >= 0xE0 && lead <= 0xEF ? 3
                     : lead >= 0xF0 && lead <= 0xF4 ? 4
                                                    : -1;
  if (length < 0) return -1;
  for (int i = 1; i < length; ++i) {
    if (static_cast<std::size_t>(i) >= bytes.size()) return 0;
    unsigned char low = 0x80;
    unsigned char high = 0xBF;
    if (i == 1 && lead == 0xE0) low = 0xA0;
    if (i == 1 && lead == 0xED) high = 0x9F;
    if (i == 1 && lead == 0xF0) low = 0x90;
    if (i == 1 && lead == 0xF4) high = 0x8F;
    if (byte(static_cast<std::size_t>(i)) < low || byte(static_cast<std::size_t>(i)) > high)
      return -1;
  }
  return length;
}

}  // namespace

bool is_terminal(int descriptor) noexcept { return isatty(descriptor) == 1; }

bool wants_colour(int descriptor) noexcept {
  const char* no_color = std::getenv("NO_COLOR");
  if (no_color != nullptr && *no_color != '\0') return false;
  const char* term = std::getenv("TERM");
  return is_terminal(descriptor) && term != nullptr && std::strcmp(term, "dumb") != 0;
}

int terminal_width() noexcept {
  winsize size{};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  return 80;
}

std::string Painter::operator()(Style style, std::string_view text) const {
  if (!colour_ || style == Style::plain || text.empty()) return std::string(text);
  return escape(style) + std::string(text) + "\x1b[0m";
}

std::string printable(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if ((byte < 0x20 && byte != '\n' && byte != '\t') || byte == 0x7F) continue;
    // C1 controls, U+0080 to U+009F: some terminals take U+009B for an escape sequence.
    if (byte == 0xC2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xA0) {
      ++i;
      continue;
    }
    out += text[i];
  }
  return out;
}

std::string quoted(std::string_view bytes) {
  std::string out = "\"";
  while (!bytes.empty()) {
    const int length = character_length(bytes);
    const auto byte = static_cast<unsigned char>(bytes[0]);
    std::size_t used = 1;
    if (byte == '\n') {
      out += "\\n";
    } else if (byte == '\t') {
      out += "\\t";
    } else if (byte == '"' || byte == '\\') {
      out += '\\';
      out += bytes[0];
    } else if (length <= 0 || byte < 0x20 || byte == 0x7F) {
      char hex[5];
      std::snprintf(hex, sizeof hex, "\\x%02X", byte);
      out += hex;
    } else {
      used = static_cast<std::size_t>(length);
      out += printable(bytes.substr(0, used));
    }
    bytes.remove_prefix(used);
  }
  return out + '"';
}

std::size_t character_size(std::string_view bytes) noexcept {
  return static_cast<std::size_t>(std::max(1, character_length(bytes)));
}

char32_t code_point(std::string_view character) noexcept {
  const int length = character_length(character);
  const auto lead = static_cast<unsigned char>(character[0]);
  if (length == 1) return lead;
  if (length <= 0) return 0xFFFD;
  char32_t value = lead & (0xFFu >> (length + 1));
  for (int i = 1; i < length; ++i)
    value =
        value << 6 | (static_cast<unsigned char>(character[static_cast<std::size_t>(i)]) & 0x3Fu);
  return value;
}

std::size_t whole_utf8(std::string_view bytes) noexcept {
  std::size_t done = 0;
  while (done < bytes.size()) {
    const int length = character_length(bytes.substr(done));
    if (length == 0) break;
    done += length < 0 ? 1 : static_cast<std::size_t>(length);
  }
  return done;
}

InterruptGuard::InterruptGuard() {
  g_interrupted = 0;
  struct sigaction action {};
  action.sa_handler = specdec_cli_on_interrupt;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, &g_previous);
}

InterruptGuard::~InterruptGuard() { sigaction(SIGINT, &g_previous, nullptr); }

bool InterruptGuard::interrupted() noexcept { return g_interrupted != 0; }
bool InterruptGuard::take() noexcept {
  const bool pressed = interrupted();
  if (pressed) g_interrupted = 0;
  return pressed;
}

}  // namespace specdec::cli
