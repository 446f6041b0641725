#include "tools/specdec_tune/vocabulary.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <numeric>

#include "specdec/engine.h"
#include "tools/specdec_bench/runner.h"

namespace specdec::tune {
namespace {

constexpr std::size_t kHeldOut = 4;  // every fourth prompt judges a list made of the others

double coverage(std::span<const std::vector<TokenId>> texts,
                std::span<const std::vector<TokenId>> answers, std::span<const TokenId> always,
                int size, int vocab_size) {
  std::vector<std::vector<TokenId>> others;
  for (std::size_t i = 0; i < texts.size(); ++i)
    if (i % kHeldOut != kHeldOut - 1) others.push_back(texts[i]);
  std::vector<TokenId> listed = frequent_tokens(others, always, size, vocab_size);
  std::ranges::sort(listed);
  std::size_t known = 0;
  std::size_t all = 0;
  for (std::size_t i = kHeldOut - 1; i < answers.size(); i += kHeldOut) {
    all += answers[i].size();
    for (const TokenId token : answers[i]) known += std::ranges::binary_search(listed, token);
  }
  return all == 0 ? 0 : static_cast<double>(known) / static_cast<double>(all);
}

}  // namespace

std::vector<TokenId> frequent_tokens(std::span<const std::vector<TokenId>> texts,
                                     std::span<const TokenId> always, int size, int vocab_size) {
  std::vector<std::int64_t> counts(static_cast<std::size_t>(vocab_size));
  for (const std::vector<TokenId>& text : texts)
    for (const TokenId token : text) ++counts[static_cast<std::size_t>(token)];
  for (const TokenId token : always)
    counts[static_cast<std::size_t>(token)] = std::numeric_limits<std::int64_t>::max();
  std::vector<TokenId> tokens(counts.size());
  std::iota(tokens.begin(), tokens.end(), 0);
  std::ranges::stable_sort(tokens, [&](TokenId a, TokenId b) {
    return counts[static_cast<std::size_t>(a)] > counts[static_cast<std::size_t>(b)];
  });
  tokens.resize(std::min(tokens.size(), static_cast<std::size_t>(size)));
  return tokens;
}

Vocabulary make_vocabulary(const Config& config, const std::vector<bench::Prompt>& prompts,
                           int size, const std::function<bool(double)>& progress) {
  Config own = config;
  own.draft.vocabulary_list.clear();
  if (!own.sampling.seed) own.sampling.seed = 1;
  Engine engine = Engine::load(own);
  const bench::Plan plan{.methods = {own.draft.method}, .lengths = {}, .sampling = own.sampling};
  const auto runs = bench::run_all(engine, prompts, plan, [&](std::size_t done) {
    return progress(static_cast<double>(done) / static_cast<double>(prompts.size()));
  });

  const Tokenizer& tokenizer = engine.tokenizer();
  std::vector<std::vector<TokenId>> texts;
  std::vector<std::vector<TokenId>> answers;
  for (std::size_t i = 0; i < runs.front().size(); ++i) {
    const std::vector<TokenId>& answer = runs.front()[i].tokens;
    const std::vector<ChatMessage> messages = {{"user", prompts[i].turns.front()}};
    std::vector<TokenId> text =
        tokenizer.encode(tokenizer.apply_chat_template(messages, true), true);
    text.insert(text.end(), answer.begin(), answer.end());
    texts.push_back(std::move(text));
    answers.push_back(answer);
  }
  const int vocab_size = tokenizer.vocab_size();
  Vocabulary vocabulary{
      .tokens = frequent_tokens(texts, tokenizer.eos_tokens(), size, vocab_size),
      .num_prompts = texts.size(),
      .coverage = coverage(texts, answers, tokenizer.eos_tokens(), size, vocab_size)};
  std::vector<bool> seen(static_cast<std::size_t>(vocab_size));
  for (const std::vector<TokenId>& text : texts)
    for (const TokenId token : text) seen[static_cast<std::size_t>(token)] = true;
  vocabulary.num_seen =
      static_cast<std::size_t>(std::ranges::count_if(vocabulary.tokens, [&](TokenId token) -> bool {
        return seen[static_cast<std::size_t>(token)];
      }));
  return vocabulary;
}

std::string vocabulary_text(const Vocabulary& vocabulary, const std::string& prompts) {
  std::string text = "# tokens by how often they come in " + prompts + " (" +
                     std::to_string(vocabulary.num_prompts) + " prompts) and the answers\n";
  for (const TokenId token : vocabulary.tokens) text += std::to_string(token) + "\n";
  return text;
}

}  // namespace specdec::tune
