#include "random_grammars.h"

namespace specdec::testing {
namespace {

template <class... Choices>
std::string pick(std::mt19937_64& random, Choices... choices) {
  const char* list[] = {choices...};
  return list[random() % sizeof...(choices)];
}

std::string quantifier(std::mt19937_64& random) {
  switch (random() % 8) {
    case 0:
      return "*";
    case 1:
      return "+";
    case 2:
      return "?";
    case 3: {
      const auto min = random() % 3;
      return "{" + std::to_string(min) + "," + std::to_string(min + random() % 3) + "}";
    }
    default:
      return "";
  }
}

}  // namespace

std::string random_regex(std::mt19937_64& random, int depth) {
  if (depth == 0 || random() % 5 == 0)
    return pick(random, "a", "b", "c", "[ab]", "[^a]", "[b-c]", "ab", "\\d", ".", "[a-c0-3]", "0");
  switch (random() % 4) {
    case 0:
      return "(" + random_regex(random, depth - 1) + "|" + random_regex(random, depth - 1) + ")";
    case 1:
      return "(" + random_regex(random, depth - 1) + ")" + quantifier(random);
    default:
      return random_regex(random, depth - 1) + random_regex(random, depth - 1);
  }
}

std::string random_gbnf(std::mt19937_64& random) {
  const int num_rules = 1 + static_cast<int>(random() % 5);
  const auto name = [](int rule) { return rule == 0 ? "root" : "r" + std::to_string(rule); };
  std::string text;
  for (int rule = 0; rule < num_rules; ++rule) {
    text += name(rule) + " ::= ";
    const int num_options = 1 + static_cast<int>(random() % 3);
    for (int option = 0; option < num_options; ++option) {
      if (option > 0) text += " | ";
      const int length = static_cast<int>(random() % 4);
      if (length == 0) text += "\"\" ";
      for (int i = 0; i < length; ++i) {
        std::string element;
        switch (random() % 5) {
          case 0:
          case 1:
            element = name(static_cast<int>(random() % static_cast<unsigned>(num_rules)));
            break;
          case 2:
            element = pick(random, "[a-c]", "[^\"\\\\]", "[0-9]", "[ab]", "[ \\n]", ".");
            break;
          case 3:
            element = "(" + pick(random, "\"a\"", "[bc]", "root") + " | \"" +
                      pick(random, "ab", ",", "cab", "0.5", "\\u00e4") + "\")";
            break;
          default:
            element = pick(random, "\"a\"", "\"{\"", "\"}\"", "\"\\\"\"", "\"ab\"", "\",\"",
                           "\": \"", "\"true\"", "\"(\"", "\")\"");
        }
        text += element + quantifier(random) + " ";
      }
    }
    text += "\n";
  }
  return text;
}

}  // namespace specdec::testing
