#include <algorithm>
#include <unordered_map>

#include "sampling/grammar/json_schema/plan.h"
#include "specdec/error.h"

namespace specdec::grammar {
namespace {

constexpr std::size_t kMostClasses = 64;
constexpr std::size_t kMostVariants = 64;

/// Names without a mention of their own that the same rules and needs apply to.
struct NameClass {
  RegexRef names;
  std::vector<bool> matched;  // [patterns]
};

}  // namespace

void Planner::plan_object(const ObjectAtom& atom, std::vector<ObjectPlan>& plans) {
  // Names that are mentioned, in order, and the patterns that sort the others.
  std::vector<std::string> names;
  std::unordered_map<std::string, std::size_t> index;
  std::vector<RegexRef> patterns;
  const auto mention = [&](const NameSet& set) {
    for (const std::string& name : set.names) {
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
  for (std::size_t i = 0; i < names.size(); ++i) {
    plan.members.push_back({pool_.never(), kAnyValue, 0, 1});
  }
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
    MemberPlan& member = plan.members[index.at(need.names.names.front())];
    member.value = conditions_.both(member.value, need.value);
    member.min = 1;
  }

  // The names that are not mentioned, by the patterns they match.
  std::vector<NameClass> classes(1);
  NameSet others;
  others.names = names;
  std::sort(others.names.begin(), others.names.end());
  others.inverted = true;
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
  const auto applies = [&](const NameSet& set, const NameClass& names_class) {
    bool listed = false;
    for (const RegexRef pattern : set.patterns) {
      const auto at = std::find(patterns.begin(), patterns.end(), pattern) - patterns.begin();
      listed = listed || names_class.matched[static_cast<std::size_t>(at)];
    }
    return listed != set.inverted;
  };
  std::vector<Goal> class_goals;
  for (const NameClass& names_class : classes) {
    Goal goal = kAnyValue;
    for (const MemberRule& rule : atom.rules) {
      if (applies(rule.names, names_class)) goal = conditions_.both(goal, rule.value);
    }
    class_goals.push_back(goal);
    plan.members.push_back({names_class.names, goal, 0, kUnbounded});
  }

  // A need that several names can provide for is a plan for each of them.
  std::vector<ObjectPlan> variants = {plan};
  for (const MemberNeed* need : open_needs) {
    std::vector<ObjectPlan> provided;
    for (const ObjectPlan& variant : variants) {
      for (std::size_t i = 0; i < names.size(); ++i) {
        if (!algebra_.contains(need->names, names[i])) continue;
        ObjectPlan& with_name = provided.emplace_back(variant);
        with_name.members[i].value = conditions_.both(with_name.members[i].value, need->value);
        with_name.members[i].min = 1;
      }
      for (std::size_t c = 0; c < classes.size(); ++c) {
        if (!applies(need->names, classes[c])) continue;
        const Goal value = conditions_.both(class_goals[c], need->value);
        if (value == kNoValue) continue;
        ObjectPlan& with_class = provided.emplace_back(variant);
        with_class.members.push_back({classes[c].names, value, 1, kUnbounded});
        unenforced_.insert(
            "a member that must exist under some name may be followed by another "
            "of the same name");
      }
    }
    variants = std::move(provided);
    if (variants.size() > kMostVariants) {
      shapes_.fail_unsupported(root_, "members that must exist under some name: too many choices");
    }
  }

  for (ObjectPlan& variant : variants) {
    bool possible = true;
    std::vector<MemberPlan> kept;
    bool open_names = false;
    for (std::size_t i = 0; i < variant.members.size(); ++i) {
      MemberPlan& member = variant.members[i];
      if (member.value == kNoValue) {
        possible = possible && member.min == 0;
        continue;
      }
      if (i < names.size()) {
        member.key = strings_.literal(names[i]);
      } else {
        open_names = true;
      }
      kept.push_back(member);
    }
    if (!possible) continue;
    if (open_names && variant.min_members > 1) {
      unenforced_.insert(
          "minProperties: a name that the schema does not list may be counted twice");
    }
    variant.members = std::move(kept);
    plans.push_back(std::move(variant));
  }
}

}  // namespace specdec::grammar
