#pragma once

#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <unordered_set>
#include <vector>

#include "engine/cache/kv_cache_manager.h"

namespace specdec::test {

struct SimulationOptions {
  std::uint64_t seed = 1;
  int num_blocks = 24;
  int block_size = 4;
  int max_sequences = 6;
  int num_tokens = 3;   // vocabulary: small, so that prefixes meet
  int max_length = 40;  // tokens of a sequence
  std::uint64_t hash_mask = ~std::uint64_t{0};
  bool prefix_cache = true;
  bool clear = true;                   // clear_prefix_index() now and then
  bool draft_always_complete = false;  // the draft keeps up with the target in every commit
};

/// Plays an engine on a KvCacheManager and keeps, independently of it, what stands in every slot of
/// both pools: a number that stands for all tokens up to a position, or garbage. After every
/// operation each committed slot of each sequence must hold the number that its tokens ask for, the
/// manager's invariants must hold, and its counts must be those of the tables. A prefix hit must
/// never be longer than what was published under the same salt.
class CacheSimulation {
 public:
  explicit CacheSimulation(const SimulationOptions& options);

  /// One random operation, then all checks; throws std::runtime_error naming the first failure.
  void run_operation();
  void check() const;

  void close_all() { active_.clear(); }
  const KvCacheManager& cache() const { return cache_; }

  std::int64_t num_hit_tokens = 0;
  std::int64_t num_draft_hit_tokens = 0;
  std::int64_t num_feature_hit_tokens = 0;  // of hits that the draft can go on from
  std::int64_t num_missed_tokens = 0;       // published under that salt at some time, yet not hit
  std::int64_t num_copies = 0;
  std::int64_t num_out_of_blocks = 0;
  std::int64_t num_rollbacks = 0;
  std::int64_t num_draft_refusals = 0;
  std::int64_t num_reused_blocks = 0;  // blocks that held committed KV and were handed out again

 private:
  using Content = std::uint64_t;

  struct Active {
    std::vector<TokenId> tokens;
    std::vector<Content> contents;  // [tokens.size()]: of tokens[0..i]
    std::string salt;
    KvSequence kv;
    KvReservation reservation;
    int num_known = 0;  // of the reserved positions, those whose tokens stand in `tokens`
    bool drafts = false;
    int draft_written = 0;  // draft positions with the right content, once the batch is written
  };

  int below(int n) { return static_cast<int>(random_() % static_cast<std::uint64_t>(n)); }
  bool chance(int percent) { return below(100) < percent; }
  void append(Active& sequence, TokenId token);
  Content& slot(const Active& sequence, KvPool pool, int position);
  const Content& slot(const Active& sequence, KvPool pool, int position) const;
  Content garbage() { return random_() | 1; }  // contents are even

  void open_sequence();
  void step();
  bool reserve(Active& sequence);
  void write(Active& sequence);
  void finish(Active& sequence);
  void publish(Active& sequence);

  SimulationOptions options_;
  std::mt19937_64 random_;
  KvCacheManager cache_;
  std::vector<Content> memory_;        // [block][pool][slot]
  std::vector<std::uint8_t> written_;  // [block] holds committed KV
  std::vector<std::vector<TokenId>> prompts_;
  std::map<std::string, std::unordered_set<Content>> published_;  // prefixes, by salt
  std::vector<Active> active_;
};

}  // namespace specdec::test
