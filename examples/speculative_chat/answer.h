#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "specdec/engine.h"
#include "specdec/request.h"

namespace specdec::chat {

/// One finished request, all its outputs put together.
struct Answer {
  std::string text;
  std::vector<OutputToken> tokens;
  FinishReason finish_reason = FinishReason::none;
  std::optional<Error> error;
  std::uint64_t seed = 0;
  RequestStats stats;
  std::vector<TreeSnapshot> trees;  ///< one per decode step, when the engine records them

  /// Tokens per second after the first one, which is what decoding costs; 0 when there were fewer
  /// than two.
  double decode_rate() const noexcept;
  /// At least one step verified a draft.
  bool speculated() const noexcept;
};

/// Runs one request to its end. `show` gets each output's new piece as it comes. Ctrl-C (an
/// InterruptGuard must be alive) cancels the request and leaves the answer so far.
Answer run_request(Engine& engine, Request request,
                   const std::function<void(const Output&)>& show = {});

/// `{"text", "tokens", "finish_reason", "stats"}` on one line, with "error" when there was one.
std::string to_json(const Answer& answer);

}  // namespace specdec::chat
