#include "engine/scheduler.h"

#include <algorithm>
#include <iterator>
#include <range/v3/range/conversion.hpp>
#include <range/v3/view/concat.hpp>
#include <range/v3/view/filter.hpp>
#include <range/v3/view/transform.hpp>
#include <utility>

namespace specdec {

Scheduler::Scheduler(const SchedulerConfig& config, KvCacheManager& cache, DraftPolicy draft_policy,
                     AdmissionPolicy admission)
    : config_(config),
      cache_(cache),
      draft_policy_(std::move(draft_policy)),
      admission_(std::move(admission)) {}

void Scheduler::add(std::unique_ptr<Sequence> sequence) { waiting_.push_back(std::move(sequence)); }

std::unique_ptr<Sequence> Scheduler::remove(RequestId id) {
  const auto take = [id](auto& from) -> std::unique_ptr<Sequence> {
    const auto it =
        std::find_if(from.begin(), from.end(), [id](const auto& s) { return s->id == id; });
    if (it == from.end()) return nullptr;
    std::unique_ptr<Sequence> found = std::move(*it);
    from.erase(it);
    return found;
  };
  std::unique_ptr<Sequence> found = take(running_);
  return found != nullptr ? std::move(found) : take(waiting_);
}

std::vector<std::unique_ptr<Sequence>> Scheduler::remove_all() {
  std::vector<std::unique_ptr<Sequence>> all = std::move(running_);
  running_.clear();
  std::move(waiting_.begin(), waiting_.end(), std::back_inserter(all));
  waiting_.clear();
  return all;
}

void Scheduler::admit() {
  while (!waiting_.empty() && num_running() < config_.max_num_seqs) {
    Sequence& sequence = *waiting_.front();
    admission_(sequence, std::min(config_.max_num_seqs, num_running() + num_waiting()));
    KvSequence kv = cache_.open(sequence.tokens, sequence.request.cache_salt, sequence.prefix_hit);
    // Room for all it has and one more block, so that admission does not preempt at once. Alone, it
    // may always try.
    const int missing = sequence.size() - kv.length(KvPool::target) + cache_.block_size();
    if (!running_.empty() && cache_.blocks_needed(kv, missing) > cache_.available()) return;
    sequence.kv = std::move(kv);
    if (!sequence.was_preempted) {
      sequence.stats.queue_time =
          std::chrono::duration<double>(Clock::now() - sequence.submitted).count();
      sequence.stats.num_cached_tokens = sequence.kv.length(KvPool::target);
      prefix_query_tokens_ += sequence.size();
      prefix_hit_tokens_ += sequence.stats.num_cached_tokens;
    }
    // A preempted sequence comes back to its place: `running_` stays in order of arrival.
    const auto place = std::find_if(running_.begin(), running_.end(),
                                    [&](const auto& other) { return other->id > sequence.id; });
    running_.insert(place, std::move(waiting_.front()));
    waiting_.pop_front();
  }
}

void Scheduler::preempt_youngest() {
  std::unique_ptr<Sequence> sequence = std::move(running_.back());
  running_.pop_back();
  sequence->kv = KvSequence();
  sequence->features.clear();
  sequence->was_preempted = true;
  ++sequence->stats.num_preemptions;
  ++num_preemptions_;
  waiting_.push_front(std::move(sequence));
}

bool Scheduler::reserve(Sequence& sequence, int count, int fallback_count) {
  for (;;) {
    sequence.reservation = cache_.reserve(sequence.kv, count);
    if (sequence.reservation.valid()) return true;
    if (count != fallback_count) {
      count = fallback_count;  // better to decode plainly than to throw somebody out
      continue;
    }
    if (running_.back().get() != &sequence) {
      preempt_youngest();
      continue;
    }
    preempt_youngest();
    return false;
  }
}

std::vector<Sequence*> Scheduler::plan() {
  admit();
  int decoding = 0;
  for (const auto& sequence : running_) decoding += sequence->pending() == 1 ? 1 : 0;
  // Every decoding sequence gets its row; prompts and drafts share what is left, the drafts evenly.
  const int rows_per_draft =
      decoding == 0 ? 0 : std::max(1, config_.max_num_batched_tokens / decoding);
  int budget = config_.max_num_batched_tokens - decoding;

  std::vector<Sequence*> planned;
  for (std::size_t i = 0; i < running_.size(); ++i) {
    Sequence& sequence = *running_[i];
    const int pending = sequence.pending();
    DraftLimits draft;
    int known = 1;
    if (pending == 1) {
      draft = draft_policy_(sequence, decoding, std::min(rows_per_draft, 1 + budget));
      budget -= draft.nodes;
    } else {
      known = std::min(pending, budget);
      if (known == 0) continue;
      budget -= known;
    }
    if (!reserve(sequence, known - 1 + draft.slots, known)) break;
    sequence.num_known = known;
    sequence.samples = known == pending;
    const bool drafts = sequence.reservation.count() >= known - 1 + draft.slots;
    sequence.draft_depth = drafts ? draft.depth : 0;
    sequence.draft_nodes = drafts ? draft.nodes : 0;
    planned.push_back(&sequence);
  }
  return planned;
}

std::vector<const KvSequence*> Scheduler::cache_sequences() const {
  return running_ | ranges::views::transform([](const auto& sequence) -> const KvSequence* {
           return &sequence->kv;
         }) |
         ranges::to<std::vector>();
}

const Sequence* Scheduler::find(RequestId id) const {
  const auto has_id = [id](const auto& sequence) { return sequence->id == id; };
  for (const auto& sequence :
       ranges::views::concat(running_, waiting_) | ranges::views::filter(has_id))
    return sequence.get();
  return nullptr;
}

}  // namespace specdec
