#pragma once

#include <span>
#include <string>
#include <vector>

#include "specdec/engine.h"

namespace specdec::testing {

/// How many tokens each decoding step of one answer emitted, bonus included.
using StepLengths = std::vector<int>;

/// First turns of the development prompts whose rendered form has fewer than `longest` tokens,
/// every `stride`-th of them.
std::vector<std::string> development_prompts(const Tokenizer& tokenizer, int longest, int stride);

/// Greedy answers to `prompts`, up to `max_tokens` tokens each, with the engine's configured
/// drafter; eight at a time.
std::vector<StepLengths> decode_lengths(Engine& engine, std::span<const std::string> prompts,
                                        int max_tokens);

/// Mean tokens a step over the first `tokens` new tokens of each answer, steps of all answers
/// together.
double mean_acceptance_length(std::span<const StepLengths> answers, int tokens);

}  // namespace specdec::testing
