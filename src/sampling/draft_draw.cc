#include <algorithm>
#include <vector>

#include "kernels/sampling/philox.h"
#include "sampling/mutation.h"
#include "sampling/sampler.h"

namespace specdec {
namespace {

constexpr std::size_t kBlock = 64;

double weight_of(float prob) { return prob > 0 ? static_cast<double>(prob) : 0.0; }

}  // namespace

// Inversion of the distribution function with 53-bit uniforms, over sums of blocks and then inside
// one block; a drawn token's weight becomes 0 when it may not be drawn again.
void draw_draft_children(std::span<const float> probs, std::uint64_t seed, std::int64_t position,
                         int node, int k, bool without_replacement, std::vector<TokenId>& out) {
  std::vector<double> sums((probs.size() + kBlock - 1) / kBlock, 0.0);
  std::vector<TokenId> drawn;
  const auto weight = [&](std::size_t token) {
    if (std::find(drawn.begin(), drawn.end(), static_cast<TokenId>(token)) != drawn.end()) {
      return 0.0;
    }
    return weight_of(probs[token]);
  };
  const auto sum_block = [&](std::size_t block) {
    const std::size_t end = std::min((block + 1) * kBlock, probs.size());
    double sum = 0;
    for (std::size_t token = block * kBlock; token < end; ++token) sum += weight(token);
    return sum;
  };
  for (std::size_t block = 0; block < sums.size(); ++block) sums[block] = sum_block(block);

  const RandomStream stream(seed, position, RandomPurpose::draft_draw, node);
  for (int child = 0; child < k; ++child) {
    double total = 0;
    for (const double sum : sums) total += sum;
    if (!(total > 0)) return;
    double rest = stream.uniform(static_cast<std::uint32_t>(child)) * total;
    TokenId found = -1;
    for (std::size_t block = 0; block < sums.size(); ++block) {
      // The last block of positive weight takes what rounding leaves over.
      if (sums[block] <= 0) continue;
      if (rest >= sums[block] && std::any_of(sums.begin() + static_cast<std::ptrdiff_t>(block) + 1,
                                             sums.end(), [](double sum) { return sum > 0; })) {
        rest -= sums[block];
        continue;
      }
      const std::size_t end = std::min((block + 1) * kBlock, probs.size());
      for (std::size_t token = block * kBlock; token < end; ++token) {
        const double mass = weight(token);
        if (mass <= 0) continue;
        found = static_cast<TokenId>(token);
        if (rest < mass) break;
        rest -= mass;
      }
      break;
    }
    if (found < 0) return;
    out.push_back(found);
    if (without_replacement) {
      drawn.push_back(found);
      const std::size_t block = static_cast<std::size_t>(found) / kBlock;
      sums[block] = sum_block(block);
    }
  }
}

}  // namespace specdec
