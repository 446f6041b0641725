#include "engine/log.h"

#include <spdlog/sinks/base_sink.h>
#include <spdlog/sinks/stdout_sinks.h>

#include <mutex>

#include "specdec/engine.h"

namespace specdec {

namespace {

constexpr const char* kLoggerName = "specdec";

std::mutex& registration_mutex() {
  static std::mutex mutex;
  return mutex;
}

LogLevel level_of(spdlog::level::level_enum level) {
  switch (level) {
    case spdlog::level::trace:
      return LogLevel::trace;
    case spdlog::level::debug:
      return LogLevel::debug;
    case spdlog::level::info:
      return LogLevel::info;
    case spdlog::level::warn:
      return LogLevel::warn;
    default:
      return LogLevel::error;
  }
}

/// Hands every line to the embedder.
class ForwardingSink final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  explicit ForwardingSink(std::function<void(LogLevel, std::string_view)> forward)
      : forward_(std::move(forward)) {}

 private:
  void sink_it_(const spdlog::details::log_msg& message) override {
    forward_(level_of(message.level), {message.payload.data(), message.payload.size()});
  }
  void flush_() override {}

  std::function<void(LogLevel, std::string_view)> forward_;
};

}  // namespace

std::shared_ptr<spdlog::logger> logger() {
  // An application that registered its own "specdec" logger with spdlog keeps it.
  if (auto found = spdlog::get(kLoggerName)) return found;
  const std::lock_guard lock(registration_mutex());
  if (auto found = spdlog::get(kLoggerName)) return found;
  auto made = std::make_shared<spdlog::logger>(kLoggerName,
                                               std::make_shared<spdlog::sinks::stderr_sink_mt>());
  made->set_level(spdlog::level::warn);
  spdlog::register_logger(made);
  return made;
}

void set_log_level(const std::string& level) {
  logger()->set_level(spdlog::level::from_str(level == "error" ? "err" : level));
}

void set_log_sink(std::function<void(LogLevel, std::string_view)> sink) {
  const auto current = logger();
  const auto level = current->level();
  spdlog::sink_ptr target = std::make_shared<spdlog::sinks::stderr_sink_mt>();
  if (sink) target = std::make_shared<ForwardingSink>(std::move(sink));
  auto replacement = std::make_shared<spdlog::logger>(kLoggerName, std::move(target));
  replacement->set_level(level);
  const std::lock_guard lock(registration_mutex());
  spdlog::drop(kLoggerName);
  spdlog::register_logger(replacement);
}

}  // namespace specdec
