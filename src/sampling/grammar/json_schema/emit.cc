#include "sampling/grammar/json_schema/emit.h"

#include <algorithm>
#include <array>

#include "sampling/grammar/json_schema/bag.h"

namespace specdec::grammar {

Emitter::Emitter(GrammarSpec& spec, const std::map<std::uint32_t, ValuePlan>& plans,
                 const JsonSchemaOptions& options)
    : spec_(spec), plans_(plans), ordered_(options.schema_order) {
  RegexPool& pool = spec.regexes();
  ByteSet blanks;
  for (const char blank : {' ', '\t', '\n', '\r'}) blanks.insert(static_cast<unsigned char>(blank));
  RegexRef inside = pool.empty();  // after '{' and '[', and before what closes
  RegexRef after = pool.empty();   // after ',' and ':'
  if (options.whitespace == JsonWhitespace::any) {
    inside = after = pool.star(pool.byte_class(blanks));
  } else if (options.whitespace == JsonWhitespace::single) {
    after = pool.optional(pool.byte(' '));
  }
  const auto mark = [&](RegexRef before, char byte, RegexRef behind) {
    return pool.concat(std::array{before, pool.byte(static_cast<unsigned char>(byte)), behind});
  };
  colon_ = mark(inside, ':', after);
  comma_ = spec.add_lexeme(mark(inside, ',', after));
  open_object_ = spec.add_lexeme(mark(pool.empty(), '{', inside));
  close_object_ = spec.add_lexeme(mark(inside, '}', pool.empty()));
  end_object_ = spec.add_lexeme(pool.byte('}'));
  open_array_ = spec.add_lexeme(mark(pool.empty(), '[', inside));
  close_array_ = spec.add_lexeme(mark(inside, ']', pool.empty()));
  end_array_ = spec.add_lexeme(pool.byte(']'));
}

Symbol Emitter::emit(Goal root) {
  for (const auto& [goal, plan] : plans_) {
    if (!plan.productive) continue;
    // Scalars alone are a lexeme.
    const bool plain = plan.arrays.empty() && plan.objects.empty();
    symbols_.emplace(goal, plain ? spec_.add_lexeme(plan.scalars) : spec_.add_nonterminal());
  }
  for (const auto& [goal, symbol] : symbols_) {
    if (!spec_.is_lexeme(symbol)) emit_value(symbol, plans_.at(goal));
  }
  return symbols_.at(root.id);
}

std::optional<Symbol> Emitter::value(Goal goal) const {
  const auto found = symbols_.find(goal.id);
  return found == symbols_.end() ? std::nullopt : std::optional(found->second);
}

void Emitter::emit_value(Symbol symbol, const ValuePlan& plan) {
  if (plan.scalars != spec_.regexes().never()) {
    spec_.add_production(symbol, {spec_.add_lexeme(plan.scalars)});
  }
  for (const ArrayPlan& array : plan.arrays) emit_array(symbol, array);
  for (const ObjectPlan& object : plan.objects) emit_object(symbol, object);
}

void Emitter::emit_object(Symbol symbol, const ObjectPlan& plan) {
  RegexPool& pool = spec_.regexes();
  Bag::Rules rules;
  rules.min_total = std::max(1u, plan.min_members);
  rules.max_total = plan.max_members;
  rules.ordered = ordered_;
  rules.separator = comma_;
  bool may_be_empty = plan.min_members == 0;
  for (const Slot& slot : plan.slots) {
    rules.slots.push_back({slot.min, slot.max});
    if (slot.min > 0) may_be_empty = false;
  }
  const RegexRef quote = pool.byte('"');
  for (const MemberPlan& member : plan.members) {
    const std::optional<Symbol> member_value = value(member.value);
    if (!member_value.has_value()) continue;
    const RegexRef key = pool.concat(std::array{quote, member.key, quote, colon_});
    rules.elements.push_back({{spec_.add_lexeme(key), *member_value}, member.slots});
  }
  if (may_be_empty) spec_.add_production(symbol, {open_object_, end_object_});
  if (const auto members = std::make_shared<Bag>(std::move(rules))->add_to(spec_)) {
    spec_.add_production(symbol, {open_object_, *members, close_object_});
  }
}

void Emitter::emit_array(Symbol symbol, const ArrayPlan& plan) {
  const auto size = static_cast<std::uint32_t>(plan.prefix.size());
  Bag::Rules rules;
  rules.separator = comma_;
  std::uint64_t least = 0;
  for (const ItemPlan& item : plan.rest) {
    least += item.min;
    const std::optional<Symbol> item_value = value(item.value);
    if (item_value.has_value()) {
      rules.elements.push_back({{*item_value}, {static_cast<std::uint32_t>(rules.slots.size())}});
      rules.slots.push_back({item.min, item.max});
    } else if (item.min > 0) {
      return;
    }
  }
  const auto least_items = static_cast<std::uint32_t>(std::min<std::uint64_t>(
      kUnbounded,
      least > 0 ? std::max<std::uint64_t>(plan.min_items, size + least) : plan.min_items));
  std::optional<Symbol> rest;
  if (plan.max_items > size) {
    rules.min_total = std::max(1u, least_items > size ? least_items - size : 0);
    rules.max_total = plan.max_items == kUnbounded ? kUnbounded : plan.max_items - size;
    rest = std::make_shared<Bag>(std::move(rules))->add_to(spec_);
  }
  // How far the prefix goes: to its first item that no value meets, or to the longest array.
  std::uint32_t end = 0;
  while (end < size && end < plan.max_items && value(plan.prefix[end]).has_value()) ++end;
  if (end < size) rest.reset();
  if (least_items > end && !rest.has_value()) return;

  if (least_items == 0) spec_.add_production(symbol, {open_array_, end_array_});
  // From the end: what may stand after so many items.
  std::optional<Symbol> next;
  for (std::uint32_t i = end + 1; i-- > 0;) {
    const Symbol here = i == 0 ? symbol : spec_.add_nonterminal();
    const Symbol before = i == 0 ? open_array_ : comma_;
    if (i > 0 && i >= least_items) spec_.add_production(here, {close_array_});
    if (i < end) {
      spec_.add_production(here, {before, *value(plan.prefix[i]), *next});
    } else if (rest.has_value()) {
      spec_.add_production(here, {before, *rest, close_array_});
    }
    next = here;
  }
}

}  // namespace specdec::grammar
