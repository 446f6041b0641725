#include "sampling/grammar/json_schema/json_schema.h"

#include "sampling/grammar/json_schema/emit.h"
#include "sampling/grammar/json_schema/plan.h"
#include "sampling/grammar/json_schema/schema_shapes.h"
#include "specdec/error.h"

namespace specdec::grammar {
namespace {

/// What there is anywhere in the documents decides how values are described.
struct Survey {
  bool huge_number = false;
  bool tiny_number = false;
  bool unevaluated = false;
  bool operator==(const Survey&) const = default;
};

Survey survey_of(const SchemaDocuments& documents) {
  return {documents.has_huge_number(), documents.has_tiny_number(), documents.has_unevaluated()};
}

Symbol build(GrammarSpec& spec, SchemaDocuments& documents, const JsonSchemaOptions& options,
             std::vector<std::string>& unenforced) {
  const Survey survey = survey_of(documents);
  RegexPool& pool = spec.regexes();
  ConditionTable conditions;
  StringLanguage strings(pool);
  NumberLanguage numbers(pool, {!survey.huge_number, !survey.tiny_number});
  ShapeAlgebra algebra(pool, conditions, strings, numbers, survey.unevaluated,
                       spec.limits().emptiness_fuel * 10);
  SchemaShapes shapes(documents, conditions, pool, strings, numbers, algebra,
                      options.assert_formats);
  Planner planner(shapes, conditions, pool, strings, algebra, documents.root(), options.strict);
  const Goal root = conditions.goal(shapes.condition(documents.root(), 0));
  const auto& plans = planner.plan_all(root);
  const auto found = plans.find(root.id);
  if (found == plans.end() || !found->second.productive) throw UnsatisfiableSchema();
  unenforced.assign(shapes.unenforced().begin(), shapes.unenforced().end());
  unenforced.insert(unenforced.end(), planner.unenforced().begin(), planner.unenforced().end());
  return Emitter(spec, plans, options).emit(root);
}

}  // namespace

Symbol add_json_schema(GrammarSpec& spec, std::string_view schema, const JsonSchemaOptions& options,
                       std::vector<std::string>& unenforced) {
  JsonValue root = parse_json_value(schema, "json schema", options.limits);
  if (!root.is_object() && !root.is_boolean()) {
    throw Error(ErrorCode::invalid_argument, "json schema: neither an object nor true or false");
  }
  SchemaDocuments documents(std::move(root), options.draft, options.loader);
  for (;;) {
    const Survey before = survey_of(documents);
    std::vector<std::string> notes;
    const Symbol symbol = build(spec, documents, options, notes);
    // A document that was loaded on the way may change what has to be described.
    if (survey_of(documents) != before) continue;
    unenforced.insert(unenforced.end(), notes.begin(), notes.end());
    return symbol;
  }
}

JsonSchemaGrammar compile_json_schema(std::string_view schema, const JsonSchemaOptions& options,
                                      const GrammarLimits& limits) {
  JsonSchemaGrammar grammar{GrammarSpec(limits), {}};
  {
    const RegexPool::Budget budget = grammar.spec.budget();
    grammar.spec.set_start(add_json_schema(grammar.spec, schema, options, grammar.unenforced));
  }
  return grammar;
}

JsonSchemaGrammar compile_any_json(const JsonSchemaOptions& options, const GrammarLimits& limits) {
  return compile_json_schema("true", options, limits);
}

}  // namespace specdec::grammar
