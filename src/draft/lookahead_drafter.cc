#include "draft/lookahead_drafter.h"

#include <algorithm>

#include "sampling/mutation.h"

namespace specdec {

namespace {

// Where the engine learns what they are worth: a newer n-gram before an older one, the rest of an
// n-gram once its beginning was right, and a token of the window last.
constexpr float kNewest = 0.4f;
constexpr float kRest = 0.6f;
constexpr float kWindow = 0.1f;

/// The child of `parent` that holds `token`, added where there is none.
int child(DraftProposal& proposal, int parent, TokenId token, float confidence) {
  for (std::size_t i = 0; i < proposal.tokens().size(); ++i)
    if (proposal.parents()[i] == parent && proposal.tokens()[i] == token)
      return static_cast<int>(i);
  return proposal.add(token, parent, confidence);
}

/// `count` tokens of the text from a place that differs from position to position.
std::vector<TokenId> copied(std::span<const TokenId> tokens, std::size_t position, int count) {
  constexpr std::size_t kGoldenRatio = 2654435761U;  // Knuth's multiplicative hash
  std::vector<TokenId> column;
  for (int i = 0; i < count; ++i)
    column.push_back(
        tokens[(position * kGoldenRatio + static_cast<std::size_t>(i)) % tokens.size()]);
  return column;
}

}  // namespace

int LookaheadDrafter::max_nodes(const LookaheadConfig& options) noexcept {
  return options.window_size * (options.ngram_size - 1) - 1 +
         options.verification_set_size * (options.ngram_size - 1);
}

void LookaheadDrafter::propose(std::span<const DraftContext> contexts,
                               std::span<DraftProposal> proposals) {
  for (std::size_t i = 0; i < contexts.size(); ++i) {
    const DraftContext& context = contexts[i];
    if (context.chain_only) continue;
    const auto [it, is_new] =
        requests_.try_emplace(context.id, Request{.pool = NgramPool(options_.pool_size)});
    align(it->second, context.tokens);
    proposals[i] = draft(it->second, context);
  }
}

/// Puts the window behind the root: columns whose first token is behind it have served.
void LookaheadDrafter::align(Request& request, std::span<const TokenId> tokens) const {
  const int root = static_cast<int>(tokens.size()) - 1;
  const auto passed =
      std::min(static_cast<std::size_t>(root - request.root), request.columns.size());
  request.root = root;
  std::vector<std::vector<TokenId>>& columns = request.columns;
  if (!mutant_active("lookahead_window_left_behind"))
    columns.erase(columns.begin(), columns.begin() + static_cast<std::ptrdiff_t>(passed));
  for (auto i = columns.size(); i < static_cast<std::size_t>(options_.window_size); ++i)
    columns.push_back(copied(tokens, tokens.size() + i, options_.ngram_size - 1));
  columns.front().front() = tokens.back();
}

DraftProposal LookaheadDrafter::draft(const Request& request, const DraftContext& context) const {
  DraftProposal proposal;
  const auto room = [&](int count) {
    return static_cast<int>(proposal.tokens().size()) + count <= context.max_nodes;
  };
  float confidence = kNewest;
  for (const std::span<const TokenId> ngram :
       request.pool.find(context.tokens.back(), options_.verification_set_size)) {
    const int length = std::min(options_.ngram_size - 1, context.max_depth);
    if (!room(length)) break;
    int parent = DraftProposal::kRoot;
    for (const TokenId token : ngram.subspan(1, static_cast<std::size_t>(length)))
      parent = child(proposal, parent, token, parent < 0 ? confidence : kRest);
    confidence /= 2;
  }

  int first = DraftProposal::kRoot;  // the node of the column's first token
  for (int i = 0; i < options_.window_size; ++i) {
    const std::vector<TokenId>& column = request.columns[static_cast<std::size_t>(i)];
    const int nodes = options_.ngram_size - (i > 0 ? 1 : 2);
    if (i + options_.ngram_size - 2 > context.max_depth || !room(nodes)) break;
    if (i > 0) first = child(proposal, first, column.front(), kWindow);
    int node = first;
    for (const TokenId token : std::span(column).subspan(1))
      node = child(proposal, node, token, kWindow);
    proposal.watch(node);
  }
  return proposal;
}

void LookaheadDrafter::watched(RequestId id, std::span<const TokenId> answers) {
  const auto found = requests_.find(id);
  if (found == requests_.end()) return;
  auto& [pool, root, columns] = found->second;
  // Columns without an answer end the window: those behind them saw their tokens.
  const auto answered = std::ranges::find(answers, Drafter::kNoAnswer) - answers.begin();
  columns.resize(static_cast<std::size_t>(answered));
  for (std::size_t i = 0; i < columns.size(); ++i) {
    columns[i].push_back(answers[i]);
    pool.add(columns[i]);
    columns[i].erase(columns[i].begin());
  }
  ++root;
}

}  // namespace specdec
