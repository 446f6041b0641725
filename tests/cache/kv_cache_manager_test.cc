#include "engine/cache/kv_cache_manager.h"

#include <doctest/doctest.h>

#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "specdec/error.h"

using namespace specdec;

namespace {

std::vector<TokenId> iota(int count, TokenId first = 0) {
  std::vector<TokenId> tokens(static_cast<std::size_t>(count));
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

KvCacheManager make(int num_blocks, int block_size = 4) {
  return KvCacheManager({.num_blocks = num_blocks, .block_size = block_size, .hash_key = 42});
}

/// Runs the whole of `tokens` through a sequence in both pools and publishes it.
KvSequence written(KvCacheManager& cache, const std::vector<TokenId>& tokens,
                   std::string_view salt = "", bool draft = true) {
  KvSequence sequence = cache.open(tokens, salt);
  const int length = sequence.length(KvPool::target);
  const int size = static_cast<int>(tokens.size());
  KvReservation reservation = cache.reserve(sequence, size - length);
  REQUIRE(reservation.valid());
  reservation.commit(size, draft ? size : sequence.length(KvPool::draft));
  cache.publish(sequence, tokens);
  return sequence;
}

void check(const KvCacheManager& cache, std::initializer_list<const KvSequence*> sequences) {
  CHECK_NOTHROW(cache.check_invariants(std::vector<const KvSequence*>(sequences)));
}

bool counts_are(const KvCacheManager& cache, int free, int cached, int held) {
  const KvCacheCounts counts = cache.counts();
  CAPTURE(counts.free);
  CAPTURE(counts.cached);
  CAPTURE(counts.held);
  CHECK(counts.free + counts.cached + counts.held == counts.total);
  return counts.free == free && counts.cached == cached && counts.held == held;
}

}  // namespace

TEST_CASE("a sequence takes blocks as it grows and gives them back") {
  KvCacheManager cache = make(4);
  {
    KvSequence sequence = cache.open(iota(6), "");
    CHECK(sequence.length(KvPool::target) == 0);
    CHECK(counts_are(cache, 4, 0, 0));
    CHECK(cache.blocks_needed(sequence, 6) == 2);
    KvReservation reservation = cache.reserve(sequence, 6);
    REQUIRE(reservation.valid());
    CHECK(reservation.begin() == 0);
    CHECK(reservation.count() == 6);
    CHECK(reservation.copies().empty());
    CHECK(counts_are(cache, 2, 0, 2));
    check(cache, {&sequence});
    reservation.commit(6, 5);
    CHECK_FALSE(reservation.valid());
    CHECK(sequence.length(KvPool::target) == 6);
    CHECK(sequence.length(KvPool::draft) == 5);
    check(cache, {&sequence});
  }
  CHECK(counts_are(cache, 4, 0, 0));
}

TEST_CASE("a prefix hit serves both pools") {
  KvCacheManager cache = make(8);
  const std::vector<TokenId> tokens = iota(10);
  { KvSequence first = written(cache, tokens); }
  CHECK(counts_are(cache, 6, 2, 0));
  KvSequence second = cache.open(tokens, "");
  CHECK(second.length(KvPool::target) == 8);
  CHECK(second.length(KvPool::draft) == 8);
  CHECK(counts_are(cache, 6, 0, 2));
  check(cache, {&second});
}
