#include <doctest/doctest.h>

#include <functional>
#include <string>
#include <vector>

#include "specdec/config.h"
#include "specdec/error.h"

using namespace specdec;

namespace {

/// The message of the Error(invalid_config) that `call` throws; empty when it throws none.
std::string message_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::invalid_config);
    return error.what();
  }
  return "";
}

bool holds(const std::string& text, const std::string& fragment) {
  return text.find(fragment) != std::string::npos;
}

struct BadFile {
  std::string toml;
  std::vector<std::string> fragments;  // all of them must be in the message
};

}  // namespace

TEST_CASE("a bad file is refused with file, line, column, key and what is expected") {
  const std::vector<BadFile> files = {
      // Unknown keys, with the nearest known one.
      {"[target]\nmodle = \"x\"", {"f.toml:2:1", "\"target.modle\"", "\"target.model\""}},
      {"\n\n[samplng]\ntemperature = 1", {"f.toml:3:2", "\"samplng\"", "\"sampling\""}},
      {"[sampling]\ntemp = 1", {"f.toml:2:1", "\"sampling.temp\""}},
      {"[sampling]\ntemprature = 1", {"\"sampling.temperature\""}},
      {"temperature = 0.5", {"f.toml:1:1", "\"temperature\"", "\"sampling.temperature\""}},
      {"[draft]\nnum_speculative_tokens = 5", {"\"draft.length.num_speculative_tokens\""}},
      {"[draft.lenght]\nmode = \"fixed\"", {"f.toml:1:8", "\"draft.length\""}},
      {"draft.tree.top_k = 2", {"\"draft.tree.top_k\"", "\"draft.tree.topk\""}},
      {"[[drafts]]\nx = 1", {"unknown key \"drafts\"", "\"draft\""}},
      {"\"\" = 1", {"f.toml:1:1", "unknown key \"\""}},
      {"\"tar\\u0007get\" = 1", {"unknown key \"tar\\u0007get\""}},
      // Wrong types.
      {"[target]\nmodel = 3", {"f.toml:2:9", "target.model is a whole number", "a path in quotes"}},
      {"[target]\nmodel = [\"a\"]", {"target.model is a list"}},
      {"[draft.length]\nnum_speculative_tokens = \"5\"",
       {"f.toml:2:26", "is a text", "a whole number from 1 to 64"}},
      {"[draft.length]\nnum_speculative_tokens = 5.0", {"is a number with a fraction"}},
      {"[draft.length]\nnum_speculative_tokens = true", {"is true or false"}},
      {"[sampling]\ntemperature = \"hot\"", {"is a text", "a number from 0.0 to 100.0"}},
      {"[sampling]\ntemperature = 2026-01-01", {"is a date or time"}},
      {"[sampling]\nignore_eos = 1", {"is a whole number", "expected true or false"}},
      {"[sampling]\nstop = \"END\"", {"is a text", "a list of texts"}},
      {"[sampling]\nstop = [\"a\", 2]", {"f.toml:2:14", "holds a whole number"}},
      {"[sampling]\nstop_token_ids = [1, \"2\"]", {"holds a text", "a list of token ids"}},
      {"[sampling]\nlogit_bias = [1, 2]", {"is a list", "{ 42 = -1.5 }"}},
      {"[sampling]\nlogit_bias = { cat = 1 }", {"names \"cat\" as a token"}},
      {"[sampling]\nlogit_bias = { 5 = \"x\" }", {"holds a text"}},
      {"[sampling]\nlogit_bias = { 5.5 = 1 }", {"holds a table"}},
      {"[sampling]\nseed = 1.5", {"is a number with a fraction", "\"random\""}},
      {"[sampling]\nseed = \"lucky\"", {"is \"lucky\""}},
      {"draft = \"ngram\"", {"f.toml:1:1", "draft is a text", "write [draft]"}},
      {"[draft]\ntree = 4", {"f.toml:2:1", "draft.tree is a whole number", "[draft.tree]"}},
      {"[[draft]]\nmethod = \"ngram\"", {"draft is a list", "write [draft]"}},
      {"[draft.method]\nname = \"ngram\"", {"draft.method is a table"}},
      {"[draft.length]\nschedule = [1, 5]", {"holds a whole number", "pairs"}},
      {"[draft.length]\nschedule = [[1, 5, 6]]", {"holds a list of 3 instead of a pair"}},
      {"[draft.length]\nschedule = [[1, \"5\"]]", {"holds a text"}},
      // Out of range.
      {"[draft.length]\nnum_speculative_tokens = 65", {"f.toml:2:26", "is 65", "from 1 to 64"}},
      {"[draft.length]\nnum_speculative_tokens = 0", {"is 0"}},
      {"[draft.length]\nnum_speculative_tokens = 4294967297", {"is 4294967297"}},
      {"[draft.length]\nschedule = []", {"is empty"}},
      {"[draft.length]\nschedule = [[2, 5]]", {"begins with [2, 5]"}},
      {"[draft.length]\nschedule = [[1, 5], [1, 4]]", {"holds [1, 4] after 1"}},
      {"[draft.length]\nschedule = [[1, 99]]", {"holds [1, 99]"}},
      {"[sampling]\ntop_p = 0", {"is 0.0", "a number above 0 and at most 1.0"}},
      {"[sampling]\ntop_p = 1.01", {"is 1.01"}},
      {"[sampling]\ntemperature = -1", {"is -1.0"}},
      {"[sampling]\ntemperature = nan", {"is nan"}},
      {"[sampling]\ntemperature = inf", {"is inf"}},
      {"[sampling]\nrepetition_penalty = 0.0", {"is 0.0", "a number above 0"}},
      {"[sampling]\nmax_tokens = 0", {"is 0", "a whole number, 1 or more"}},
      {"[sampling]\nlogprobs = 65", {"is 65", "from -1 to 64"}},
      {"[sampling]\nseed = -1", {"is -1"}},
      {"[sampling]\nstop = [\"\"]", {"holds an empty text"}},
      {"[sampling]\nstop_token_ids = [-1]", {"holds -1"}},
      {"[sampling]\nlogit_bias = { -5 = 1 }", {"holds token -5"}},
      {"[sampling]\nlogit_bias = { 5 = inf }", {"gives token 5 the bias inf"}},
      {"[sampling]\nlogit_bias = { 5 = nan }", {"gives token 5 the bias nan"}},
      {"[sampling]\nlogit_bias = { 5 = 1, 05 = 2 }", {"names token 5 twice"}},
      // Wrong choices.
      {"[verify]\nmethod = \"magic\"",
       {"f.toml:2:10", "is \"magic\"", "one of coupled, rejection, block, traversal, typical"}},
      {"[kv_cache]\nblock_size = 17", {"is 17", "one of 16, 32, 64"}},
      {"[kv_cache]\ntype = \"f8\"", {"one of f16, f32"}},
      {"[backend]\nfloat32_weights = \"f8\"", {"is \"f8\"", "one of f16, tf32, f32"}},
      {"[backend]\nisa = \"neon\"", {"one of auto, avx2, avx512, amx"}},
      {"[log]\nlevel = \"loud\\u001b[2J\"", {"is \"loud\\u001b[2J\"", "one of trace"}},
      {"[draft]\nmethod = \"\"", {"is empty"}},
      {"[draft]\nmethod = [\"suffix\", 3]",
       {"f.toml:2:21", "holds a whole number", "a list of names"}},
      {"[draft]\nmethod = []", {"is empty"}},
      {"[target]\nmodel = \"a\\u0000b\"", {"a zero byte"}},
      // Broken TOML.
      {"[target", {"f.toml:1", "not valid TOML"}},
      {"[target]\nmodel = ", {"f.toml:2", "not valid TOML"}},
      {"[target]\nmodel = \"open", {"f.toml:2", "not valid TOML"}},
      {"[target]\nmodel = \"a\"\nmodel = \"b\"", {"f.toml:3", "not valid TOML"}},
      {"[target]\nmodel = \"a\"\n[target]\n", {"f.toml:3", "not valid TOML"}},
      {"[target]\nmodel = \"a\" b = 1", {"f.toml:2", "not valid TOML"}},
      {"[sampling]\nseed = 99999999999999999999", {"f.toml:2", "not valid TOML"}},
      {"model = \"\xff\"", {"not valid TOML"}},
      {std::string("a\0b = 1", 7), {"not valid TOML"}},
      {"{}", {"f.toml:1", "not valid TOML"}},
  };
  for (const BadFile& file : files) {
    CAPTURE(file.toml);
    const std::string message = message_of([&] { Config::from_string(file.toml, "f.toml"); });
    CAPTURE(message);
    for (const std::string& fragment : file.fragments) {
      CAPTURE(fragment);
      CHECK(holds(message, fragment));
    }
    // One line, safe to print: whatever stands in the file.
    for (char c : message) CHECK(static_cast<unsigned char>(c) >= 0x20);
  }
}

TEST_CASE("hostile nesting ends in an error, not in a stack overflow") {
  const auto repeated = [](const std::string& unit, int times) {
    std::string text;
    for (int i = 0; i < times; ++i) text += unit;
    return text;
  };
  const std::vector<std::string> texts = {
      "a = " + repeated("[", 200000),
      "a = " + repeated("{a=", 100000),
      "[" + repeated("a.", 200000) + "a]",
      repeated("a.", 200000) + "a = 1",
      repeated("\"=\".", 200000) + "a = 1",
      "[" + repeated("a.", 4000) + "a]",  // below the limit: an unknown key
      "x = { y = \"\"\"\n\"\"\", " + repeated("a.", 200000) + "a = 1 }",
      "[" + repeated("[", 100000),
  };
  for (const std::string& text : texts) {
    const std::string message = message_of([&] { Config::from_string(text, "f.toml"); });
    CHECK(holds(message, "f.toml"));
    CHECK(message.size() < 1000);
  }
  Config config;
  CHECK(holds(message_of([&] {
                config.set("sampling.stop_token_ids", repeated("[", 200000), "--stop-token-ids");
              }),
              "--stop-token-ids: sampling.stop_token_ids"));
  CHECK(config == Config());
}

TEST_CASE("a bad flag or variable is refused with its name") {
  struct BadValue {
    std::string key, value;
    std::vector<std::string> fragments;
  };
  const std::vector<BadValue> values = {
      {"sampling.temprature", "1", {"unknown key \"sampling.temprature\"", "sampling.temperature"}},
      {"", "1", {"unknown key \"\""}},
      {"sampling.temperature", "", {"sampling.temperature is \"\"", "a number from"}},
      {"sampling.temperature", "1x", {"is \"1x\""}},
      {"sampling.temperature", " 1", {"is \" 1\""}},
      {"sampling.temperature", "nan", {"is nan"}},
      {"sampling.max_tokens", "1e3", {"is \"1e3\""}},
      {"sampling.max_tokens", "99999999999", {"is \"99999999999\""}},
      {"sampling.seed", "-1", {"is \"-1\""}},
      {"sampling.seed", "18446744073709551616", {"is \"18446744073709551616\""}},
      {"sampling.ignore_eos", "maybe", {"is \"maybe\"", "true or false"}},
      {"sampling.stop_token_ids", "1;2", {"is \"1;2\""}},
      {"sampling.stop_token_ids", "1]\nx = [2", {"is \"1]\\nx = [2\""}},
      {"sampling.logit_bias", "5", {"is \"5\""}},
      {"sampling.stop", "", {"holds an empty text"}},
      {"sampling.stop", "\xff", {"not valid UTF-8"}},
      {"draft.length.schedule", "[1,5", {"is \"[1,5\""}},
      {"kv_cache.block_size", "33", {"is 33", "one of 16, 32, 64"}},
      {"verify.method", "Coupled", {"is \"Coupled\""}},
      {"target.model", "\xc3\x28", {"not valid UTF-8"}},
  };
  for (const BadValue& bad : values) {
    CAPTURE(bad.key);
    CAPTURE(bad.value);
    Config config;
    const std::string message = message_of([&] { config.set(bad.key, bad.value, "--flag"); });
    CAPTURE(message);
    CHECK(message.starts_with("--flag: "));
    for (const std::string& fragment : bad.fragments) CHECK(holds(message, fragment));
    CHECK(config == Config());
    CHECK(config.origins.empty());
  }
}

TEST_CASE("validate names what contradicts and what to do") {
  struct Bad {
    std::string toml;
    std::vector<std::string> fragments;
  };
  const std::string target = "[target]\nmodel = \"t.gguf\"\n";
  const std::vector<Bad> bad = {
      {"", {"target.model is not set", "--target"}},
      {target + "[draft]\nmethod = \"draft_model\"",
       {"draft.method (set by f.toml:4)", "draft.model is not set", "ngram"}},
      {target + "[draft.tree]\ntopk = 4\n[verify]\nmethod = \"block\"",
       {"verify.method (set by f.toml:6)", "draft.tree.topk (set by f.toml:4) is 4", "traversal"}},
      {target + "[draft]\nmethod = \"lookahead\"\n[verify]\nmethod = \"block\"",
       {"verify.method (set by f.toml:6)", "draft.method (set by f.toml:4)", "window is a tree"}},
      {target + "[draft.ngram]\nprompt_lookup_min = 6", {"is 6, more than", "5"}},
      {target + "[scheduler]\nmax_num_batched_tokens = 8", {"is 8, less than", "32"}},
      {target + "[sampling]\nmin_tokens = 300", {"is 300, more than", "256"}},
  };
  for (const Bad& it : bad) {
    const Config config = Config::from_string(it.toml, "f.toml");
    const std::string message = message_of([&] { config.validate(); });
    CAPTURE(message);
    for (const std::string& fragment : it.fragments) CHECK(holds(message, fragment));
  }
  // Fields may be set in code, past every parser.
  Config config;
  config.target.model = "t.gguf";
  CHECK_NOTHROW(config.validate());
  config.kv_cache.block_size = 17;
  CHECK(
      holds(message_of([&] { config.validate(); }), "kv_cache.block_size is 17; expected one of"));
  config = Config();
  config.target.model = "t.gguf";
  config.sampling.top_p = -1;
  CHECK(holds(message_of([&] { config.validate(); }), "sampling.top_p is -1.0"));
}

TEST_CASE("a file that cannot be read is an io error that names it") {
  const auto code_of = [](const std::string& path) {
    try {
      Config::from_file(path);
    } catch (const Error& error) {
      CHECK(holds(error.what(), path));
      return error.code();
    }
    return ErrorCode::internal;
  };
  CHECK(code_of("no/such/file.toml") == ErrorCode::io);
  CHECK(code_of(".") == ErrorCode::io);
  CHECK(code_of("/dev/zero") == ErrorCode::invalid_config);
}
