#include <doctest/doctest.h>

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <random>

#include "engine/micro_models.h"
#include "support/check_outputs.h"
#include "support/engine_runs.h"
#include "support/model_writer.h"

// Draft models whose vocabulary is not the target's: refused, or translated.

using namespace specdec;
using namespace specdec::testing;

namespace {

using kernels::DataType;

ModelConfig shape_of(int vocab_size) {
  ModelConfig config = micro_model_config();
  config.num_layers = 3;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.hidden_size = 64;
  config.vocab_size = vocab_size;
  return config;
}

/// The same model and tokenizer with its ordinary tokens in reversed order.
RandomModel renumbered(RandomModel model, TestTokenizer& tokenizer) {
  const auto first = static_cast<std::ptrdiff_t>(tokenizer.num_special);
  std::reverse(tokenizer.tokens.begin() + first, tokenizer.tokens.end());
  for (RandomTensor& tensor : model.tensors) {
    if (tensor.name != "model.embed_tokens.weight" && tensor.name != "lm_head.weight") continue;
    const std::ptrdiff_t width = tensor.shape[1];
    const std::vector<float> rows = tensor.values;
    const std::ptrdiff_t count = tensor.shape[0];
    for (std::ptrdiff_t row = first; row < count; ++row)
      std::copy_n(rows.begin() + (count - 1 - (row - first)) * width, width,
                  tensor.values.begin() + row * width);
  }
  return model;
}

/// Models in a folder that goes when the process ends.
struct Models {
  std::filesystem::path folder =
      std::filesystem::temp_directory_path() / ("specdec-translate-" + std::to_string(::getpid()));
  std::string bytes;       // a target whose tokens are bytes
  std::string reversed;    // itself, its tokens renumbered
  std::string merged;      // another model, with merges
  std::string fewer;       // of the target's tokens
  std::string other_byte;  // one token differs

  Models() {
    std::filesystem::create_directories(folder);
    const auto write = [&](const char* name, const RandomModel& model,
                           const TestTokenizer& tokenizer) {
      const std::string path = (folder / name).string();
      write_gguf(
          path, model,
          {.type = DataType::q8_0, .embedding_type = DataType::q8_0, .own_tokenizer = &tokenizer});
      return path;
    };
    const RandomModel model = random_model(shape_of(259), 11);
    TestTokenizer tokenizer(259, true);
    bytes = write("bytes.gguf", model, tokenizer);
    TestTokenizer swapped = tokenizer;
    std::swap(swapped.tokens[100], swapped.tokens[101]);
    other_byte = write("other.gguf", model, swapped);
    reversed = write("reversed.gguf", renumbered(model, tokenizer), tokenizer);
    merged = write("merged.gguf", random_model(shape_of(320), 12), TestTokenizer(320, true));
    fewer = write("fewer.gguf", random_model(shape_of(300), 12), TestTokenizer(300, true));
  }
  ~Models() {
    std::error_code ignored;
    std::filesystem::remove_all(folder, ignored);
  }
};

const Models& models() {
  static const Models all;
  return all;
}

Config config_of(const std::string& target, const std::string& draft) {
  Config config = micro_config();
  config.target.model = target;
  config.draft.model = draft;
  config.draft.method = "draft_model";
  config.draft.vocabulary = "translate";
  return config;
}

std::vector<Request> requests_of(std::size_t count, int vocab_size) {
  std::mt19937 random(21);
  std::vector<Request> requests(count);
  for (std::size_t i = 0; i < count; ++i) {
    Request& request = requests[i];
    const auto family = static_cast<unsigned>(random() % 2);
    const std::size_t length = 1 + random() % 60;
    for (std::size_t t = 0; t < length; ++t)
      request.prompt_tokens.push_back(
          static_cast<TokenId>(t < 40 ? 3 + (family * 77 + 13 * t) % 256
                                      : random() % static_cast<unsigned>(vocab_size)));
    request.cache_salt = i % 5 == 0 ? "other tenant" : "";
    SamplingOptions& options = request.sampling;
    options.max_tokens = 1 + static_cast<int>(random() % 60);
    options.seed = random();
    options.logprobs = 2;
    options.ignore_eos = true;
    if (i % 3 != 0) options.temperature = 0.7f;
    if (i % 4 == 1) options.repetition_penalty = 1.2f;
    if (i % 4 == 2) options.stop = {"e"};
  }
  return requests;
}

}  // namespace

TEST_CASE("a draft of another vocabulary is refused with the first difference") {
  Config config = config_of(models().bytes, models().other_byte);
  config.draft.vocabulary = "same";
  std::string message = refusal(config);
  CAPTURE(message);
  const TestTokenizer tokenizer(259, true);
  CHECK(message.find("token 100 is \"" + tokenizer.tokens[101] + "\", the target has \"" +
                     tokenizer.tokens[100] + "\"") != std::string::npos);
  CHECK(message.find("other.gguf") != std::string::npos);
  CHECK(message.find("draft.vocabulary = \"translate\"") != std::string::npos);

  config.target.model = models().merged;
  config.draft.model = models().fewer;
  message = refusal(config);
  CHECK(message.find("300 tokens, the target's 320") != std::string::npos);
  CHECK(message.find("draft.vocabulary = \"translate\"") != std::string::npos);
}

TEST_CASE("the target itself with other numbers drafts what the target says") {
  Engine engine = Engine::load(config_of(models().bytes, models().reversed));
  Request request = requests_of(1, 259).front();
  request.sampling = {};
  request.sampling.max_tokens = 200;
  request.sampling.ignore_eos = true;
  request.sampling.logit_bias = {{0, -1e9f}, {1, -1e9f}, {2, -1e9f}};  // no text to draft from
  request.speculation.num_speculative_tokens = 5;
  const RunResult result = run_requests(engine, {request}, 1).front();
  CHECK(result.tokens.size() == 200);
  CHECK(result.stats.speculation.mean_acceptance_length() > 5.5);
  request.speculation.enabled = false;
  CHECK(same_output(result, run_requests(engine, {request}, 1).front()));
}

TEST_CASE("translated drafts change nothing: vocabularies, batches, caches, modes") {
  struct Pair {
    std::string target;
    std::string draft;
    int vocab_size;
  };
  for (const Pair& pair :
       {Pair{models().bytes, models().reversed, 259}, Pair{models().bytes, models().merged, 259},
        Pair{models().merged, models().bytes, 320}}) {
    CAPTURE(pair.target);
    CAPTURE(pair.draft);
    const std::vector<Request> requests = requests_of(24, pair.vocab_size);
    Config config = config_of(pair.target, pair.draft);
    config.draft.method = "none";
    Engine reference = Engine::load(config);
    const std::vector<RunResult> expected = run_requests(reference, requests, 1);
    config.draft.method = "draft_model";
    for (const char* method : {"draft_model", "suffix+draft_model"})
      for (const char* mode : {"fixed", "adaptive"})
        for (const int batch : {1, 6}) {
          CAPTURE(method);
          CAPTURE(mode);
          CAPTURE(batch);
          config.draft.method = method;
          config.draft.length.mode = mode;
          config.kv_cache.memory_mb = batch > 1 ? 1 : 8;  // the draft's cache runs out as well
          config.kv_cache.prefix_cache = batch > 1;
          config.scheduler.max_num_batched_tokens = batch > 1 ? 48 : 256;
          Engine engine = Engine::load(config);
          check_equal(expected, run_requests(engine, requests, batch, 3));
          if (batch > 1) check_equal(expected, run_requests(engine, requests, batch, 4));
          CHECK(engine.stats().kv_blocks_held == 0);
          if (mode == std::string("fixed"))
            CHECK(engine.stats().speculation.spec_decode_num_drafts > 0);
        }
  }
}

TEST_CASE("every acceptance rule takes translated drafts") {
  const std::vector<Request> requests = requests_of(12, 259);
  for (const char* rule : {"rejection", "block", "traversal", "typical"}) {
    CAPTURE(rule);
    Config config = config_of(models().bytes, models().reversed);
    config.verify.method = rule;
    Engine engine = Engine::load(config);
    for (const RunResult& result : run_requests(engine, requests, 4)) CHECK(result.error == "");
    CHECK(engine.stats().speculation.spec_decode_num_accepted_tokens > 0);
  }
}
