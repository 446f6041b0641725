#include "engine/cache/kv_cache_manager.h"

#include <doctest/doctest.h>

#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/cache/siphash.h"
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

TEST_CASE("the last token of a prompt is always left to compute, in a copy of the shared block") {
  KvCacheManager cache = make(8);
  const std::vector<TokenId> tokens = iota(8);
  KvSequence first = written(cache, tokens);
  KvSequence second = cache.open(tokens, "");
  CHECK(second.length(KvPool::target) == 7);
  CHECK(second.block_table()[1] == first.block_table()[1]);
  CHECK(cache.blocks_needed(second, 1) == 1);  // the copy
  const BlockId shared = first.block_table()[1];
  {
    KvReservation dropped = cache.reserve(second, 1);
    REQUIRE(dropped.copies().size() == 1);
    CHECK(dropped.copies()[0].source == shared);
    CHECK(dropped.copies()[0].destination == second.block_table()[1]);
    check(cache, {&first, &second});
  }
  CHECK(second.block_table()[1] == shared);  // rolled back
  check(cache, {&first, &second});
  KvReservation reservation = cache.reserve(second, 3);
  reservation.commit(10, 7);
  CHECK(second.block_table()[1] != shared);
  CHECK(second.block_table().size() == 3);
  CHECK(counts_are(cache, 4, 0, 4));
  check(cache, {&first, &second});
}

TEST_CASE("the source of a pending copy cannot be evicted") {
  KvCacheManager cache = make(5);
  { KvSequence first = written(cache, iota(8)); }
  KvSequence second = cache.open(iota(8), "");
  KvReservation copying = cache.reserve(second, 1);
  REQUIRE(copying.copies().size() == 1);
  CHECK(counts_are(cache, 2, 0, 3));  // the source is still this sequence's
  KvSequence third = cache.open(iota(8, 100), "");
  CHECK_FALSE(cache.reserve(third, 9).valid());
  KvReservation other = cache.reserve(third, 8);
  REQUIRE(other.valid());
  for (BlockId block : third.block_table()) CHECK(block != copying.copies()[0].source);
  check(cache, {&second, &third});
  copying.commit(8, 8);
  CHECK(counts_are(cache, 0, 1, 4));
  check(cache, {&second, &third});
}

TEST_CASE("a prefix that ends inside a block is shared up to that token") {
  KvCacheManager cache = make(8);
  { KvSequence first = written(cache, iota(8)); }
  std::vector<TokenId> fork = iota(12);
  fork[6] = 77;
  const KvSequence second = cache.open(fork, "");
  CHECK(second.length(KvPool::target) == 6);
  CHECK(second.length(KvPool::draft) == 6);
  fork[2] = 77;
  CHECK(cache.open(fork, "").length(KvPool::target) == 2);
  fork[0] = 77;
  CHECK(cache.open(fork, "").length(KvPool::target) == 0);
}

TEST_CASE("a salt keeps prefixes apart") {
  KvCacheManager cache = make(16);
  const std::vector<TokenId> tokens = iota(9);
  { KvSequence first = written(cache, tokens, "alice"); }
  CHECK(cache.open(tokens, "bob").length(KvPool::target) == 0);
  CHECK(cache.open(tokens, "").length(KvPool::target) == 0);
  CHECK(cache.open(tokens, "alice").length(KvPool::target) == 8);
  { KvSequence second = written(cache, tokens, "bob"); }
  CHECK(counts_are(cache, 12, 4, 0));
  cache.clear_prefix_index();
  CHECK(counts_are(cache, 16, 0, 0));
  CHECK(cache.open(tokens, "alice").length(KvPool::target) == 0);
  check(cache, {});
}

TEST_CASE("blocks go back after a commit that keeps fewer than were reserved") {
  KvCacheManager cache = make(8);
  KvSequence sequence = cache.open(iota(3), "");
  KvReservation reservation = cache.reserve(sequence, 17);
  CHECK(counts_are(cache, 3, 0, 5));
  reservation.commit(4, 2);
  CHECK(counts_are(cache, 7, 0, 1));
  // The draft may hold a position more than the target.
  KvReservation next = cache.reserve(sequence, 8);
  next.commit(4, 5);
  CHECK(sequence.block_table().size() == 2);
  check(cache, {&sequence});
}

TEST_CASE(
    "eviction takes the least recently used first, the end of a prefix before its beginning") {
  KvCacheManager cache = make(6);
  { KvSequence a = written(cache, iota(12)); }      // 3 blocks
  { KvSequence b = written(cache, iota(8, 100)); }  // 2 blocks
  { KvSequence again = cache.open(iota(12), ""); }  // a is the recent one now, but for its last
  CHECK(counts_are(cache, 1, 5, 0));
  KvSequence c = cache.open(iota(16, 200), "");
  cache.reserve(c, 8).commit(8, 0);
  // One free block, and the end of the one used longest ago: b.
  CHECK(cache.open(iota(9, 100), "").length(KvPool::target) == 4);
  CHECK(cache.open(iota(13), "").length(KvPool::target) == 12);
  cache.reserve(c, 8).commit(16, 0);
  CHECK(cache.open(iota(9, 100), "").length(KvPool::target) == 0);
  CHECK(cache.open(iota(13), "").length(KvPool::target) == 8);
  check(cache, {&c});
}

TEST_CASE("when blocks run out nothing changes") {
  KvCacheManager cache = make(3);
  KvSequence a = cache.open(iota(8), "");
  cache.reserve(a, 8).commit(8, 8);
  KvSequence b = cache.open(iota(8, 50), "");
  CHECK(cache.available() == 1);
  CHECK(cache.blocks_needed(b, 8) == 2);
  CHECK_FALSE(cache.reserve(b, 8).valid());
  CHECK(b.block_table().empty());
  check(cache, {&a, &b});
  a = KvSequence();
  CHECK(cache.reserve(b, 8).valid());
  check(cache, {&b});
}

TEST_CASE("a lone sequence as large as the cache runs on its own cached prefix") {
  KvCacheManager cache = make(2);
  { KvSequence first = written(cache, iota(8)); }
  KvSequence second = cache.open(iota(8), "");
  CHECK(second.length(KvPool::target) == 7);
  // There is no block for a copy: the index lets go of the block instead.
  CHECK(cache.blocks_needed(second, 1) == 0);
  KvReservation reservation = cache.reserve(second, 1);
  REQUIRE(reservation.valid());
  CHECK(reservation.copies().empty());
  reservation.commit(8, 8);
  check(cache, {&second});
  CHECK_FALSE(cache.reserve(second, 1).valid());
}

TEST_CASE("equal prompts that were computed side by side end in the same blocks") {
  KvCacheManager cache = make(8);
  const std::vector<TokenId> tokens = iota(8);
  KvSequence a = cache.open(tokens, "");
  KvSequence b = cache.open(tokens, "");
  cache.reserve(a, 8).commit(8, 8);
  cache.reserve(b, 8).commit(8, 3);
  CHECK(counts_are(cache, 4, 0, 4));
  cache.publish(a, tokens);
  cache.publish(b, tokens);
  CHECK(b.block_table()[0] == a.block_table()[0]);
  CHECK(b.block_table()[1] == a.block_table()[1]);
  CHECK(b.length(KvPool::draft) == 8);  // and b gains what a's draft has written
  CHECK(counts_are(cache, 6, 0, 2));
  check(cache, {&a, &b});
}

TEST_CASE("publishing never costs a sequence its draft KV") {
  KvCacheManager cache = make(8);
  const std::vector<TokenId> tokens = iota(8);
  std::optional<KvSequence> plain(written(cache, tokens, "", false));
  KvSequence drafted;
  {
    // Opened before anything was published.
    KvCacheManager& same = cache;
    drafted = same.open(iota(1), "");
    same.reserve(drafted, 8).commit(8, 8);
  }
  cache.publish(drafted, tokens);
  CHECK(drafted.length(KvPool::draft) == 8);
  CHECK(drafted.block_table()[0] != plain->block_table()[0]);  // it waits
  check(cache, {&*plain, &drafted});
  plain.reset();
  cache.publish(drafted, tokens);  // nobody needs the other blocks any more
  CHECK(counts_are(cache, 6, 0, 2));
  check(cache, {&drafted});
  drafted = KvSequence();
  CHECK(cache.open(iota(9), "").length(KvPool::draft) == 8);
}

TEST_CASE("a missing draft slice is filled once, by any owner, for all") {
  KvCacheManager cache = make(8);
  const std::vector<TokenId> tokens = iota(9);
  { KvSequence plain = written(cache, tokens, "", false); }
  KvSequence a = cache.open(tokens, "");
  KvSequence b = cache.open(tokens, "");
  CHECK(a.length(KvPool::target) == 8);
  CHECK(a.length(KvPool::draft) == 0);
  KvReservation ra = cache.reserve(a, 1);
  KvReservation rb = cache.reserve(b, 1);
  CHECK(ra.claim_draft());
  CHECK(ra.claim_draft());
  CHECK_FALSE(rb.claim_draft());  // a is at it
  ra.commit(9, 9);
  CHECK(rb.claim_draft());
  CHECK(b.length(KvPool::draft) == 8);
  rb.commit(9, 9);
  CHECK(cache.open(tokens, "").length(KvPool::draft) == 8);
  check(cache, {&a, &b});
}

TEST_CASE("a claim ends with its reservation") {
  KvCacheManager cache = make(8);
  const std::vector<TokenId> tokens = iota(9);
  { KvSequence plain = written(cache, tokens, "", false); }
  KvSequence a = cache.open(tokens, "");
  KvSequence b = cache.open(tokens, "");
  KvReservation rb = cache.reserve(b, 1);
  {
    KvReservation ra = cache.reserve(a, 1);
    CHECK(ra.claim_draft());
    KvReservation moved = std::move(ra);
    CHECK_FALSE(rb.claim_draft());
  }
  CHECK(rb.claim_draft());
}

TEST_CASE("the tail of a finished sequence is found and gone on with in place") {
  KvCacheManager cache = make(8);
  const std::vector<TokenId> tokens = iota(20);
  BlockId tail = -1;
  {
    const std::vector<TokenId> begun = iota(6);
    KvSequence first = cache.open(begun, "");
    cache.reserve(first, 6).commit(6, 6);
    cache.publish_all(first, begun);
    tail = first.block_table()[1];
  }
  CHECK(counts_are(cache, 6, 2, 0));
  KvSequence second = cache.open(iota(9), "");
  CHECK(second.length(KvPool::target) == 6);
  CHECK(second.length(KvPool::draft) == 6);
  KvReservation reservation = cache.reserve(second, 3);
  CHECK(reservation.copies().empty());
  CHECK(second.block_table()[1] == tail);
  KvSequence third = cache.open(iota(10), "");  // meanwhile: the same tail
  CHECK(third.length(KvPool::target) == 6);
  reservation.commit(9, 9);
  cache.publish(second, tokens);
  check(cache, {&second, &third});
  CHECK(cache.open(tokens, "").length(KvPool::target) == 8);
  KvReservation copying = cache.reserve(third, 1);
  CHECK(copying.copies().size() == 1);  // the tail has become a full block that others read
  copying.commit(7, 6);
  check(cache, {&second, &third});
}

TEST_CASE("sequences and reservations may be moved and dropped in any order") {
  KvCacheManager cache = make(8);
  { KvSequence first = written(cache, iota(8)); }
  std::vector<KvSequence> sequences;
  std::vector<KvReservation> reservations;
  for (int i = 0; i < 3; ++i) {
    sequences.push_back(cache.open(iota(8), ""));
    reservations.push_back(cache.reserve(sequences.back(), 2));
  }
  KvSequence taken = std::move(sequences[1]);
  sequences.erase(sequences.begin() + 1);
  check(cache, {&sequences[0], &sequences[1], &taken});
  reservations[1].commit(8, 7);
  CHECK(taken.length(KvPool::target) == 8);
  taken = std::move(sequences[0]);  // gives up its own blocks
  check(cache, {&taken, &sequences[1]});
  sequences.pop_back();
  CHECK_FALSE(reservations[2].valid());
  CHECK(reservations[0].valid());
  sequences.clear();
  reservations.clear();
  taken = KvSequence();
  CHECK(counts_are(cache, 6, 2, 0));
  check(cache, {});
}

TEST_CASE("misuse is an internal error") {
  const auto code_of = [](auto&& call) {
    try {
      call();
    } catch (const Error& error) {
      return error.code();
    }
    return ErrorCode::io;
  };
  CHECK(code_of([] { make(0); }) == ErrorCode::invalid_argument);
  CHECK(code_of([] { make(4, 0); }) == ErrorCode::invalid_argument);
  KvCacheManager cache = make(4);
  KvSequence sequence = cache.open(iota(4), "");
  KvReservation reservation = cache.reserve(sequence, 4);
  CHECK(code_of([&] { cache.reserve(sequence, 1); }) == ErrorCode::internal);
  CHECK(code_of([&] { cache.publish(sequence, iota(4)); }) == ErrorCode::internal);
  CHECK(code_of([&] { reservation.commit(5, 0); }) == ErrorCode::internal);
  CHECK(code_of([&] { reservation.commit(4, 5); }) == ErrorCode::internal);
  CHECK(code_of([&] { reservation.commit(4, -1); }) == ErrorCode::internal);
  CHECK(reservation.valid());
  reservation.commit(4, 0);
  CHECK(code_of([&] { reservation.commit(4, 0); }) == ErrorCode::internal);
  CHECK(code_of([&] { cache.publish(sequence, iota(3)); }) == ErrorCode::internal);
  CHECK(code_of([&] { cache.reserve(sequence, 0); }) == ErrorCode::internal);
  KvSequence nobody;
  CHECK(code_of([&] { cache.reserve(nobody, 1); }) == ErrorCode::internal);
  check(cache, {&sequence});
}

TEST_CASE("SipHash-2-4 of its paper's test vector") {
  // Appendix A: key 00..0f, message 00..0e.
  std::vector<std::byte> message;
  for (int i = 0; i < 15; ++i) message.push_back(static_cast<std::byte>(i));
  const SipHashKey key{0x0706050403020100u, 0x0f0e0d0c0b0a0908u};
  CHECK(siphash_2_4(key, message) == 0xa129ca6149be45e5u);
}

TEST_CASE("a hit for a draft that needs hidden states leaves the position before its next entry") {
  KvCacheManager cache({.num_blocks = 16, .block_size = 4});
  {
    KvSequence sequence = cache.open(iota(12), "");
    KvReservation reservation = cache.reserve(sequence, 11);
    reservation.commit(11, 8);
    cache.publish_all(sequence, iota(11));
  }
  CHECK(cache.open(iota(12), "").length(KvPool::target) == 11);
  KvSequence second = cache.open(iota(12), "", PrefixHit::with_features);
  CHECK(second.length(KvPool::draft) == 8);
  CHECK(second.length(KvPool::target) == 7);
  CHECK(second.block_table().size() == 2);
  // The second block is shared and about to be written again: it is copied.
  KvReservation reservation = cache.reserve(second, 5);
  REQUIRE(reservation.valid());
  CHECK(reservation.copies().size() == 1);
  reservation.commit(12, 12);
  cache.publish(second, iota(12));
  const KvSequence* const open[] = {&second};
  cache.check_invariants(open);
  CHECK(cache.open(iota(3, 90), "", PrefixHit::with_features).length(KvPool::draft) == 0);
}
