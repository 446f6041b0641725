#include <algorithm>
#include <bit>
#include <unordered_map>

#include "sampling/grammar/json_schema/plan.h"
#include "sampling/mutation.h"
#include "specdec/error.h"

namespace specdec::grammar {
namespace {

constexpr std::size_t kMostClasses = 64;
constexpr std::size_t kMostNeeds = 16;  // that several names may provide for
constexpr std::size_t kMostJoined = 4;  // of them, in every combination

}  // namespace

void Planner::plan_object(const ObjectAtom& atom, std::vector<ObjectPlan>& plans) {
  // Names that are mentioned, in order, and the patterns that sort the others.
  std::vector<NameId> names;
  std::unordered_map<NameId, std::size_t> index;
  std::vector<RegexRef> patterns;
  const auto mention = [&](const NameSet& set) {
    for (const NameId name : set.names) {
      if (index.try_emplace(name, names.size()).second) names.push_back(name);
    }
    for (const RegexRef pattern : set.patterns) {
      if (std::find(patterns.begin(), patterns.end(), pattern) == patterns.end()) {
        patterns.push_back(pattern);
      }
    }
  };
  for (const MemberRule& rule : atom.rules) {
    if (rule.names.is_one()) mention(rule.names);
  }
  for (const MemberRule& rule : atom.rules) mention(rule.names);
  for (const MemberNeed& need : atom.needs) mention(need.names);

  ObjectPlan plan;
  plan.min_members = atom.min_members;
  plan.max_members = atom.max_members;
  if (mutant_active("schema_one_member_more") && plan.max_members != kUnbounded) ++plan.max_members;
  const auto add_member = [&](Slot slot) {
    plan.members.push_back(
        {pool_.never(), kAnyValue, {static_cast<std::uint32_t>(plan.slots.size())}});
    plan.slots.push_back(slot);
  };
  for (std::size_t i = 0; i < names.size(); ++i) add_member({0, 1});
  for (const MemberRule& rule : atom.rules) {
    const auto apply = [&](std::size_t i) {
      plan.members[i].value = conditions_.both(plan.members[i].value, rule.value);
    };
    if (rule.names.is_one()) {
      apply(index.at(rule.names.names.front()));
      continue;
    }
    for (std::size_t i = 0; i < names.size(); ++i) {
      if (algebra_.contains(rule.names, names[i])) apply(i);
    }
  }
  std::vector<const MemberNeed*> open_needs;
  for (const MemberNeed& need : atom.needs) {
    if (!need.names.is_one()) {
      open_needs.push_back(&need);
      continue;
    }
    const std::size_t i = index.at(need.names.names.front());
    plan.members[i].value = conditions_.both(plan.members[i].value, need.value);
    plan.slots[i].min = mutant_active("schema_required_ignored") ? 0 : 1;
  }

  // The names that are not mentioned, by the patterns they match.
  std::vector<NameClass> classes = classify(names, patterns);
  const auto applies = [&](const NameSet& set, const NameClass& names_class) {
    bool listed = false;
    for (const RegexRef pattern : set.patterns) {
      const auto at = std::find(patterns.begin(), patterns.end(), pattern) - patterns.begin();
      listed = listed || names_class.matched[static_cast<std::size_t>(at)];
    }
    return listed != set.inverted;
  };
  for (const NameClass& names_class : classes) {
    add_member({0, kUnbounded});
    for (const MemberRule& rule : atom.rules) {
      if (!applies(rule.names, names_class)) continue;
      plan.members.back().value = conditions_.both(plan.members.back().value, rule.value);
    }
  }

  if (open_needs.size() > kMostNeeds) {
    shapes_.fail_unsupported(root_, "too many members that must exist under some name");
  }
  // What several names may provide is a slot that they share. A member may provide for several.
  const std::size_t num_names = plan.members.size();
  const auto first_slot = static_cast<std::uint32_t>(plan.slots.size());
  plan.slots.resize(plan.slots.size() + open_needs.size(), {1, kUnbounded});
  for (std::size_t i = 0; i < num_names && !open_needs.empty(); ++i) {
    std::vector<std::uint32_t> conditional;  // needs that also ask something of the value
    for (std::uint32_t n = 0; n < open_needs.size(); ++n) {
      const NameSet& wanted = open_needs[n]->names;
      const bool listed = i < names.size() ? algebra_.contains(wanted, names[i])
                                           : applies(wanted, classes[i - names.size()]);
      if (!listed) continue;
      if (open_needs[n]->value == kAnyValue) {
        plan.members[i].slots.push_back(first_slot + n);
      } else {
        conditional.push_back(n);
      }
      if (i >= names.size()) {
        unenforced_.insert(
            "a member that must exist under some name may be followed by another "
            "of the same name");
      }
    }
    const std::size_t most = conditional.size() <= kMostJoined ? conditional.size() : 1;
    for (std::size_t set = 1; set < std::size_t{1} << conditional.size(); ++set) {
      if (static_cast<std::size_t>(std::popcount(set)) > most) continue;
      MemberPlan provides = plan.members[i];
      for (std::size_t c = 0; c < conditional.size(); ++c) {
        if ((set >> c & 1) == 0) continue;
        provides.value = conditions_.both(provides.value, open_needs[conditional[c]]->value);
        provides.slots.push_back(first_slot + conditional[c]);
      }
      plan.members.push_back(std::move(provides));
    }
  }
  if (open_needs.size() > 1 && plan.max_members != kUnbounded) {
    unenforced_.insert(
        "maxProperties beside several members that must exist under some name: "
        "some objects are refused");
  }

  std::vector<MemberPlan> kept;
  for (MemberPlan& member : plan.members) {
    if (member.value == kNoValue) continue;
    const std::uint32_t i = member.slots.front();
    if (i < names.size()) {
      member.key = strings_.literal(conditions_.text(names[i]));
    } else {
      member.key = classes[i - names.size()].names;
      if (plan.min_members > 1) {
        unenforced_.insert("minProperties: a name that the schema does not list may count twice");
      }
    }
    kept.push_back(std::move(member));
  }
  plan.members = std::move(kept);
  plans.push_back(std::move(plan));
}

std::vector<Planner::NameClass> Planner::classify(const std::vector<NameId>& names,
                                                  const std::vector<RegexRef>& patterns) {
  NameSet others;
  others.names = names;
  std::sort(others.names.begin(), others.names.end());
  others.inverted = true;
  std::vector<NameClass> classes(1);
  classes.front().names = names.empty() ? strings_.any() : algebra_.regex_of(others);
  for (const RegexRef pattern : patterns) {
    std::vector<NameClass> split;
    for (const NameClass& names_class : classes) {
      for (const bool inside : {true, false}) {
        NameClass part = names_class;
        part.names = pool_.all_of(part.names, inside ? pattern : pool_.complement(pattern));
        part.matched.push_back(inside);
        if (!pool_.is_never(part.names).value_or(false)) split.push_back(std::move(part));
      }
    }
    classes = std::move(split);
    if (classes.size() > kMostClasses) {
      shapes_.fail_unsupported(root_, "the patterns for member names overlap in too many ways");
    }
  }
  return classes;
}

}  // namespace specdec::grammar
