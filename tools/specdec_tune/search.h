#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "specdec/config.h"
#include "tools/specdec_bench/prompts.h"
#include "tools/specdec_tune/setting.h"

namespace specdec::tune {

/// A setting beside plain decoding, over the prompts and batch sizes that both have run.
struct Trial {
  /// At one batch size. Seconds of wall time, of the setting and of plain decoding.
  struct AtBatch {
    int batch = 1;
    double seconds = 0;
    double plain_seconds = 0;
    std::int64_t tokens = 0;
    std::int64_t plain_tokens = 0;

    /// Tokens a second over plain's; 0 when nothing was measured.
    double speedup() const noexcept;
  };

  Setting setting;
  std::vector<AtBatch> batches = {};
  std::size_t num_prompts = 0;    ///< at each batch size
  std::size_t num_identical = 0;  ///< answers with plain's tokens, over all batch sizes
  std::size_t num_answers = 0;
  int rounds = 0;  ///< of the search that it lasted
  std::int64_t steps = 0;
  std::int64_t step_tokens = 0;
  std::int64_t drafts = 0;
  std::vector<std::int64_t> accepted_at_depth = {};  ///< [depth - 1]: of `drafts`

  /// Geometric mean of the speed-ups over the batch sizes.
  double speedup() const;
  double tokens_per_step() const noexcept;
};

struct SearchOptions {
  std::vector<int> batches = {1};
  double minutes = 4;
  /// Called between two answers with the share of the time that is spent and what goes on; true
  /// ends the search.
  std::function<bool(double, const std::string&)> progress;
};

/// Seconds of a pass by rows, as the engine measured them.
struct Costs {
  std::vector<std::pair<int, double>> verify;
  std::vector<std::pair<int, double>> draft;
};

struct SearchResult {
  std::vector<Trial> trials;  ///< fastest first among those that lasted longest
  std::vector<Costs> costs;   ///< by draft model, in the order given
  bool stopped = false;       ///< by `progress`; trials hold what was measured
  bool ran_out = false;       ///< of prompts, before the time was spent

  /// The fastest one; null when nothing beats plain decoding.
  const Trial* best() const;
};

/// Successive halving (Jamieson and Talwalkar, arXiv 1502.07943): all settings on a few prompts,
/// the better third on more, until few are left. Every round has an equal share of the time; what
/// was measured in earlier ones counts on. Plain decoding runs beside every group of settings that
/// share an engine, prompt by prompt, so a machine that slows down slows both.
///
/// `models`: the draft models to try; empty: methods that need none. Throws Error for a
/// configuration that does not load.
SearchResult search(const Config& config, const std::vector<std::string>& models,
                    const std::vector<bench::Prompt>& prompts, const SearchOptions& options);

/// The same settings, all of them on the same prompts: what a search is judged by.
SearchResult full_grid(const Config& config, const std::vector<std::string>& models,
                       const std::vector<bench::Prompt>& prompts, const SearchOptions& options);

}  // namespace specdec::tune
