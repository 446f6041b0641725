#include "sampling/grammar/json_schema/shape.h"

#include <algorithm>

#include "specdec/error.h"

namespace specdec::grammar {
namespace {

constexpr std::size_t kMostConditions = 400'000;
constexpr std::size_t kMostGoals = 200'000;
constexpr std::size_t kMostConjuncts = 256;

}  // namespace

ConditionTable::ConditionTable() {
  goals_.resize(2);  // any value, no value
  scope(DynamicScope{});
}

Condition ConditionTable::add(Entry entry) {
  if (entries_.size() >= kMostConditions) {
    throw Error(ErrorCode::invalid_argument, "json schema: more conditions than the limit");
  }
  entries_.push_back(std::move(entry));
  return {static_cast<std::uint32_t>(entries_.size() - 1) << 1};
}

Condition ConditionTable::intern(Entry entry) {
  const std::pair key{entry.value, (std::uint64_t{entry.scope} << 1) | (entry.is_schema ? 1 : 0)};
  const auto [found, is_new] = entry_ids_.try_emplace(key, 0);
  if (is_new) found->second = add(std::move(entry)).id;
  return {found->second};
}

Condition ConditionTable::schema(const JsonValue& schema, std::uint32_t scope) {
  return intern({&schema, true, scope, {}});
}

Condition ConditionTable::equals(const JsonValue& value) { return intern({&value, false, 0, {}}); }

Condition ConditionTable::any_of(std::vector<Condition> options) {
  std::sort(options.begin(), options.end());
  const auto [found, is_new] = option_ids_.try_emplace(options, 0);
  if (is_new) found->second = add({nullptr, false, 0, std::move(options)}).id;
  return {found->second};
}

Goal ConditionTable::goal_of(std::vector<Condition> conditions) {
  std::sort(conditions.begin(), conditions.end());
  conditions.erase(std::unique(conditions.begin(), conditions.end()), conditions.end());
  std::vector<Condition> kept;
  for (const Condition condition : conditions) {
    // true, {} and their opposites need no further look.
    const Entry& of = entry(condition);
    if (of.is_schema && of.value->is_boolean()) {
      if (of.value->boolean == condition.is_negated()) return kNoValue;
      continue;
    }
    if (of.is_schema && of.value->members.empty()) {
      if (condition.is_negated()) return kNoValue;
      continue;
    }
    if (!kept.empty() && kept.back().id == (condition.id ^ 1)) return kNoValue;
    kept.push_back(condition);
  }
  if (kept.empty()) return kAnyValue;
  if (kept.size() > kMostConjuncts) {
    throw Error(ErrorCode::invalid_argument,
                "json schema: a value has more conditions to meet than the limit");
  }
  const auto [found, is_new] =
      goal_ids_.try_emplace(kept, static_cast<std::uint32_t>(goals_.size()));
  if (is_new) {
    if (goals_.size() >= kMostGoals) {
      throw Error(ErrorCode::invalid_argument, "json schema: more combined schemas than the limit");
    }
    goals_.push_back(std::move(kept));
  }
  return {found->second};
}

Goal ConditionTable::both(Goal a, Goal b) {
  if (a == kAnyValue || a == b || b == kNoValue) return b;
  if (b == kAnyValue || a == kNoValue) return a;
  std::vector<Condition> all = goals_[a.id];
  all.insert(all.end(), goals_[b.id].begin(), goals_[b.id].end());
  return goal_of(std::move(all));
}

std::uint32_t ConditionTable::name(std::string_view text) {
  const auto known = name_ids_.find(text);
  if (known != name_ids_.end()) return known->second;
  const auto added =
      name_ids_.emplace(std::string(text), static_cast<std::uint32_t>(names_.size())).first;
  names_.push_back(&added->first);
  return added->second;
}

std::uint32_t ConditionTable::scope(const DynamicScope& scope) {
  const auto [found, is_new] =
      scope_ids_.try_emplace(scope, static_cast<std::uint32_t>(scopes_.size()));
  if (is_new) scopes_.push_back(&found->first);
  return found->second;
}

}  // namespace specdec::grammar
