#pragma once

#include <chrono>
#include <cstddef>
#include <string>

namespace specdec::cli {

/// One line on standard error that is drawn over itself: "[=====>    ] 12/60, 00:41 left". Shows
/// nothing where that is no terminal; gone with the object.
class ProgressBar {
 public:
  explicit ProgressBar(std::size_t total);
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  /// `label` stands before the bar; empty: the counts stand behind it.
  void update(std::size_t done, const std::string& label = "");

 private:
  std::size_t total_;
  bool shown_;
  std::chrono::steady_clock::time_point start_;
};

}  // namespace specdec::cli
