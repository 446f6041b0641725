#pragma once

#include <string>

#include "examples/speculative_chat/answer.h"
#include "examples/speculative_chat/chat.h"

namespace specdec::chat {

/// The line below an answer: tokens, tok/s, tokens a step, speed-up over the measured plain rate
/// (none when nothing was measured), time to the first token.
std::string closing_line(const Answer& answer, const PlainRate& plain);
/// A sentence for an answer that ended otherwise than by the model's own choice; empty otherwise.
std::string ending_note(const Answer& answer, const Engine& engine, int max_tokens);
/// The table of /compare.
std::string comparison_table(const Comparison& comparison, const cli::Painter& paint);

}  // namespace specdec::chat
