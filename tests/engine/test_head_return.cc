#include <doctest/doctest.h>

#include <unistd.h>

#include <cstddef>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/cost_cache.h"
#include "engine/draft_source.h"
#include "engine/guessed_requests.h"
#include "engine/micro_models.h"
#include "engine/model_memory.h"
#include "engine/scheduler.h"
#include "engine/step.h"
#include "support/check_outputs.h"
#include "support/engine_runs.h"

// An EAGLE head that comes back to a sequence which went on without it drafts what it would have
// drafted had it never left: same trees, same confidences, bit for bit. Tokens would not show a
// fault in that, since the acceptance rule makes them equal anyway.

using namespace specdec;
using namespace specdec::testing;

namespace {

bool no_host() { return test_device() != "cpu"; }

Request request_of(std::vector<TokenId> tokens, int max_tokens) {
  Request request = guessed_request(std::move(tokens), max_tokens);
  request.sampling.logprobs = 0;
  return request;
}

/// What a step drafted.
struct Draft {
  int root = 0;  // its position
  std::vector<TokenId> tokens;
  std::vector<std::int32_t> parents;
  std::vector<float> confidences;

  bool operator==(const Draft&) const = default;
};

/// The parts of an engine, with its sequences in reach.
class Decoder {
 public:
  explicit Decoder(Config config)
      : config_(std::move(config)),
        backend_(make_backend(config_.backend)),
        source_(open_model(config_.target.model)),
        tokenizer_(source_->load_tokenizer()),
        draft_(open_draft(config_, source_->config(), *tokenizer_)),
        shape_(shape_cache(config_, source_->config(), draft_.config())),
        cache_(cache_options(config_, shape_)),
        target_(make_transformer(*backend_, *source_, config_, shape_.num_blocks)),
        drafts_(config_, *backend_, source_->config().vocab_size, shape_.max_context),
        scheduler_(
            config_.scheduler, cache_,
            [this](const Sequence& sequence, int batch_size, int max_rows) {
              return drafts_.limits(sequence, batch_size, max_rows);
            },
            [this](Sequence& sequence, int batch_size) { drafts_.admit(sequence, batch_size); }) {
    draft_.install(drafts_, {.backend = *backend_,
                             .target_source = *source_,
                             .target = *target_,
                             .tokenizer = *tokenizer_,
                             .config = config_,
                             .shape = shape_});
    step_.emplace(StepParts{.config = config_,
                            .backend = *backend_,
                            .target = *target_,
                            .drafts = drafts_,
                            .cache = cache_,
                            .tokenizer = *tokenizer_,
                            .max_context = shape_.max_context});
  }

  /// A request that drafts, or one that goes without a head as in a batch too wide for it.
  Sequence& add(const Request& request, bool drafts = true) {
    auto sequence = std::make_unique<Sequence>();
    Sequence& added = *sequence;
    added.id = ++last_id_;
    added.request = request;
    added.tokens = request.prompt_tokens;
    added.num_prompt_tokens = added.size();
    added.seed = *request.sampling.seed;
    added.max_draft = config_.draft.length.num_speculative_tokens;
    added.penalties.add_prompt(added.tokens);
    added.draft_method = drafts ? config_.draft.method : "none";
    added.uses_features = drafts;
    added.prefix_hit = drafts_.prefix_hit(added.draft_method);
    scheduler_.add(std::move(sequence));
    return added;
  }
  /// From now on the sequence decodes plainly, and nobody keeps features of it ...
  static void leave(Sequence& sequence) {
    sequence.draft_method = "none";
    sequence.uses_features = false;
    sequence.features.clear();
  }
  /// ... and now it may have its head back.
  void may_return(Sequence& sequence) const { sequence.draft_method = config_.draft.method; }

  /// One step; false when nothing was left to do. What ended is kept.
  bool step() {
    const std::vector<Sequence*> batch = scheduler_.plan();
    if (batch.empty()) return false;
    step_->run(batch, stats_);
    for (Sequence* sequence : batch) {
      if (!sequence->output.finished()) continue;
      REQUIRE_MESSAGE(!sequence->output.error, sequence->output.error->what());
      ended_.push_back(scheduler_.remove(sequence->id));
      ended_.back()->kv = KvSequence();
      ended_.back()->features.clear();
    }
    return true;
  }
  void step_until(const Sequence& sequence, int num_output) {
    while (sequence.num_output() < num_output && !sequence.output.finished()) REQUIRE(step());
  }

  /// The draft of the sequence's latest step; nothing if that had none of the full depth.
  std::optional<Draft> draft_of(const Sequence& sequence) const {
    if (!sequence.samples || sequence.tree.num_draft_tokens() == 0 ||
        sequence.draft_depth < config_.draft.length.num_speculative_tokens)
      return std::nullopt;
    Draft draft{.root = sequence.size() - static_cast<int>(sequence.path.tokens.size()) - 1,
                .tokens = sequence.tree.tokens,
                .parents = {sequence.tree.parents.begin(), sequence.tree.parents.end()},
                .confidences = {}};
    for (const NodeOrigin& origin : sequence.origins)
      draft.confidences.push_back(origin.confidence);
    return draft;
  }

  void measure_costs() { drafts_.measure_costs(*target_, shape_.num_blocks); }

  KvCacheManager& cache() { return cache_; }
  DraftStage& drafts() { return drafts_; }
  Scheduler& scheduler() { return scheduler_; }
  const Transformer& target() const { return *target_; }
  std::int64_t num_run_again() { return drafts_.catch_up()->num_run_again(); }

 private:
  Config config_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<ModelSource> source_;
  std::unique_ptr<Tokenizer> tokenizer_;
  DraftSource draft_;
  CacheShape shape_;
  KvCacheManager cache_;
  std::unique_ptr<Transformer> target_;
  DraftStage drafts_;
  std::vector<std::unique_ptr<Sequence>> ended_;
  Scheduler scheduler_;
  std::optional<Step> step_;
  EngineStats stats_;
  RequestId last_id_ = 0;
};

/// What a head that was there from the beginning drafts with the last token of `tokens` as root.
Draft expected_draft(const Config& config, const Sequence& sequence, int root) {
  Config roomy = config;
  roomy.kv_cache.memory_mb = 8;
  Decoder decoder(roomy);
  Request request = sequence.request;
  request.prompt_tokens.assign(sequence.tokens.begin(), sequence.tokens.begin() + root);
  request.sampling.max_tokens = 40;
  Sequence& fresh = decoder.add(request);
  decoder.step_until(fresh, 1);
  REQUIRE(fresh.tokens.back() == sequence.tokens[static_cast<std::size_t>(root)]);
  REQUIRE(decoder.step());
  const std::optional<Draft> draft = decoder.draft_of(fresh);
  REQUIRE(draft);
  CHECK(decoder.num_run_again() == 0);
  return *draft;
}

/// Drafts of the sequence's next steps, until it has emitted `num_output` tokens.
std::vector<Draft> drafts_until(Decoder& decoder, const Sequence& sequence, int num_output) {
  std::vector<Draft> drafts;
  while (sequence.num_output() < num_output && !sequence.output.finished()) {
    REQUIRE(decoder.step());
    if (std::optional<Draft> draft = decoder.draft_of(sequence)) drafts.push_back(*draft);
  }
  return drafts;
}

void check_drafts(const Config& config, const Sequence& sequence,
                  const std::vector<Draft>& drafts) {
  for (const Draft& draft : drafts) {
    CAPTURE(draft.root);
    CHECK(draft == expected_draft(config, sequence, draft.root));
  }
}

/// The tokens of the request, decoded plainly by an engine.
std::vector<TokenId> plain_tokens(const Request& request) {
  Config config = micro_eagle_config();
  config.draft.method = "none";
  Engine engine = Engine::load(config);
  return run_requests(engine, {request}, 1).front().tokens;
}

void check_tokens(const Sequence& sequence) {
  const std::vector<TokenId> output(sequence.tokens.begin() + sequence.num_prompt_tokens,
                                    sequence.tokens.end());
  CHECK(output == plain_tokens(sequence.request));
}

}  // namespace

TEST_CASE("a head that comes back drafts what one that never left does" *
          doctest::skip(no_host())) {
  for (const int topk : {1, 4})
    for (const int away : {1, 2, 16, 45}) {
      CAPTURE(topk);
      CAPTURE(away);
      Config config = micro_eagle_config();
      config.draft.tree.topk = topk;
      Decoder decoder(config);
      Sequence& sequence = decoder.add(request_of(tokens_from(0, 37), 200));
      decoder.step_until(sequence, 12);
      for (int times = 0; times < 2; ++times) {
        Decoder::leave(sequence);
        const int left_at = sequence.size();
        const std::int64_t before = decoder.num_run_again();
        decoder.step_until(sequence, sequence.num_output() + away);
        CHECK(sequence.size() == left_at + away);
        decoder.may_return(sequence);
        // What the head missed, and at most what a step's features had still to become KV.
        const std::vector<Draft> drafts =
            drafts_until(decoder, sequence, sequence.num_output() + 10);
        CHECK(decoder.num_run_again() - before >= away);
        CHECK(decoder.num_run_again() - before <= away + 5);
        CHECK(drafts.size() > 2);
        check_drafts(config, sequence, drafts);
      }
      decoder.step_until(sequence, 200);
      check_tokens(sequence);
    }
}

TEST_CASE("a head comes to a sequence that never had one, a few rows at a time" *
          doctest::skip(no_host())) {
  Config config = micro_eagle_config();
  config.scheduler.max_num_batched_tokens = 16;
  config.scheduler.max_num_seqs = 4;
  Decoder decoder(config);
  Sequence& sequence = decoder.add(request_of(tokens_from(0, 50), 90), false);
  decoder.step_until(sequence, 20);
  CHECK(sequence.kv.length(KvPool::draft) == 0);
  decoder.may_return(sequence);
  const std::vector<Draft> drafts = drafts_until(decoder, sequence, 40);
  CHECK(decoder.num_run_again() == 69);  // there is no entry for the first token
  CHECK(drafts.size() > 4);
  check_drafts(config, sequence, drafts);
  decoder.step_until(sequence, 90);
  check_tokens(sequence);
}

TEST_CASE("a head that missed more than it could make up for stays away" *
          doctest::skip(no_host())) {
  Decoder decoder(micro_eagle_config());
  Sequence& sequence = decoder.add(request_of(tokens_from(0, 50), 30), false);
  decoder.step_until(sequence, 6);  // 55 missed, 24 left
  decoder.may_return(sequence);
  CHECK(drafts_until(decoder, sequence, 30).empty());
  CHECK(decoder.num_run_again() == 0);
  check_tokens(sequence);
}

TEST_CASE("Medusa heads come back at once" * doctest::skip(no_host())) {
  Decoder decoder(micro_medusa_config());
  Sequence& sequence = decoder.add(request_of(tokens_from(0, 50), 30), false);
  decoder.step_until(sequence, 6);
  CHECK(decoder.drafts().catch_up()->num_missed(sequence) == 0);
  decoder.may_return(sequence);
  REQUIRE(decoder.step());
  int drafted = 0;
  while (sequence.num_output() < 20) {
    REQUIRE(decoder.step());
    drafted += sequence.tree.num_draft_tokens() > 0 ? 1 : 0;
  }
  CHECK(drafted > 4);
  CHECK(decoder.num_run_again() == 0);
  decoder.step_until(sequence, 30);
  check_tokens(sequence);
}

TEST_CASE("heads come back to two sequences in the same passes" * doctest::skip(no_host())) {
  Config config = micro_eagle_config();
  config.scheduler.max_num_batched_tokens = 64;
  config.scheduler.max_num_seqs = 4;
  Decoder decoder(config);
  Sequence& first = decoder.add(request_of(tokens_from(0, 30), 100), false);
  Sequence& second = decoder.add(request_of(tokens_from(70, 45), 100), false);
  decoder.step_until(second, 20);
  decoder.may_return(first);
  decoder.may_return(second);
  std::vector<Draft> of_first;
  std::vector<Draft> of_second;
  while (second.num_output() < 40) {
    REQUIRE(decoder.step());
    if (const auto draft = decoder.draft_of(first)) of_first.push_back(*draft);
    if (const auto draft = decoder.draft_of(second)) of_second.push_back(*draft);
  }
  CHECK(of_first.size() > 4);
  CHECK(of_second.size() > 4);
  check_drafts(config, first, of_first);
  check_drafts(config, second, of_second);
}

TEST_CASE("heads come back to sequences that share blocks" * doctest::skip(no_host())) {
  const Config config = micro_eagle_config();
  for (const bool filled : {false, true}) {
    CAPTURE(filled);  // the head has been over the blocks that both share
    Decoder decoder(config);
    const std::vector<TokenId> shared = tokens_from(0, 48);
    const auto with_tail = [&](int tail) {
      std::vector<TokenId> tokens = shared;
      for (int t = 0; t < 5; ++t) tokens.push_back((tail + 7 * t) % 250);
      return tokens;
    };
    Sequence& first = decoder.add(request_of(with_tail(100), filled ? 8 : 120), filled);
    decoder.step_until(first, filled ? 8 : 1);
    Sequence& second = decoder.add(request_of(with_tail(50), 120), false);
    decoder.step_until(second, 1);
    Sequence& third = decoder.add(request_of(with_tail(20), 120), false);
    decoder.step_until(third, 15);
    CHECK(second.kv.block_table()[2] == third.kv.block_table()[2]);
    CHECK(third.kv.length(KvPool::draft) == (filled ? 48 : 0));
    decoder.may_return(second);
    decoder.may_return(third);
    REQUIRE(decoder.step());
    // One fills what both share; the other waits for a step and finds it filled.
    CHECK(second.uses_features);
    CHECK(third.uses_features == filled);
    std::vector<Draft> of_second;
    std::vector<Draft> of_third;
    while (third.num_output() < 60 && !second.output.finished()) {
      REQUIRE(decoder.step());
      if (const auto draft = decoder.draft_of(second)) of_second.push_back(*draft);
      if (const auto draft = decoder.draft_of(third)) of_third.push_back(*draft);
    }
    CHECK(decoder.num_run_again() < (filled ? 60 : 110));
    CHECK(of_second.size() > 5);
    CHECK(of_third.size() > 5);
    check_drafts(config, second, of_second);
    check_drafts(config, third, of_third);
    while (decoder.step()) {
    }
    check_tokens(second);
    check_tokens(third);
  }
}

TEST_CASE("a head comes back after a preemption" * doctest::skip(no_host())) {
  Config config = micro_eagle_config();
  config.kv_cache.memory_mb = 1;
  Decoder decoder(config);
  Sequence& older = decoder.add(request_of(tokens_from(0, 420), 85), false);
  Sequence& younger = decoder.add(request_of(tokens_from(90, 280), 170));
  decoder.step_until(younger, 10);
  Decoder::leave(younger);
  while (!younger.was_preempted) REQUIRE(decoder.step());
  decoder.step_until(younger, younger.num_output() + 3);
  CHECK(older.output.finished());
  decoder.may_return(younger);
  const std::vector<Draft> drafts = drafts_until(decoder, younger, younger.num_output() + 15);
  CHECK(decoder.num_run_again() > 0);
  CHECK(drafts.size() > 3);
  check_drafts(config, younger, drafts);
  while (decoder.step()) {
  }
  check_tokens(younger);
  check_tokens(older);
}

TEST_CASE("what a returned head has made of a prefix serves the next request" *
          doctest::skip(no_host())) {
  const Config config = micro_eagle_config();
  Decoder decoder(config);
  Sequence& first = decoder.add(request_of(tokens_from(0, 45), 80), false);
  decoder.step_until(first, 30);
  decoder.may_return(first);
  decoder.step_until(first, 80);
  CHECK(first.output.finished());
  CHECK(decoder.num_run_again() > 0);
  const std::int64_t before = decoder.num_run_again();
  std::vector<TokenId> longer = first.tokens;
  longer.push_back(9);
  Sequence& second = decoder.add(request_of(longer, 60));
  const std::vector<Draft> drafts = drafts_until(decoder, second, 40);
  CHECK(second.stats.num_cached_tokens > 110);
  CHECK(decoder.num_run_again() == before);
  CHECK(drafts.size() > 5);
  check_drafts(config, second, drafts);
}

TEST_CASE("a head drafts the same after its costs were measured" * doctest::skip(no_host())) {
  const Config config = micro_eagle_config();
  Decoder decoder(config);
  decoder.measure_costs();
  // Requests that begin in the blocks that were used for it, the first one among them.
  for (int request = 0; request < 4; ++request) {
    Sequence& sequence = decoder.add(request_of(tokens_from(7 * request, 37), 30));
    const std::vector<Draft> drafts = drafts_until(decoder, sequence, 30);
    CHECK(drafts.size() > 2);
    check_drafts(config, sequence, drafts);
  }
}

TEST_CASE("a head that comes back leaves the target's KV as it was, and begins at the last token" *
          doctest::skip(no_host())) {
  Config config = micro_eagle_config();
  config.scheduler.max_num_batched_tokens = 32;
  config.scheduler.max_num_seqs = 4;
  Decoder decoder(config);
  Sequence& sequence = decoder.add(request_of(tokens_from(0, 45), 80), false);
  decoder.step_until(sequence, 40);
  DraftCatchUp& catch_up = *decoder.drafts().catch_up();
  const KvPoolStorage& pool = decoder.target().pool();
  const auto contents = [&] {
    std::vector<std::byte> bytes;
    for (int layer = 0; layer < pool.num_layers(); ++layer) {
      const kernels::KvLayer& kv = pool.layer(layer);
      REQUIRE(kv.type == kernels::DataType::f32);
      const std::size_t size = static_cast<std::size_t>(pool.capacity()) * sizeof(float) *
                               static_cast<std::size_t>(kv.num_kv_heads * kv.head_dim);
      for (const void* part : {kv.keys, kv.values}) {
        const auto* const from = static_cast<const std::byte*>(part);
        bytes.insert(bytes.end(), from, from + size);
      }
    }
    return bytes;
  };
  sequence.reservation = decoder.cache().reserve(sequence.kv, 1);
  REQUIRE(sequence.reservation.claim_draft());
  sequence.draft_length = sequence.kv.length(KvPool::draft);
  CHECK(catch_up.has_lost(sequence));
  CHECK(catch_up.num_missed(sequence) == 84);
  const std::vector<std::byte> before = contents();
  Sequence* const one = &sequence;

  SUBCASE("all of it") {
    catch_up.bring_back({&one, 1});
    CHECK(contents() == before);
    CHECK_FALSE(catch_up.has_lost(sequence));
    CHECK(catch_up.num_run_again() == 84);
    CHECK(sequence.features.begin() == 84);
    CHECK(sequence.features.end() == 85);
    CHECK(sequence.draft_length == 84);
  }
  SUBCASE("the store of features is full") {
    Sequence other;
    const std::vector<std::int32_t> rows(32);
    // 32 + 4 * 32 rows are there.
    for (int entry = 1; entry < 4 * 32; entry += 32)
      decoder.drafts().eagle()->keep(other, entry, rows);
    const std::vector<std::int32_t> rest(10);
    decoder.drafts().eagle()->keep(other, other.features.end(), rest);
    catch_up.bring_back({&one, 1});
    CHECK(contents() == before);
    CHECK(catch_up.has_lost(sequence));
    CHECK(sequence.features.size() == 0);
    other.features.clear();
  }
  sequence.features.clear();
  sequence.uses_features = false;
  sequence.reservation = KvReservation();
}

namespace {

/// A folder for one file of costs.
struct CostFile {
  std::filesystem::path path =
      std::filesystem::temp_directory_path() / ("specdec-return-" + std::to_string(::getpid()));
  ~CostFile() {
    std::error_code ignored;
    std::filesystem::remove(path, ignored);
  }

  /// The configuration, adaptive and with these costs.
  Config adaptive(Config config, const MeasuredCosts& costs) const {
    config.draft.length.mode = "adaptive";
    config.draft.length.cost_cache = path.string();
    const auto backend = make_backend(config.backend);
    CostCache(config.draft.length.cost_cache)
        .store(cost_key(config, backend->name(), backend->host_executor().num_threads()), costs);
    return config;
  }
};

}  // namespace

TEST_CASE("requests of a burst get a head when it is over and they have enough left" *
          doctest::skip(no_host())) {
  std::vector<Request> requests;
  for (int i = 0; i < 8; ++i) {
    // The last goes on for long; the one before is then nearly done.
    requests.push_back(request_of(tokens_from(11 * i, 30), i == 7 ? 120 : i == 6 ? 22 : 20));
    requests.back().cache_salt = std::to_string(i);
    requests.back().sampling.seed = static_cast<std::uint64_t>(i);
  }
  Config plain = micro_eagle_config();
  plain.draft.method = "none";
  Engine reference = Engine::load(plain);
  const std::vector<RunResult> expected = run_requests(reference, requests, 8);
  // Three rows beside the first cost nothing, each one after them what a token does.
  const MeasuredCosts costs = {.verify = {{1, 1.0}, {4, 1.0}, {64, 61.0}},
                               .draft = {{1, 0.01}, {64, 0.02}},
                               .returns = {{1, 0.04}, {64, 2.56}}};
  const CostFile file;
  for (Config config : {micro_eagle_config(), micro_medusa_config()})
    for (const bool mixed : {false, true}) {
      const bool eagle = config.draft.model == micro_models().eagle;
      if (mixed) config.draft.method = "suffix+" + config.draft.method;
      CAPTURE(config.draft.method);
      Engine engine = Engine::load(file.adaptive(config, costs));
      const std::vector<RunResult> actual = run_requests(engine, requests, 8);
      check_equal(expected, actual);
      const std::int64_t returned = engine.stats().num_returned_tokens;
      CHECK(actual[7].stats.speculation.spec_decode_num_drafts > 5);
      CHECK(actual[7].stats.speculation.spec_decode_num_accepted_tokens > 0);
      for (std::size_t i = 0; i < 7 && eagle && !mixed; ++i)
        CHECK(actual[i].stats.speculation.spec_decode_num_drafts == 0);
      // An EAGLE head, once: over the prompt and what was emitted without it. Medusa heads begin
      // with the next hidden state.
      if (eagle && !mixed) CHECK(returned >= 30 + 19);
      CHECK(returned < (eagle ? 30 + 40 : 1));
    }
}
