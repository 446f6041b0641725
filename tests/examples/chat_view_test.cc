// How trees, answers and comparisons are shown.

#include <doctest/doctest.h>

#include <clocale>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "examples/speculative_chat/answer.h"
#include "examples/speculative_chat/report.h"
#include "examples/speculative_chat/tree_view.h"
#include "examples/speculative_chat/word_wrap.h"

namespace {

using namespace specdec;
using namespace specdec::chat;

// Token i is the i-th of these.
class WordTokenizer final : public Tokenizer {
 public:
  int vocab_size() const noexcept override { return static_cast<int>(words_.size()); }
  std::vector<TokenId> encode(std::string_view, bool) const override { return {}; }
  std::string_view token_bytes(TokenId token, bool) const override {
    return words_.at(static_cast<std::size_t>(token));
  }
  std::string decode(std::span<const TokenId> tokens, bool special) const override {
    std::string text;
    for (const TokenId token : tokens) text += token_bytes(token, special);
    return text;
  }
  bool is_special(TokenId) const override { return false; }
  std::span<const TokenId> eos_tokens() const noexcept override { return {}; }
  std::string apply_chat_template(std::span<const ChatMessage>, bool) const override { return {}; }

 private:
  std::vector<std::string> words_ = {"The", " fox", " dog", " runs", " sleeps", "\xE6\x97", "\xA5"};
};

const cli::Painter kPlain(false);

}  // namespace

TEST_CASE("a tree is drawn with its accepted path and the bonus token below it") {
  //  The -> fox -> {runs, sleeps};  The -> dog
  const TreeSnapshot tree{.tokens = {0, 1, 2, 3, 4},
                          .parents = {-1, 0, 0, 1, 1},
                          .accepted_path = {0, 1, 3},
                          .bonus_token = 2};
  CHECK(draw_tree(tree, WordTokenizer(), kPlain) ==
        "root \"The\"\n"
        "├─✔ \" fox\"\n"
        "│ ├─✔ \" runs\"\n"
        "│ │ └─★ \" dog\" (bonus)\n"
        "│ └─✘ \" sleeps\"\n"
        "└─✘ \" dog\"\n");
}

TEST_CASE("a tree without accepted nodes, one without a bonus token, and none at all") {
  TreeSnapshot tree{.tokens = {0, 1}, .parents = {-1, 0}, .accepted_path = {0}, .bonus_token = 2};
  CHECK(draw_tree(tree, WordTokenizer(), kPlain) ==
        "root \"The\"\n├─✘ \" fox\"\n└─★ \" dog\" (bonus)\n");
  tree.accepted_path = {0, 1};
  tree.bonus_token = -1;
  CHECK(draw_tree(tree, WordTokenizer(), kPlain) == "root \"The\"\n└─✔ \" fox\"\n");
  tree.accepted_path = {};
  tree.bonus_token = 2;
  CHECK(draw_tree(tree, WordTokenizer(), kPlain) ==
        "root \"The\"\n├─✘ \" fox\"\n└─★ \" dog\" (bonus)\n");
  CHECK(draw_tree({}, WordTokenizer(), kPlain).empty());
}

TEST_CASE("accepted tokens are marked, and no character is cut") {
  const auto token = [](TokenId id, bool drafted) {
    OutputToken out;
    out.token = id;
    out.drafted = drafted;
    return out;
  };
  const std::vector<OutputToken> tokens = {token(0, false), token(1, true), token(3, true),
                                           token(2, false)};
  CHECK(mark_accepted(tokens, WordTokenizer(), kPlain) == "The[ fox runs] dog");
  CHECK(mark_accepted(tokens, WordTokenizer(), cli::Painter(true)) ==
        "\x1b[33mThe\x1b[0m\x1b[32m fox runs\x1b[0m\x1b[33m dog\x1b[0m");
  // One character from two tokens of different kinds.
  const std::vector<OutputToken> cut = {token(5, false), token(6, true), token(1, true)};
  CHECK(mark_accepted(cut, WordTokenizer(), kPlain) == "日[ fox]");
  CHECK(mark_accepted({}, WordTokenizer(), kPlain).empty());
}

namespace {

Answer answer_with(double seconds_per_token, std::int64_t steps, std::int64_t drafts) {
  Answer answer;
  answer.text = "a \"b\"\n\xFF";
  answer.tokens.resize(30);
  for (int i = 0; i < 30; ++i) answer.tokens[static_cast<std::size_t>(i)].token = i;
  answer.finish_reason = FinishReason::eos;
  answer.seed = 18446744073709551615u;
  answer.stats.num_output_tokens = 30;
  answer.stats.time_per_output_token = seconds_per_token;
  answer.stats.time_to_first_token = 0.04;
  answer.stats.total_time = 0.04 + 29 * seconds_per_token;
  answer.stats.speculation.num_spec_steps = steps;
  answer.stats.speculation.num_output_tokens = 30;
  answer.stats.speculation.spec_decode_num_drafts = drafts;
  return answer;
}

}  // namespace

TEST_CASE("the closing line tells a speed-up when a plain rate was measured, and never invents") {
  const Answer answer = answer_with(0.004, 12, 12);
  const std::string line = closing_line(answer, {125, "at the start"});
  CHECK(line ==
        "30 tokens · 250 tok/s · 2.50 a step · 2.00x plain (125 tok/s at the start) · first token "
        "40 ms");
  CHECK(closing_line(answer, {}).find("plain") == std::string::npos);
  const std::string plain = closing_line(answer_with(0.008, 30, 0), {125, "measured"});
  CHECK(plain.find("no speculation") != std::string::npos);
  CHECK(plain.find("x plain") == std::string::npos);
}

TEST_CASE("the comparison says whether the tokens are equal") {
  Comparison comparison;
  comparison.method = "ngram";
  comparison.plain = answer_with(0.008, 30, 0);
  comparison.speculative = answer_with(0.004, 12, 12);
  comparison.identical = true;
  const std::string table = comparison_table(comparison, kPlain);
  CHECK(table.find("ngram") != std::string::npos);
  CHECK(table.find("2.00x") != std::string::npos);
  CHECK(table.find("the tokens are equal") != std::string::npos);
  comparison.identical = false;
  CHECK(comparison_table(comparison, kPlain).find("THE TOKENS DIFFER") != std::string::npos);
}

TEST_CASE("an answer is one line of JSON, invalid bytes and large seeds included") {
  const std::string line = to_json(answer_with(0.004, 12, 12));
  CHECK(line.find('\n') == std::string::npos);
  const nlohmann::json object = nlohmann::json::parse(line);
  CHECK(object.at("text") == "a \"b\"\n\xEF\xBF\xBD");
  CHECK(object.at("tokens").size() == 30);
  CHECK(object.at("tokens").at(29) == 29);
  CHECK(object.at("finish_reason") == "eos");
  CHECK(object.at("stats").at("seed") == 18446744073709551615u);
  CHECK(object.at("stats").at("tok_per_s") == doctest::Approx(250));
  CHECK(object.at("stats").at("mean_acceptance_length") == doctest::Approx(2.5));
  CHECK_FALSE(object.contains("error"));

  Answer failed = answer_with(0.004, 12, 12);
  failed.finish_reason = FinishReason::error;
  failed.error = Error(ErrorCode::internal, "broken");
  CHECK(nlohmann::json::parse(to_json(failed)).at("error").at("message") == "broken");
}

namespace {

// What a terminal shows after these bytes: enough of one for WordWrap.
std::string show(const std::string& bytes) {
  std::vector<std::string> lines = {""};
  for (std::size_t i = 0; i < bytes.size();) {
    if (bytes[i] == '\n') {
      lines.emplace_back();
      ++i;
    } else if (bytes.compare(i, 2, "\x1b[") == 0) {
      const std::size_t end = bytes.find_first_of("DK", i);
      if (bytes[end] == 'D')
        lines.back().resize(lines.back().size() - std::stoul(bytes.substr(i + 2)));
      i = end + 1;
    } else {
      lines.back() += bytes[i++];
    }
  }
  std::string text;
  for (const std::string& line : lines) text += line + '|';
  return text;
}

}  // namespace

TEST_CASE("streamed text is broken between words, whatever the pieces") {
  const std::string text = "The quick brown fox jumps over the lazy dog.\n\nIt sleeps.";
  for (std::size_t piece = 1; piece <= text.size(); ++piece) {
    CAPTURE(piece);
    WordWrap wrap;
    std::string written;
    for (std::size_t i = 0; i < text.size(); i += piece)
      written += wrap.feed(text.substr(i, piece), 21);
    CHECK(show(written) == "The quick brown fox |jumps over the lazy |dog.||It sleeps.|");
  }
}

TEST_CASE("a word longer than a line is cut, wide characters count twice") {
  WordWrap wrap;
  CHECK(show(wrap.feed("abcdefghijklmnopqrstuvwxyz", 21)) == "abcdefghijklmnopqrst|uvwxyz|");
  wrap.reset();
  std::setlocale(LC_CTYPE, "C.UTF-8");
  std::string wide;
  for (int i = 0; i < 11; ++i) wide += "日";
  CHECK(wrap.feed(wide, 21) == wide.substr(0, 30) + "\n日");
}

TEST_CASE("colours have no width and move with their word") {
  WordWrap wrap;
  const std::string red = "\x1b[31m";
  std::string written;
  for (const std::string& piece : {std::string("The quick brown jum"), red + "ps"})
    written += wrap.feed(piece, 21);
  CHECK(written == "The quick brown jum" + red + "p\x1b[4D\x1b[K\njum" + red + "ps");
}
