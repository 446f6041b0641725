#include "tools/cli/progress.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "tools/cli/terminal.h"

namespace specdec::cli {

ProgressBar::ProgressBar(std::size_t total)
    : total_(total), shown_(is_terminal(STDERR_FILENO)), start_(std::chrono::steady_clock::now()) {}

ProgressBar::~ProgressBar() {
  if (shown_) std::fputs("\r\x1b[K", stderr);
}

void ProgressBar::update(std::size_t done, const std::string& label) {
  if (!shown_ || done == 0 || total_ == 0) return;
  constexpr std::size_t kWidth = 30;
  done = std::min(done, total_);
  const std::size_t filled = done * kWidth / total_;
  const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start_;
  const auto left = static_cast<int>(spent.count() / static_cast<double>(done) *
                                     static_cast<double>(total_ - done));
  const std::string counts =
      label.empty() ? " " + std::to_string(done) + "/" + std::to_string(total_) + "," : "";
  std::fprintf(stderr, "\r%s%s[%s%s]%s %02d:%02d left \x1b[K", label.c_str(),
               label.empty() ? "" : " ", std::string(filled, '=').c_str(),
               std::string(kWidth - filled, ' ').c_str(), counts.c_str(), left / 60, left % 60);
}

}  // namespace specdec::cli
