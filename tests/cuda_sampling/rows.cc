#include "rows.h"

#include <cmath>
#include <limits>

namespace specdec::cuda_test {

void fill_row(RowKind kind, std::span<float> row, std::mt19937_64& random) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  std::normal_distribution<float> normal(0, 1);
  const auto any = [&] { return static_cast<std::size_t>(random() % row.size()); };
  switch (kind) {
    case RowKind::plain:
      for (float& value : row) value = 2.5f * normal(random);
      for (int i = 0; i < 20; ++i) row[any()] += 4 + 4 * std::abs(normal(random));
      break;
    case RowKind::flat:
      for (float& value : row) value = 5 + 0.02f * normal(random);
      break;
    case RowKind::ties:
      for (float& value : row) value = 0.5f * std::round(3 * normal(random));
      break;
    case RowKind::equal:
      for (float& value : row) value = -3.25f;
      break;
    case RowKind::zeros:
      for (float& value : row) {
        const auto pick = random() % 4;
        value = pick == 0 ? 0.0f : pick == 1 ? -0.0f : pick == 2 ? 1e-41f : -1e-41f;
      }
      break;
    case RowKind::masked:
      for (float& value : row) value = -kInfinity;
      for (int i = 0; i < 30; ++i) row[any()] = normal(random);
      break;
    case RowKind::single:
      for (float& value : row) value = -kInfinity;
      row[any()] = -80;
      break;
    case RowKind::outliers:
      for (float& value : row) value = normal(random);
      for (int i = 0; i < 3; ++i) row[any()] = 1e30f;
      for (int i = 0; i < 3; ++i) row[any()] = -1e30f;
      break;
    case RowKind::twin_maxima:
      for (float& value : row) value = normal(random);
      row.front() = row.back() = 30;
      break;
    case RowKind::close: {
      for (float& value : row) value = normal(random);
      float top = 9.5f;
      for (int i = 0; i < 40; ++i) row[any()] = top = std::nextafterf(top, 100);
      break;
    }
  }
}

void grow_tree(TestSequence& sequence, std::span<const float> logits, int vocab, int nodes,
               std::mt19937_64& random) {
  RowSampler sampler(vocab);
  DraftTree& tree = sequence.tree;
  for (int parent = 0; tree.size() < nodes && parent < tree.size(); ++parent) {
    std::vector<TokenId> path;
    for (const std::int32_t at : tree.path_to(parent))
      if (at > 0) path.push_back(tree.tokens[static_cast<std::size_t>(at)]);
    const int depth = static_cast<int>(path.size());
    const auto width = static_cast<std::size_t>(vocab);
    TokenId next = 0;
    try {
      next = sampler
                 .sample(logits.subspan(static_cast<std::size_t>(parent) * width, width),
                         {.options = &sequence.options,
                          .seed = sequence.seed,
                          .position = sequence.length + depth,
                          .penalties = &sequence.penalties,
                          .path = path,
                          .num_output_tokens = sequence.num_output + depth,
                          .end_tokens = sequence.end_tokens})
                 .token;
    } catch (const Error&) {
      continue;
    }
    const auto children = 1 + static_cast<int>(random() % 3);
    const int lucky =
        random() % 8 == 0 ? -1 : static_cast<int>(random() % static_cast<unsigned>(children));
    for (int child = 0; child < children && tree.size() < nodes; ++child) {
      auto token = static_cast<TokenId>(random() % static_cast<unsigned>(vocab));
      if (child == lucky)
        token = next;
      else if (token == next)
        token = (token + 1) % vocab;
      if (tree.find_child(parent, token) < 0) tree.add(token, parent);
    }
  }
}

}  // namespace specdec::cuda_test
