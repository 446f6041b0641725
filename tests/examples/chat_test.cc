// The chat's conversation and what it knows of plain decoding, over a tiny random model.
#include <doctest/doctest.h>

#include "examples/speculative_chat/chat.h"
#include "tiny_engine.h"

using namespace specdec;
using namespace specdec::chat;

namespace {

/// Answers of `max_tokens` tokens, some of them drafted: greedy answers of such a model repeat.
Config loops(testing::TinyEngine& tiny, int max_tokens) {
  tiny.config().draft.method = "ngram";
  tiny.config().draft.ngram.prompt_lookup_min = 1;
  tiny.config().sampling.temperature = 0;
  tiny.config().sampling.ignore_eos = true;
  tiny.config().sampling.max_tokens = max_tokens;
  return tiny.config();
}

void nobody(const Output&) {}

}  // namespace

TEST_CASE("plain decoding is measured again where a drafted answer ends, once it was measured") {
  testing::TinyEngine tiny;
  const Config config = loops(tiny, 48);
  Engine engine = tiny.load();
  Chat chat(engine, config, "");
  REQUIRE(chat.ask("one", nobody).speculated());
  CHECK(chat.plain_rate().tokens_per_second == 0);

  chat.measure_plain_rate();
  CHECK(chat.plain_rate().how == "at the start");
  REQUIRE(chat.ask("two", nobody).speculated());
  CHECK(chat.plain_rate().how == "at this length");
  CHECK(chat.plain_rate().tokens_per_second > 0);
  CHECK(chat.messages().size() == 4);  // what measures is no part of the conversation
  CHECK(chat.last_answer()->tokens.size() == 48);

  chat.set_speculation("off");
  REQUIRE(!chat.ask("three", nobody).speculated());
  CHECK(chat.plain_rate().how == "in the last plain answer");
}

TEST_CASE("a full conversation leaves plain decoding as it was measured last") {
  testing::TinyEngine tiny;
  const Config config = loops(tiny, 100000);
  Engine engine = tiny.load();
  Chat chat(engine, config, "");
  chat.measure_plain_rate();
  REQUIRE(chat.ask("on and on", nobody).speculated());
  CHECK(chat.last_answer()->finish_reason == FinishReason::length);
  CHECK(chat.plain_rate().how == "at the start");
  CHECK_THROWS_AS(chat.ask("and on", nobody), Error);
  CHECK(chat.messages().size() == 2);
}
