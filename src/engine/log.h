#pragma once

#include <spdlog/spdlog.h>

#include <memory>
#include <string>
#include <utility>

namespace specdec {

/// The library's logger, "specdec", writing to standard error or to the embedder's sink
/// (set_log_sink). Never spdlog's default logger. Thread-safe.
std::shared_ptr<spdlog::logger> logger();

/// Takes a name of LogConfig::level.
void set_log_level(const std::string& level);

template <class... Args>
void log_debug(spdlog::format_string_t<Args...> format, Args&&... args) {
  logger()->debug(format, std::forward<Args>(args)...);
}
template <class... Args>
void log_info(spdlog::format_string_t<Args...> format, Args&&... args) {
  logger()->info(format, std::forward<Args>(args)...);
}
template <class... Args>
void log_warn(spdlog::format_string_t<Args...> format, Args&&... args) {
  logger()->warn(format, std::forward<Args>(args)...);
}
template <class... Args>
void log_error(spdlog::format_string_t<Args...> format, Args&&... args) {
  logger()->error(format, std::forward<Args>(args)...);
}

}  // namespace specdec
