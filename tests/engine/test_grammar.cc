#include <doctest/doctest.h>

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <random>

#include "engine/micro_models.h"
#include "support/engine_runs.h"
#include "support/model_writer.h"

// Constrained decoding on micro models: every answer is a text of its grammar, and the exactness
// law holds under it.

using namespace specdec;
using namespace specdec::testing;

namespace {

std::vector<Grammar> grammars() {
  const std::vector<std::string> choices{"red", "green", "a rather long answer, forced from its r",
                                         "reddish"};
  return {
      Grammar::regex("(yes|no|maybe)(,(yes|no|maybe)){0,6}"),
      Grammar::regex("[a-f]{3,12}-\\d{2,4}"),
      Grammar::choice(choices),
      Grammar::gbnf("root ::= sum\nsum ::= item (\"+\" item)*\n"
                    "item ::= [0-9]{1,3} | \"(\" sum \")\""),
      Grammar::json_schema(R"({"type":"object","properties":{"name":{"type":"string","maxLength":6},
        "kind":{"enum":["one","two"]},"size":{"type":"integer","minimum":0,"maximum":99}},
        "required":["name","kind","size"],"additionalProperties":false})",
                           {.whitespace = JsonOptions::Whitespace::none}),
      Grammar::json_schema(
          R"({"type":"array","items":{"type":"boolean"},"minItems":2,"maxItems":9})"),
  };
}

std::vector<Request> constrained_requests(const std::vector<Grammar>& all, std::uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<Request> requests(8 * all.size());
  for (std::size_t i = 0; i < requests.size(); ++i) {
    Request& request = requests[i];
    request.grammar = all[i % all.size()];
    const std::size_t length = 1 + random() % 30;
    for (std::size_t t = 0; t < length; ++t)
      request.prompt_tokens.push_back(static_cast<TokenId>(random() % 250));
    SamplingOptions& options = request.sampling;
    options.max_tokens = i % 5 == 0 ? 1 + static_cast<int>(random() % 12) : 80;
    options.seed = random();
    options.logprobs = static_cast<int>(random() % 3) - 1;
    if (i % 3 != 0) options.temperature = 0.5f + 0.25f * static_cast<float>(random() % 4);
    if (random() % 2 == 0) options.top_p = 0.9f;
    if (random() % 2 == 0) options.repetition_penalty = 1.2f;
    if (random() % 3 == 0) options.ignore_eos = true;
    if (random() % 3 == 0) options.top_k = 5 + static_cast<int>(random() % 40);
    if (random() % 4 == 0) options.min_p = 0.02f;
    if (random() % 3 == 0) options.presence_penalty = 0.5f;
    if (random() % 3 == 0) options.frequency_penalty = 0.3f;
    if (random() % 4 == 0) options.logit_bias = {{7, 2.0f}, {90, -3.0f}};
    if (random() % 5 == 0) options.stop = {"no", "1"};
    if (random() % 5 == 0) options.min_tokens = std::min(6, options.max_tokens);
  }
  return requests;
}

std::vector<RunResult> run(Config config, std::vector<Request> requests, const char* method,
                           int batch) {
  for (Request& request : requests) request.speculation.method = method;
  Engine engine = Engine::load(config);
  return run_requests(engine, requests, batch, static_cast<std::uint32_t>(batch));
}

}  // namespace

TEST_CASE("constrained answers are texts of their grammar, the same with and without speculation") {
  const std::vector<Request> requests = constrained_requests(grammars(), 1);
  const std::vector<RunResult> plain = run(micro_config(), requests, "none", 1);
  int complete = 0;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    CAPTURE(i);
    CAPTURE(plain[i].text);
    CAPTURE(plain[i].error);
    const auto refusal = requests[i].grammar->check(plain[i].text);
    const FinishReason reason = plain[i].finish_reason;
    if (reason != FinishReason::grammar && reason != FinishReason::eos) {
      if (refusal) CHECK(refusal->offset == plain[i].text.size());  // cut off, not wrong
      continue;
    }
    ++complete;
    CHECK(!refusal);
  }
  CHECK(complete > static_cast<int>(requests.size()) / 2);

  const std::vector<std::string> methods = {"draft_model", "ngram",  "suffix+draft_model",
                                            "lookahead",   "eagle3", "suffix+early_exit"};
  for (const std::string& method : methods)
    for (const int topk : {1, 3})
      for (const int batch : {1, 6}) {
        INFO(method << ", topk " << topk << ", batch " << batch);
        Config config = method == "eagle3"              ? micro_eagle_config()
                        : method == "suffix+early_exit" ? micro_early_exit_config()
                                                        : micro_config();
        if (batch > 1) config.kv_cache.memory_mb = 1;  // preempts
        if (batch > 1) config.draft.length.mode = "adaptive";
        config.draft.tree.topk = topk;
        config.draft.length.num_speculative_tokens = 2 + 3 * topk;
        const std::vector<RunResult> drafted = run(config, requests, method.c_str(), batch);
        for (std::size_t i = 0; i < requests.size(); ++i) {
          INFO("request " << i << ": " << describe_difference(plain[i], drafted[i]));
          CHECK(same_output(plain[i], drafted[i]));
        }
      }
}

TEST_CASE("the sampled rules keep to the grammar, too") {
  std::vector<Request> requests = constrained_requests(grammars(), 2);
  for (Request& request : requests) request.sampling.min_tokens = 0;
  for (const char* rule : {"rejection", "block", "traversal", "typical"})
    for (const char* method : {"draft_model", "ngram"}) {
      INFO(rule << ", " << method);
      Config config = micro_config();
      config.verify.method = rule;
      config.draft.tree.topk = std::string(rule) == "block" ? 1 : 2;
      const std::vector<RunResult> results = run(config, requests, method, 4);
      for (std::size_t i = 0; i < requests.size(); ++i) {
        INFO("request " << i << ": " << results[i].text << results[i].error);
        const auto refusal = requests[i].grammar->check(results[i].text);
        CHECK(results[i].error.empty());
        if (refusal) CHECK(refusal->offset == results[i].text.size());
        if (refusal) CHECK(results[i].finish_reason != FinishReason::grammar);
        if (refusal) CHECK(results[i].finish_reason != FinishReason::eos);
      }
    }
}

TEST_CASE("text that the grammar forces is drafted without a drafter's help") {
  Request request;
  request.prompt_tokens = {1, 2, 3};
  request.grammar = Grammar::regex("abcdefgh ijklmnop qrstuvwx yz(0|1)");
  request.sampling.max_tokens = 60;
  request.sampling.seed = 1;
  Config config = micro_config();
  config.draft.length.num_speculative_tokens = 8;
  const std::vector<RunResult> plain = run(config, {request}, "none", 1);
  const std::vector<RunResult> drafted = run(config, {request}, "ngram", 1);
  CHECK(same_output(plain[0], drafted[0]));
  CHECK(plain[0].finish_reason == FinishReason::grammar);
  CHECK(drafted[0].stats.speculation.acceptance_histogram.size() > 2);
}

namespace {

/// Drafts what it was told will come, and on beyond it.
class Prophet final : public Drafter {
 public:
  Prophet(int num_prompt, std::vector<TokenId> output)
      : num_prompt_(static_cast<std::size_t>(num_prompt)), output_(std::move(output)) {}

  std::string_view name() const noexcept override { return "prophet"; }
  void propose(std::span<const DraftContext> contexts,
               std::span<DraftProposal> proposals) override {
    for (std::size_t i = 0; i < contexts.size(); ++i) {
      int parent = DraftProposal::kRoot;
      const std::size_t begin = contexts[i].tokens.size() - num_prompt_;
      for (std::size_t at = begin; at < output_.size(); ++at) {
        if (static_cast<int>(at - begin) >= contexts[i].max_depth) break;
        parent = proposals[i].add(output_[at], parent);
      }
    }
  }

 private:
  std::size_t num_prompt_;
  std::vector<TokenId> output_;
};

}  // namespace

TEST_CASE("the answer ends where the grammar does, however much of a right draft lies beyond") {
  const std::vector<TokenId> prompt{1, 2, 3};
  for (const char* pattern : {"[ab]{7}"})
    for (const char* rule : {"coupled", "rejection", "block", "traversal", "typical"}) {
      CAPTURE(pattern);
      CAPTURE(rule);
      Request request;
      request.prompt_tokens = prompt;
      request.grammar = Grammar::regex(pattern);
      request.sampling.max_tokens = 60;
      request.sampling.seed = 4;
      request.sampling.logprobs = 1;
      Config config = micro_config();
      config.verify.method = rule;
      config.draft.length.num_speculative_tokens = 16;
      const RunResult plain = run(config, {request}, "none", 1).front();
      REQUIRE(plain.finish_reason == FinishReason::grammar);
      CHECK(request.grammar->matches(plain.text));
      for (const bool end_token : {false, true}) {
        std::vector<TokenId> foreseen = plain.tokens;
        if (end_token) foreseen.push_back(0);  // <|endoftext|>
        foreseen.insert(foreseen.end(), 5, plain.tokens.back());
        Engine engine = Engine::load(config);
        engine.add_drafter(std::make_unique<Prophet>(static_cast<int>(prompt.size()), foreseen));
        request.speculation.method = "prophet";
        const RunResult drafted = run_requests(engine, {request}, 1).front();
        INFO(describe_difference(plain, drafted));
        CHECK(same_output(plain, drafted));
        // The prompt's step emits the first token, the next one all others.
        CHECK(drafted.stats.speculation.num_spec_steps == 1);
      }
    }
}

TEST_CASE("an engine keeps the grammars that it compiled") {
  Config config = micro_config();
  config.grammar.cache_entries = 2;
  Engine engine = Engine::load(config);
  const auto source = [](const char* text) {
    return GrammarSource{GrammarSource::Kind::regex, text, {}};
  };
  const std::size_t fresh = engine.grammar(source("[ab]{9}")).memory_bytes();
  Request request;
  request.prompt_tokens = {1, 2, 3};
  request.grammar = engine.grammar(source("[ab]{9}"));
  run_requests(engine, {request}, 1);
  CHECK(engine.grammar(source("[ab]{9}")).memory_bytes() > fresh);  // what the run found out
  engine.grammar(source("c"));
  engine.grammar(source("d"));
  CHECK(engine.grammar(source("[ab]{9}")).memory_bytes() == fresh);  // had gone, came again
  CHECK_THROWS_AS(engine.grammar(source("(")), Error);
}

TEST_CASE("requests whose grammar cannot begin are refused at once") {
  Engine engine = Engine::load(micro_config());
  Request request;
  request.prompt_tokens = {1};
  CHECK_THROWS_AS(Grammar::gbnf("root ::= root \"a\""), Error);
  CHECK_THROWS_AS(Grammar::regex("(a"), Error);
  CHECK_THROWS_AS(Grammar::json_schema("{\"type\": 12}"), Error);
  request.grammar = Grammar::regex("");  // the empty answer: an end token alone
  engine.submit(request);
  while (engine.step()) {
  }
  const std::vector<Output> outputs = engine.take_outputs();
  REQUIRE(!outputs.empty());
  CHECK(outputs.back().text.empty());
  CHECK(outputs.back().finish_reason == FinishReason::eos);
}

TEST_CASE("a grammar that admits nothing under the vocabulary is refused at submit") {
  const std::filesystem::path path =
      std::filesystem::temp_directory_path() / ("specdec-no-tilde-" + std::to_string(::getpid()));
  const RandomModel model = random_model(micro_model_config(), 1);
  TestTokenizer tokenizer(model.config.vocab_size, true);
  const auto tilde = std::ranges::find(tokenizer.tokens, "~");  // in no merge
  REQUIRE(tilde != tokenizer.tokens.end());
  *tilde = "no text has this token";
  GgufFileSpec spec = gguf_spec(model);
  spec.set_strings("tokenizer.ggml.tokens", tokenizer.tokens);
  write_file(path, spec.bytes());
  Config config = micro_config();
  config.target.model = path.string();
  config.draft.method = "none";
  config.draft.model.clear();
  Engine engine = Engine::load(config);
  std::filesystem::remove(path);
  Request request;
  request.prompt_tokens = {1};
  request.sampling.max_tokens = 3;
  request.grammar = Grammar::regex("~+");
  CHECK_THROWS_WITH_AS(engine.submit(request), doctest::Contains("vocabulary"), Error);
  CHECK_FALSE(engine.step());
  request.grammar = Grammar::regex("r+|~+");
  CHECK(run_requests(engine, {request}, 1).front().text == "rrr");
}

// Behind "h" two expressions have nothing in common, which only a hundred thousand states show. As
// long as "e" may follow instead, nobody need know.
TEST_CASE("a grammar past its limits ends its request, with a message, and no other") {
  for (const char* method : {"none", "ngram"}) {
    CAPTURE(method);
    std::vector<Request> requests(3);
    for (Request& request : requests) {
      request.prompt_tokens = {1, 2, 3};
      request.sampling.max_tokens = 12;
      request.grammar = Grammar::regex("[cd]{12}");
    }
    requests[1].grammar = Grammar::regex("[cd]{3}(e|h(?=[ab]*a[ab]{17}g)[ab]*b[ab]{17}g)");
    const std::vector<RunResult> results = run(micro_config(), requests, method, 3);
    CHECK(results[1].finish_reason == FinishReason::error);
    CHECK(results[1].error.find("limit") != std::string::npos);
    CHECK(results[1].text.size() <= 3);
    for (const std::size_t other : {std::size_t{0}, std::size_t{2}}) {
      CHECK(results[other].error.empty());
      CHECK(results[other].text.size() == 12);
    }
  }
}
