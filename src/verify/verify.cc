#include "verify/verify.h"

#include <string>

#include "kernels/sampling/philox.h"
#include "sampling/mutation.h"
#include "specdec/error.h"
#include "verify/rules.h"

namespace specdec {
namespace {

constexpr std::pair<VerifyMethod, const char*> kNames[] = {
    {VerifyMethod::coupled, "coupled"}, {VerifyMethod::rejection, "rejection"},
    {VerifyMethod::block, "block"},     {VerifyMethod::traversal, "traversal"},
    {VerifyMethod::typical, "typical"},
};

}  // namespace

std::optional<VerifyMethod> parse_verify_method(std::string_view name) {
  for (const auto& [method, known] : kNames) {
    if (name == known) return method;
  }
  return std::nullopt;
}

const char* to_string(VerifyMethod method) noexcept {
  for (const auto& [known, name] : kNames) {
    if (known == method) return name;
  }
  return "unknown";
}

bool is_lossless(VerifyMethod method) noexcept { return method != VerifyMethod::typical; }

bool wants_sampled_draft(VerifyMethod method) noexcept {
  return method == VerifyMethod::rejection || method == VerifyMethod::block ||
         method == VerifyMethod::traversal;
}

AcceptedPath verify(const DraftTree& tree, TargetRows& target, const VerifyParams& params) {
  if (params.method == VerifyMethod::block && !tree.is_chain()) {
    throw Error(ErrorCode::invalid_argument,
                "block verification takes a chain, but this draft branches; set "
                "verify.method = \"traversal\" or draft.tree.topk = 1");
  }
  if (params.greedy || params.method == VerifyMethod::coupled) return verify_coupled(tree, target);

  check_sampled_tree(tree, target.vocab_size());
  if (params.method == VerifyMethod::typical) return verify_typical(tree, target, params);
  KeyedChance chance(params);
  switch (params.method) {
    case VerifyMethod::block:
      return make_path(tree, target, verify_block(tree, target, chance));
    case VerifyMethod::traversal:
      return make_path(tree, target, verify_traversal(tree, target, chance));
    default:
      return make_path(tree, target, verify_rejection(tree, target, chance));
  }
}

}  // namespace specdec
