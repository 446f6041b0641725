#include "engine/engine_impl.h"

#include <algorithm>
#include <string>

#include "engine/draft_source.h"
#include "engine/log.h"
#include "engine/model_memory.h"
#include "engine/step_graphs.h"
#include "specdec/error.h"

namespace specdec {

Engine::Impl::Impl(const Config& engine_config)
    : config(engine_config),
      queue(engine_config.scheduler.max_queue),
      grammars(static_cast<std::size_t>(std::max(0, engine_config.grammar.cache_mb)) << 20,
               static_cast<std::size_t>(std::max(1, engine_config.grammar.cache_entries))) {
  config.validate();
  set_log_level(config.log.level);
  backend = make_backend(config.backend);

  const std::unique_ptr<ModelSource> source = open_model(config.target.model);
  tokenizer = source->load_tokenizer();
  if (tokenizer->vocab_size() > source->config().vocab_size)
    throw Error(ErrorCode::invalid_model,
                config.target.model + ": the tokenizer has " +
                    std::to_string(tokenizer->vocab_size()) + " tokens, the embedding " +
                    std::to_string(source->config().vocab_size) + " rows");
  DraftSource draft = open_draft(config, source->config(), *tokenizer);
  const CacheShape shape = shape_cache(config, source->config(), draft.config());
  max_context = shape.max_context;
  cache = std::make_unique<KvCacheManager>(cache_options(config, shape));
  target = make_transformer(*backend, *source, config, shape.num_blocks);
  drafts = std::make_unique<DraftStage>(config, *backend, source->config().vocab_size, max_context);
  draft.install(*drafts, {.backend = *backend,
                          .target_source = *source,
                          .target = *target,
                          .tokenizer = *tokenizer,
                          .config = config,
                          .shape = shape});
#ifdef SPECDEC_HAS_CUDA
  add_step_graphs(config, *backend, *target, *drafts, max_context);
#endif
  if (config.draft.length.mode == "adaptive") find_costs(shape.num_blocks);
  scheduler = std::make_unique<Scheduler>(
      config.scheduler, *cache,
      [this](const Sequence& sequence, int batch_size, int max_rows) {
        return drafts->limits(sequence, batch_size, max_rows);
      },
      [this](Sequence& sequence, int batch_size) { drafts->admit(sequence, batch_size); });
  const StepParts parts{.config = config,
                        .backend = *backend,
                        .target = *target,
                        .drafts = *drafts,
                        .cache = *cache,
                        .tokenizer = *tokenizer,
                        .max_context = max_context};
  stepper = std::make_unique<Step>(parts);
#ifdef SPECDEC_HAS_CUDA
  device_steps = make_device_steps(parts, [this] { return queue.has_news(); });
#endif
  stats.kv_blocks_total = stats.kv_blocks_free = shape.num_blocks;
  queue.publish({}, stats);
  log_info("{}: {} layers, hidden {}, vocabulary {}; {} on {} threads; {} KV blocks, context {}",
           config.target.model, target->config().num_layers, target->config().hidden_size,
           target->config().vocab_size, backend->name(), backend->host_executor().num_threads(),
           shape.num_blocks, max_context);
}

void Engine::Impl::find_costs(int num_blocks) {
  const std::string key = cost_key(config, backend->name(), backend->host_executor().num_threads());
  MeasuredCosts costs = CostCache(config.draft.length.cost_cache).find_or_measure(key, [&] {
    return drafts->measure_costs(*target, num_blocks);
  });
  drafts->set_costs(costs);
  stats.verify_costs = std::move(costs.verify);
  stats.draft_costs = std::move(costs.draft);
}

RequestId Engine::Impl::submit(Request request) {
  const int sources = (request.prompt.empty() ? 0 : 1) + (request.messages.empty() ? 0 : 1) +
                      (request.prompt_tokens.empty() ? 0 : 1);
  if (sources != 1)
    throw Error(ErrorCode::invalid_argument,
                sources == 0 ? "the request is empty: set prompt, messages or prompt_tokens"
                             : "set only one of prompt, messages and prompt_tokens");
  const int vocab_size = target->config().vocab_size;
  validate(request.sampling, vocab_size);

  auto sequence = std::make_unique<Sequence>();
  sequence->submitted = Clock::now();
  if (!request.messages.empty())
    sequence->tokens =
        tokenizer->encode(tokenizer->apply_chat_template(request.messages, true), true);
  else if (!request.prompt.empty())
    sequence->tokens = tokenizer->encode(request.prompt, true);
  else
    sequence->tokens = std::move(request.prompt_tokens);
  for (const TokenId token : sequence->tokens)
    if (token < 0 || token >= vocab_size)
      throw Error(ErrorCode::invalid_argument, "prompt token " + std::to_string(token) +
                                                   " is outside the vocabulary [0, " +
                                                   std::to_string(vocab_size) + ")");
  if (sequence->size() >= max_context)
    throw Error(ErrorCode::invalid_argument,
                "the prompt has " + std::to_string(sequence->size()) +
                    " tokens, and prompt and output together may have " +
                    std::to_string(max_context) +
                    ": shorten it, or raise kv_cache.memory_mb if the model can hold more");

  sequence->draft_method = request.speculation.method.value_or(config.draft.method);
  if (!request.speculation.enabled.value_or(true)) sequence->draft_method = "none";
  if (!drafts->knows(sequence->draft_method))
    throw Error(ErrorCode::invalid_argument, "no drafter is named \"" + sequence->draft_method +
                                                 "\": this engine has " + drafts->method_list());
  sequence->uses_features = drafts->uses_features(sequence->draft_method);
  sequence->prefix_hit = drafts->prefix_hit(sequence->draft_method);
  sequence->max_draft = request.speculation.num_speculative_tokens.value_or(
      config.draft.length.num_speculative_tokens);
  constexpr int kLongestDraft = 64;
  if (sequence->max_draft < 0 || sequence->max_draft > kLongestDraft)
    throw Error(ErrorCode::invalid_argument, "num_speculative_tokens must be 0 to 64, not " +
                                                 std::to_string(sequence->max_draft));

  sequence->num_prompt_tokens = sequence->size();
  sequence->penalties.add_prompt(sequence->tokens);
  sequence->stops = StopMatcher(request.sampling.stop);
  if (request.grammar) sequence->grammar.emplace(*request.grammar, grammar_vocabulary());
  sequence->seed = request.sampling.seed ? *request.sampling.seed : random_u64();
  sequence->end_tokens = request.sampling.stop_token_ids;
  if (!request.sampling.ignore_eos)
    sequence->end_tokens.insert(sequence->end_tokens.end(), tokenizer->eos_tokens().begin(),
                                tokenizer->eos_tokens().end());
  sequence->stats.num_prompt_tokens = sequence->size();
  sequence->request = std::move(request);
  return queue.push(std::move(sequence));
}

const GrammarVocabulary& Engine::Impl::grammar_vocabulary() {
  std::call_once(vocabulary_made, [this] {
    std::vector<std::string_view> bytes(static_cast<std::size_t>(target->config().vocab_size));
    for (TokenId token = 0; token < tokenizer->vocab_size(); ++token)
      bytes[static_cast<std::size_t>(token)] = tokenizer->token_bytes(token);
    vocabulary.emplace(bytes, tokenizer->eos_tokens());
  });
  return *vocabulary;
}

void Engine::Impl::finish(std::unique_ptr<Sequence> sequence, Output output) {
  RequestStats& request = sequence->stats;
  request.total_time = std::chrono::duration<double>(Clock::now() - sequence->submitted).count();
  if (request.num_output_tokens > 1)
    request.time_per_output_token = (request.total_time - request.time_to_first_token) /
                                    static_cast<double>(request.num_output_tokens - 1);
  ++stats.num_requests_finished;
  if (record_trees) finished_trees[sequence->id] = std::move(sequence->snapshot);
  drafts->finished(sequence->id);
  output.stats = request;
  outputs.push_back(std::move(output));
}

void Engine::Impl::cancel_requested() {
  for (const RequestId id : queue.take_cancelled()) {
    std::unique_ptr<Sequence> sequence = scheduler->remove(id);
    if (sequence == nullptr) continue;  // it finished on its own in the meantime
    Output output;
    output.id = id;
    output.seed = sequence->seed;
    output.finish_reason = FinishReason::cancelled;
    // What was held back for a stop string or an unfinished character is the caller's: nothing is
    // lost.
    std::string rest;
    sequence->text.flush(rest);
    if (!sequence->stops.feed(rest, output.text)) sequence->stops.flush(output.text);
    finish(std::move(sequence), std::move(output));
  }
}

bool Engine::Impl::step() {
  outputs.clear();
  finished_trees.clear();
  for (std::unique_ptr<Sequence>& sequence : queue.take_submitted())
    scheduler->add(std::move(sequence));
  cancel_requested();

  const bool had_work = scheduler->num_running() + scheduler->num_waiting() > 0;
  if (had_work && !device_fault) {
    const std::vector<Sequence*> batch = scheduler->plan();
    if (!batch.empty()) run_step(batch);
    for (Sequence* sequence : batch) {
      Output& output = sequence->output;
      if (output.tokens.empty() && !output.finished()) continue;
      if (sequence->stats.num_output_tokens == static_cast<int>(output.tokens.size()))
        sequence->stats.time_to_first_token =
            std::chrono::duration<double>(Clock::now() - sequence->submitted).count();
      if (record_trees) {
        TreeSnapshot& snapshot = sequence->snapshot;
        snapshot.tokens = sequence->tree.tokens;
        snapshot.parents.assign(sequence->tree.parents.begin(), sequence->tree.parents.end());
        snapshot.accepted_path.assign(sequence->path.nodes.begin(), sequence->path.nodes.end());
        const bool ends_in_path =
            !sequence->path.tokens.empty() && sequence->path.tokens.back().drafted;
        snapshot.bonus_token =
            sequence->path.tokens.empty() || ends_in_path ? -1 : sequence->path.tokens.back().token;
      }
      if (output.finished()) {
        Output last = std::move(output);
        finish(scheduler->remove(sequence->id), std::move(last));
      } else {
        output.stats = sequence->stats;
        outputs.push_back(std::move(output));
      }
    }
  }
  if (device_fault) fail_all();
  const bool produced = !outputs.empty();
  const KvCacheCounts counts = cache->counts();
  stats.num_running = scheduler->num_running();
  stats.num_waiting = scheduler->num_waiting();
  stats.num_preemptions = scheduler->num_preemptions();
  if (const DraftCatchUp* catch_up = drafts->catch_up())
    stats.num_returned_tokens = catch_up->num_run_again();
  stats.prefix_query_tokens = scheduler->prefix_query_tokens();
  stats.prefix_hit_tokens = scheduler->prefix_hit_tokens();
  stats.kv_blocks_free = counts.free;
  stats.kv_blocks_cached = counts.cached;
  stats.kv_blocks_held = counts.held;
  queue.publish(std::move(outputs), stats);
#ifndef NDEBUG
  check_invariants();
#endif
  return had_work || produced;
}

std::int64_t Engine::Impl::num_graph_passes() const {
  return target->num_graph_passes() + drafts->num_graph_passes();
}

void Engine::Impl::run_step(std::span<Sequence* const> batch) {
  const std::int64_t graph_passes = num_graph_passes();
  std::optional<Error> fault;
  try {
    if (!device_steps || record_trees || !device_steps->run(batch, stats))
      stepper->run(batch, stats);
  } catch (const Error& error) {
    fault = error;
  } catch (const std::bad_alloc&) {
    fault.emplace(ErrorCode::out_of_memory,
                  "memory ran out during a step: lower scheduler.max_num_seqs or "
                  "scheduler.max_num_batched_tokens");
  }
  ++stats.num_steps;
  stats.num_graph_passes += num_graph_passes() - graph_passes;
  if (!fault) return;
  // The step as a whole failed: its requests end, the slots roll back, the engine goes on.
  log_error("step failed: {}", fault->what());
  if (fault->code() == ErrorCode::device) device_fault = fault;
  for (Sequence* sequence : batch) {
    sequence->reservation = KvReservation();
    sequence->path = AcceptedPath{};
    sequence->output.tokens.clear();
    sequence->output.finish_reason = FinishReason::error;
    sequence->output.error = fault;
  }
}

void Engine::Impl::fail_all() {
  for (std::unique_ptr<Sequence>& sequence : scheduler->remove_all()) {
    Output output;
    output.id = sequence->id;
    output.seed = sequence->seed;
    output.finish_reason = FinishReason::error;
    output.error = device_fault;
    finish(std::move(sequence), std::move(output));
  }
}

void Engine::Impl::check_invariants() const {
  cache->check_invariants(scheduler->cache_sequences());
}

}  // namespace specdec
