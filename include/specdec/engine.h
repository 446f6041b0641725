#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "specdec/config.h"
#include "specdec/drafter.h"
#include "specdec/export.h"
#include "specdec/grammar.h"
#include "specdec/request.h"
#include "specdec/stats.h"
#include "specdec/tokenizer.h"

namespace specdec {

/// The draft tree of a request's latest step and what became of it, for inspection.
struct TreeSnapshot {
  std::vector<TokenId>
      tokens;  ///< [nodes]; node 0 is the root, the last token committed before the step
  std::vector<int> parents;        ///< [nodes]; -1 for the root; a parent comes before its children
  std::vector<int> accepted_path;  ///< node indices from the root down
  TokenId bonus_token =
      0;  ///< the target's own token after the path; -1: the request ended inside the path
};

/// A target model, its drafters and their shared KV cache, decoding any number of requests.
///
/// One thread drives step(); submit(), cancel(), take_outputs() and stats() may be called from any
/// thread at any time. A request's tokens are a function of weights, prompt, sampling options and
/// seed: the drafter, batch neighbours, scheduling and thread count never change them (with the
/// coupled rule, the default).
class SPECDEC_API Engine {
 public:
  /// Loads the models and reserves the cache. Throws Error (io, invalid_model, invalid_config,
  /// unsupported, out_of_memory).
  static Engine load(const Config& config);

  Engine(Engine&&) noexcept;
  Engine& operator=(Engine&&) noexcept;
  ~Engine();

  /// Queues a request. Throws Error(invalid_argument) when it can never run, Error(queue_full) when
  /// it may later.
  RequestId submit(Request request);
  /// Ends a request in any phase; its last output has finish_reason = cancelled. False: unknown or
  /// already finished.
  bool cancel(RequestId id);
  /// Runs one step over every running request. False when there is nothing left to do. Throws only
  /// Error(internal).
  bool step();
  /// Blocks until a request waits or `wake()` is called; for a server's stepping thread.
  void wait_for_work();
  void wake();
  /// Every output since the last call, in step order.
  std::vector<Output> take_outputs();

  /// The grammar of `source` for Request::grammar, compiled or found among those that the engine
  /// keeps (`[grammar]` in the configuration). Throws what compiling throws. Any thread.
  Grammar grammar(const GrammarSource& source);

  /// Registers a drafter under its name(), from the stepping thread. Throws Error(invalid_argument)
  /// when it is taken.
  void add_drafter(std::unique_ptr<Drafter> drafter);
  /// Names that SpeculationOptions::method takes, "none" first.
  std::vector<std::string> draft_methods() const;

  const Tokenizer& tokenizer() const noexcept;
  const Config& config() const noexcept;
  EngineStats stats() const;
  /// Longest sequence, prompt and output together, that the target and the cache can hold.
  int max_context() const noexcept;
  /// Keeps the draft tree of each request's latest step; off by default. Stepping thread only.
  void record_trees(bool on);
  /// The latest tree of a running or just finished request; empty when there is none. Stepping
  /// thread only.
  TreeSnapshot last_tree(RequestId id) const;
  /// Drops every cached prefix that no running request holds. Stepping thread only.
  void clear_prefix_cache();

 private:
  struct Impl;
  explicit Engine(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

enum class LogLevel { trace, debug, info, warn, error };

/// Receives the library's log lines instead of the default (the spdlog logger "specdec", to
/// standard error). Call before loading an engine; the sink may be called from any thread. An empty
/// function restores the default.
SPECDEC_API void set_log_sink(std::function<void(LogLevel, std::string_view)> sink);

}  // namespace specdec
