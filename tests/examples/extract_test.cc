// examples/extract_records: a struct's schema, and what it accepts read back into the struct.

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "examples/extract_records/record.h"
#include "specdec/grammar.h"

namespace {

struct Item {
  std::string title;
  int count = 0;
  bool sold = false;
};

const std::vector<extract::Field<Item>> kItem = {
    {"title", &Item::title}, {"count", &Item::count}, {"sold", &Item::sold}};

}  // namespace

TEST_CASE("what a struct's schema accepts is read back into the struct") {
  const specdec::Grammar grammar = specdec::Grammar::json_schema(extract::schema_of(kItem, 2));
  const std::string text =
      R"([{"title":"a \"b\"","count":3,"sold":true},{"title":"c","count":0,"sold":false}])";
  CHECK(grammar.matches(text));
  const std::vector<Item> items = extract::parse_records(kItem, text);
  REQUIRE(items.size() == 2);
  CHECK(items[0].title == "a \"b\"");
  CHECK(items[0].count == 3);
  CHECK(items[0].sold);
  CHECK(items[1].title == "c");
  CHECK_FALSE(items[1].sold);
  for (const char* wrong :
       {"[]", R"([{"title":"a","count":3}])", R"([{"title":"a","count":"3","sold":true}])",
        R"([{"title":"","count":3,"sold":true}])",
        R"([{"title":"a","count":3,"sold":true,"more":1}])"}) {
    CAPTURE(wrong);
    CHECK_FALSE(grammar.matches(wrong));
  }
}
