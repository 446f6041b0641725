#include "engine/translated_drafter.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "sampling/mutation.h"

namespace specdec {

/// A request's draft in progress.
struct TranslatedDrafter::Growth {
  Request* request = nullptr;
  KvReservation reservation;
  int max_depth = 0;
  int num_written = 0;                  // positions with KV in place
  std::vector<TokenId> to_run;          // tokens from num_written on that the next pass runs
  std::string text = {};                // what the draft wrote
  std::vector<float> confidences = {};  // [text] of the token that a byte belongs to
  bool ended = false;
};

TranslatedDrafter::TranslatedDrafter(Backend& backend, std::unique_ptr<Transformer> model,
                                     std::unique_ptr<Tokenizer> tokenizer, const Tokenizer& target,
                                     const KvCacheOptions& cache, int max_context,
                                     float min_confidence)
    : backend_(backend),
      model_(std::move(model)),
      tokenizer_(std::move(tokenizer)),
      target_(target),
      cache_(cache),
      max_context_(std::min(max_context, model_->config().max_position)),
      min_confidence_(min_confidence),
      sampler_(model_->config().vocab_size) {
  greedy_.temperature = 0;
}

void TranslatedDrafter::propose(std::span<const DraftContext> contexts,
                                std::span<DraftProposal> proposals) {
  ++calls_;
  std::vector<Growth> growths(contexts.size());
  std::vector<Growth*> alive;
  for (std::size_t i = 0; i < contexts.size(); ++i) {
    const auto [it, is_new] =
        requests_.try_emplace(contexts[i].id, Request{.text = TwinText(target_, *tokenizer_)});
    if (begin(contexts[i], it->second, growths[i])) alive.push_back(&growths[i]);
  }
  for (Growth* growth : alive)
    catch_up(*growth, std::max(1, model_->max_rows() / static_cast<int>(alive.size())));
  for (int depth = 0; !alive.empty(); ++depth) {
    run_pass(alive);
    std::erase_if(alive, [depth](const Growth* growth) {
      return growth->ended || depth + 1 == growth->max_depth;
    });
  }
  for (std::size_t i = 0; i < contexts.size(); ++i) {
    Growth& growth = growths[i];
    if (!growth.reservation.valid()) continue;
    proposals[i] = translate(growth, contexts[i]);
    KvSequence& kv = growth.request->kv;
    const std::span<const TokenId> settled = growth.request->text.settled();
    growth.reservation.commit(static_cast<int>(settled.size()), kv.length(KvPool::draft));
    cache_.publish(kv, settled);
  }
}

/// Reserves the slots of a draft; false where there is nothing to go on from, or no room.
bool TranslatedDrafter::begin(const DraftContext& context, Request& request, Growth& growth) {
  request.text.follow(context.tokens);
  request.last_used = calls_;
  const std::span<const TokenId> settled = request.text.settled();
  const std::span<const TokenId> open = request.text.open();
  const auto length = static_cast<int>(settled.size() + open.size());
  if (length == 0 || length + context.max_depth > max_context_) return false;
  if (!request.is_open) {
    // Of what is settled alone: the rest is spelled anew, its KV must not be taken for good.
    request.kv = cache_.open(settled.empty() ? open.first(1) : settled, context.cache_salt);
    request.is_open = true;
  }
  const int written = request.kv.length(KvPool::target);
  if (written == length) return false;
  if (!make_room(request, length - written + context.max_depth, growth.reservation)) return false;
  model_->pool().copy_blocks(backend_, growth.reservation.copies(), Stream{});
  growth.request = &request;
  growth.max_depth = context.max_depth;
  growth.num_written =
      mutant_active("translated_position_off") ? std::max(0, written - 1) : written;
  growth.to_run.assign(settled.begin() + written, settled.end());
  growth.to_run.insert(growth.to_run.end(), open.begin(), open.end());
  return true;
}

bool TranslatedDrafter::make_room(Request& request, int count, KvReservation& reservation) {
  for (;;) {
    reservation = cache_.reserve(request.kv, count);
    if (reservation.valid()) return true;
    Request* oldest = nullptr;
    for (auto& [id, other] : requests_)
      if (other.is_open && other.last_used < calls_ &&
          (oldest == nullptr || other.last_used < oldest->last_used))
        oldest = &other;
    if (oldest == nullptr) return false;
    oldest->kv = KvSequence();
    oldest->is_open = false;
  }
}

/// Leaves at most `most_rows` tokens for the next pass.
void TranslatedDrafter::catch_up(Growth& growth, int most_rows) {
  while (static_cast<int>(growth.to_run.size()) > most_rows) {
    const int count = std::min(model_->max_rows(), static_cast<int>(growth.to_run.size()) - 1);
    batch_.clear();
    batch_.begin_sequence(growth.num_written, growth.request->kv.block_table());
    for (int i = 0; i < count; ++i)
      batch_.add_row(growth.to_run[static_cast<std::size_t>(i)], growth.num_written + i, false);
    model_->forward(batch_, Stream{});
    growth.to_run.erase(growth.to_run.begin(), growth.to_run.begin() + count);
    growth.num_written += count;
  }
}

/// Runs what each draft has to run, and lets it choose its next token.
void TranslatedDrafter::run_pass(std::span<Growth*> growths) {
  batch_.clear();
  for (Growth* growth : growths) {
    batch_.begin_sequence(growth->num_written, growth->request->kv.block_table());
    for (std::size_t i = 0; i < growth->to_run.size(); ++i)
      batch_.add_row(growth->to_run[i], growth->num_written + static_cast<int>(i),
                     i + 1 == growth->to_run.size());
    growth->num_written += static_cast<int>(growth->to_run.size());
  }
  const std::span<const float> logits = model_->forward(batch_, Stream{});
  const auto vocab = static_cast<std::size_t>(model_->config().vocab_size);
  for (std::size_t i = 0; i < growths.size(); ++i)
    extend(*growths[i], logits.subspan(i * vocab, vocab));
}

void TranslatedDrafter::extend(Growth& growth, std::span<const float> logits) {
  const RowContext row{.options = &greedy_, .penalties = &no_penalties_};
  std::vector<DraftCandidate> best;
  sampler_.coupled_candidates(logits, row, 1, best);
  const float confidence = best.empty() ? 0 : std::exp(best.front().score);
  growth.ended = best.empty() || confidence < min_confidence_ ||
                 best.front().token >= tokenizer_->vocab_size() ||
                 tokenizer_->token_bytes(best.front().token).empty();
  if (growth.ended) return;  // also at the draft's own end of text
  growth.to_run.assign(1, best.front().token);
  growth.text += tokenizer_->token_bytes(best.front().token);
  growth.confidences.resize(growth.text.size(), confidence);
}

DraftProposal TranslatedDrafter::translate(const Growth& growth,
                                           const DraftContext& context) const {
  DraftProposal proposal;
  if (growth.text.empty()) return proposal;
  const int most = std::min(context.max_depth, context.max_nodes);
  std::size_t at = 0;
  for (const TokenId token : growth.request->text.continuation(growth.text)) {
    if (static_cast<int>(proposal.tokens().size()) == most) break;
    // As sure as the draft was of the least likely of its tokens in there.
    const std::size_t size = target_.token_bytes(token).size();
    float confidence = 1;
    for (std::size_t i = at; i < std::min(at + size, growth.confidences.size()); ++i)
      confidence = std::min(confidence, growth.confidences[i]);
    at += size;
    proposal.append(
        mutant_active("translated_by_number") ? tokenizer_->encode(growth.text).front() : token,
        confidence);
  }
  return proposal;
}

}  // namespace specdec
