#include "cache_simulation.h"

#include <algorithm>
#include <set>
#include <stdexcept>
#include <utility>

namespace specdec::test {
namespace {

void require(bool condition, const std::string& what) {
  if (!condition) throw std::runtime_error(what);
}

std::size_t index(int i) { return static_cast<std::size_t>(i); }

}  // namespace

CacheSimulation::CacheSimulation(const SimulationOptions& options)
    : options_(options),
      random_(options.seed),
      cache_({.num_blocks = options.num_blocks,
              .block_size = options.block_size,
              .prefix_cache = options.prefix_cache,
              .hash_key = options.seed,
              .hash_mask = options.hash_mask}),
      memory_(index(options.num_blocks * kNumKvPools * options.block_size)),
      written_(index(options.num_blocks), 0) {
  for (Content& content : memory_) content = garbage();
  for (int i = 0; i < 3; ++i) {
    std::vector<TokenId> prompt;
    for (int t = 0; t < options.max_length; ++t) prompt.push_back(below(options.num_tokens));
    prompts_.push_back(prompt);
  }
}

void CacheSimulation::append(Active& sequence, TokenId token) {
  Content content = sequence.contents.empty() ? 0x1234567 : sequence.contents.back();
  // The mixer of SplitMix64 (Steele, Lea, Flood 2014).
  content += static_cast<Content>(token + 1) * 0x9e3779b97f4a7c15u;
  content = (content ^ content >> 30) * 0xbf58476d1ce4e5b9u;
  content = (content ^ content >> 27) * 0x94d049bb133111ebu;
  sequence.tokens.push_back(token);
  sequence.contents.push_back((content ^ content >> 31) & ~Content{1});
}

CacheSimulation::Content& CacheSimulation::slot(const Active& sequence, KvPool pool, int position) {
  return const_cast<Content&>(std::as_const(*this).slot(sequence, pool, position));
}

const CacheSimulation::Content& CacheSimulation::slot(const Active& sequence, KvPool pool,
                                                      int position) const {
  const auto table = sequence.kv.block_table();
  const std::size_t i = index(position / options_.block_size);
  require(i < table.size(), "a position past the block table");
  return memory_[index((table[i] * kNumKvPools + static_cast<int>(pool)) * options_.block_size +
                       position % options_.block_size)];
}

void CacheSimulation::run_operation() {
  if (chance(30)) {
    std::erase_if(active_, [&](const Active& sequence) {
      return sequence.kv.length(KvPool::target) > options_.max_length;
    });
  }
  const int kind = below(100);
  if (kind < 22) {
    if (static_cast<int>(active_.size()) < options_.max_sequences) open_sequence();
  } else if (kind < 90) {
    step();
  } else if (kind < 99) {
    if (!active_.empty()) {
      const auto victim = active_.begin() + below(static_cast<int>(active_.size()));
      if (chance(70)) publish(*victim);
      active_.erase(victim);  // moves those behind it, some of them with reservations
    }
  } else if (kind == 99 && chance(20) && options_.clear) {
    cache_.clear_prefix_index();
  }
  check();
}

void CacheSimulation::open_sequence() {
  static const std::vector<std::string> kSalts = {"", "", "", "a", "b"};
  Active sequence;
  sequence.salt = kSalts[index(below(5))];
  const int length = 1 + below(options_.max_length - 8);
  const int shared = below(length + 1);
  const std::vector<TokenId>& prompt = prompts_[index(below(3))];
  for (int i = 0; i < length; ++i)
    append(sequence, i < shared ? prompt[index(i)] : below(options_.num_tokens));
  const bool with_features = chance(10);
  sequence.kv = cache_.open(sequence.tokens, sequence.salt,
                            with_features ? PrefixHit::with_features : PrefixHit::target);

  const int hit = sequence.kv.length(KvPool::target);
  if (with_features) {
    require(hit == std::max(0, sequence.kv.length(KvPool::draft) - 1),
            "a hit from which the draft cannot go on");
    num_feature_hit_tokens += hit;
  }
  const auto& known = published_[sequence.salt];
  int longest = 0;
  while (longest < length - 1 && known.contains(sequence.contents[index(longest)])) ++longest;
  require(hit <= length - 1, "a hit that leaves nothing to compute");
  require(hit <= longest, "a hit on what was never published under this salt");
  num_hit_tokens += hit;
  if (!with_features) num_missed_tokens += longest - hit;
  num_draft_hit_tokens += sequence.kv.length(KvPool::draft);
  active_.push_back(std::move(sequence));
}

/// One step of an engine: reservations for a part of the batch, copies, writes, outcomes; sometimes
/// a reservation stays open over several operations.
void CacheSimulation::step() {
  for (Active& sequence : active_)
    if (!sequence.reservation.valid() && chance(60)) reserve(sequence);
  if (chance(10)) return;  // as when a step is abandoned between planning and running
  std::vector<Active*> batch;
  for (Active& sequence : active_)
    if (sequence.reservation.valid()) batch.push_back(&sequence);
  std::shuffle(batch.begin(), batch.end(), random_);
  for (Active* sequence : batch) {
    for (const BlockCopy& copy : sequence->reservation.copies()) {
      const int size = kNumKvPools * options_.block_size;
      std::copy_n(memory_.begin() + copy.source * size, size,
                  memory_.begin() + copy.destination * size);
      ++num_copies;
    }
  }
  for (Active* sequence : batch) write(*sequence);
  for (Active* sequence : batch)
    if (chance(90)) finish(*sequence);
}

bool CacheSimulation::reserve(Active& sequence) {
  const int begin = sequence.kv.length(KvPool::target);
  const int pending = static_cast<int>(sequence.tokens.size()) - begin;
  if (begin > options_.max_length) return false;
  sequence.num_known = 1 + below(pending);
  const int count = sequence.num_known == pending ? pending + below(6) : sequence.num_known;
  const std::vector<BlockId> before(sequence.kv.block_table().begin(),
                                    sequence.kv.block_table().end());
  const int needed = cache_.blocks_needed(sequence.kv, count);
  const bool fits = needed <= cache_.available();
  sequence.reservation = cache_.reserve(sequence.kv, count);
  const auto table = sequence.kv.block_table();
  require(sequence.reservation.valid() == fits, "reserve() and blocks_needed() disagree");
  if (!fits) {
    ++num_out_of_blocks;
    require(std::equal(before.begin(), before.end(), table.begin(), table.end()),
            "a refused reservation changed the table");
    return false;
  }
  require(sequence.reservation.begin() == begin && sequence.reservation.count() == count,
          "a reservation for other positions");
  // Whoever gets a block may write all over it.
  for (std::size_t i = 0; i < table.size(); ++i) {
    if (i < before.size() && before[i] == table[i]) continue;
    num_reused_blocks += std::exchange(written_[index(table[i])], 0);
    for (int s = 0; s < kNumKvPools * options_.block_size; ++s)
      memory_[index(table[i] * kNumKvPools * options_.block_size + s)] = garbage();
  }
  sequence.drafts = options_.draft_always_complete || chance(70);
  if (sequence.drafts && !options_.draft_always_complete && !sequence.reservation.claim_draft()) {
    sequence.drafts = false;
    ++num_draft_refusals;
  }
  return true;
}

void CacheSimulation::write(Active& sequence) {
  const int begin = sequence.reservation.begin();
  const int end = begin + sequence.reservation.count();
  const int known = begin + sequence.num_known;
  const auto right = [&](int position) {
    return position < known ? sequence.contents[index(position)] : garbage();
  };
  for (int p = begin; p < end; ++p) slot(sequence, KvPool::target, p) = right(p);
  sequence.draft_written = sequence.kv.length(KvPool::draft);
  if (!sequence.drafts) return;
  // The draft catches up, perhaps not all the way; beyond that it tries out tokens of its own, but
  // only where nobody else looks: at uncommitted positions.
  const int from = sequence.draft_written;
  sequence.draft_written =
      options_.draft_always_complete ? known : from + below(std::max(1, known - from) + 1);
  sequence.draft_written = std::min(sequence.draft_written, known);
  for (int p = from; p < sequence.draft_written; ++p) slot(sequence, KvPool::draft, p) = right(p);
  for (int p = std::max(begin, sequence.draft_written); p < end; ++p)
    slot(sequence, KvPool::draft, p) = garbage();
}

void CacheSimulation::finish(Active& sequence) {
  const int begin = sequence.reservation.begin();
  const int end = begin + sequence.reservation.count();
  if (chance(15)) {
    sequence.reservation = KvReservation();
    require(sequence.kv.length(KvPool::target) == begin, "a rollback changed the length");
    ++num_rollbacks;
    return;
  }
  int target = begin + sequence.num_known;
  int draft = std::max(sequence.draft_written, sequence.kv.length(KvPool::draft));
  if (target == static_cast<int>(sequence.tokens.size())) {
    // Some of the drafted tokens are accepted and their KV moves into place; the bonus token has
    // none yet.
    for (int i = below(end - target + 1); i > 0; --i) {
      append(sequence, below(options_.num_tokens));
      slot(sequence, KvPool::target, target) = sequence.contents.back();
      if (sequence.drafts && draft == target && (options_.draft_always_complete || chance(80)))
        slot(sequence, KvPool::draft, draft++) = sequence.contents.back();
      ++target;
    }
    append(sequence, below(options_.num_tokens));
  }
  sequence.reservation.commit(target, draft);
  require(!sequence.reservation.valid(), "a committed reservation is still valid");
  require(sequence.kv.length(KvPool::target) == target, "the committed length is wrong");
  for (BlockId block : sequence.kv.block_table()) written_[index(block)] = 1;
  if (chance(80)) publish(sequence);
}

void CacheSimulation::publish(Active& sequence) {
  if (sequence.reservation.valid()) return;
  const int length = sequence.kv.length(KvPool::target);
  const bool all = chance(20);
  if (all)
    cache_.publish_all(sequence.kv, sequence.tokens);
  else
    cache_.publish(sequence.kv, sequence.tokens);
  const int size = all ? length : length / options_.block_size * options_.block_size;
  for (int i = 0; i < size; ++i) published_[sequence.salt].insert(sequence.contents[index(i)]);
}

void CacheSimulation::check() const {
  std::vector<const KvSequence*> sequences;
  std::set<BlockId> held;
  for (const Active& sequence : active_) {
    sequences.push_back(&sequence.kv);
    held.insert(sequence.kv.block_table().begin(), sequence.kv.block_table().end());
    for (const BlockCopy& copy : sequence.reservation.copies()) held.insert(copy.source);
    // A copy that is still to be made leaves the committed slots of its block without content.
    const bool uncopied = !sequence.reservation.copies().empty();
    const int copied = sequence.reservation.begin() / options_.block_size;
    for (const KvPool pool : {KvPool::target, KvPool::draft}) {
      for (int p = 0; p < sequence.kv.length(pool); ++p) {
        if (uncopied && p / options_.block_size == copied) continue;
        require(slot(sequence, pool, p) == sequence.contents[index(p)],
                "position " + std::to_string(p) + " of pool " +
                    std::to_string(static_cast<int>(pool)) + " holds something else");
      }
    }
  }
  const KvCacheCounts counts = cache_.counts();
  require(counts.free + counts.cached + counts.held == counts.total, "the counts do not add up");
  require(counts.held == static_cast<int>(held.size()), "held blocks are miscounted");
  require(cache_.available() == counts.free + counts.cached, "available blocks are miscounted");
  cache_.check_invariants(sequences);
}

}  // namespace specdec::test
