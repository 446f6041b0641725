#pragma once

#include <map>
#include <optional>

#include "sampling/grammar/grammar_spec.h"
#include "sampling/grammar/json_schema/json_schema.h"
#include "sampling/grammar/json_schema/plan.h"

namespace specdec::grammar {

/// Writes plans as productions. A value begins and ends with its own first and last byte: blanks
/// stand after '{', '[', ':' and before and after ',', and before '}' and ']' where something
/// precedes them, so that each text has one reading.
class Emitter {
 public:
  Emitter(GrammarSpec& spec, const std::map<std::uint32_t, ValuePlan>& plans,
          const JsonSchemaOptions& options);

  /// Everything that `root` leads to. `root` is productive.
  Symbol emit(Goal root);

 private:
  std::optional<Symbol> value(Goal goal) const;
  void emit_value(Symbol symbol, const ValuePlan& plan);
  void emit_object(Symbol symbol, const ObjectPlan& plan);
  void emit_array(Symbol symbol, const ArrayPlan& plan);

  GrammarSpec& spec_;
  const std::map<std::uint32_t, ValuePlan>& plans_;
  bool ordered_;
  RegexRef colon_;
  Symbol comma_;
  Symbol open_object_;
  Symbol close_object_;
  Symbol end_object_;  // '}' right after '{'
  Symbol open_array_;
  Symbol close_array_;
  Symbol end_array_;
  std::map<std::uint32_t, Symbol> symbols_;  // by goal; productive ones
};

}  // namespace specdec::grammar
