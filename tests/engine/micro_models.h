#pragma once

#include <string>
#include <vector>

#include "specdec/config.h"

namespace specdec::testing {

/// Paths of a tiny random target and a tiny draft of the same vocabulary, written once per process
/// to a temporary folder. The draft is the target's twin with fewer layers' worth of agreement: it
/// guesses right some of the time.
struct MicroModels {
  std::string target;
  std::string draft;
  std::string first_layers;  // the target's first three layers as a model of their own
  std::string some_tokens;   // a list of two thirds of the vocabulary
  std::string medusa;        // random Medusa heads
  std::string eagle;         // a random EAGLE-3 head that knows a third of the vocabulary
};
const MicroModels& micro_models();

/// A configuration that runs them in a small cache.
Config micro_config();
/// The same with the EAGLE-3 head in the draft model's place.
Config micro_eagle_config();
/// The target's first three layers in their place.
Config micro_early_exit_config();
/// Medusa heads in the draft model's place.
Config micro_medusa_config();
/// The draft model with a head for the listed tokens alone.
Config micro_trimmed_config();
/// All of them: a configuration for each way in which a model drafts.
std::vector<Config> micro_model_configs();

/// What a model says after each token of a text: logits, from a float32 cache.
std::vector<float> logits_of(const std::string& path, const Config& config, int rows = 40);

/// What Engine::load says of a configuration that it refuses, which must be Error(invalid_config);
/// "loaded" where it does not.
std::string refusal(const Config& config);

}  // namespace specdec::testing
