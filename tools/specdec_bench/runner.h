#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "specdec/engine.h"
#include "tools/specdec_bench/prompts.h"
#include "tools/specdec_bench/summary.h"

namespace specdec::bench {

/// Stands among the methods, last, for plain decoding without the prompts' grammars, for as many
/// tokens as "none" made under them: what a grammar costs. First turns only.
inline constexpr std::string_view kFree = "free";

struct Plan {
  std::vector<std::string> methods;
  std::vector<int> lengths;    ///< longest draft of each method; empty: the configuration's
  SamplingOptions sampling;    ///< one seed for all, when the temperature is not 0
  bool all_turns = false;      ///< false: first turns alone
  int batch = 1;               ///< prompts at once
  std::string salt = "bench";  ///< no other plan's that runs the same prompts in one engine
};

/// Runs every prompt under every method: batch by batch, the methods one after the other on the
/// same prompts and in an order that rotates, so that a machine that slows down slows all of them.
/// Each run has a cache salt of its own: no method finds a prefix that another one computed.
/// `progress` is called after each method of a batch with the prompt-method pairs done so far;
/// returning true ends the measurement. Returns runs[method][prompt].
/// Compiling a prompt's grammar is left out of all times.
std::vector<std::vector<Run>> run_all(Engine& engine, const std::vector<Prompt>& prompts,
                                      const Plan& plan,
                                      const std::function<bool(std::size_t)>& progress);

}  // namespace specdec::bench
