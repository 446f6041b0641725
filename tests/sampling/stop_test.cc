#include "sampling/stop.h"

#include <doctest/doctest.h>

#include <optional>
#include <random>

using namespace specdec;

namespace {

// The definition: the match that ends first, of those the longest.
struct Match {
  std::size_t begin = 0;
  std::size_t end = 0;
};
std::optional<Match> first_match(const std::string& text, const std::vector<std::string>& stops) {
  for (std::size_t end = 1; end <= text.size(); ++end) {
    std::size_t longest = 0;
    for (const std::string& stop : stops) {
      if (!stop.empty() && stop.size() <= end &&
          text.compare(end - stop.size(), stop.size(), stop) == 0) {
        longest = std::max(longest, stop.size());
      }
    }
    if (longest > 0) return Match{end - longest, end};
  }
  return std::nullopt;
}

// The longest end of `text` that may still grow into a stop string.
std::size_t may_grow(const std::string& text, const std::vector<std::string>& stops) {
  for (std::size_t length = text.size(); length > 0; --length) {
    for (const std::string& stop : stops) {
      if (stop.size() > length &&
          text.compare(text.size() - length, length, stop, 0, length) == 0) {
        return length;
      }
    }
  }
  return 0;
}

}  // namespace

TEST_CASE("stop strings over random texts and chunk borders") {
  std::mt19937 random(11);
  const auto below = [&](std::size_t n) { return random() % n; };
  int matches = 0;
  for (int round = 0; round < 20000; ++round) {
    const std::size_t letters = 1 + below(3);
    const auto word = [&](std::size_t most) {
      std::string result(below(most + 1), 'a');
      for (char& c : result) c = static_cast<char>('a' + below(letters));
      return result;
    };
    std::vector<std::string> stops(below(5));
    for (std::string& stop : stops) stop = word(6);
    const std::string text = word(40);
    const std::optional<Match> expected = first_match(text, stops);

    StopMatcher matcher(stops);
    std::string visible;
    std::size_t fed = 0;
    bool done = false;
    while (fed < text.size() && !done) {
      const std::size_t size = std::min(text.size() - fed, below(5));
      done = matcher.feed(std::string_view(text).substr(fed, size), visible);
      fed += size;
      const std::size_t seen = done ? expected->begin : fed;
      if (!done) {
        // Exactly what may be shown is shown: no later, and no prefix of a stop string ever.
        const std::string so_far = text.substr(0, seen);
        REQUIRE(visible == so_far.substr(0, so_far.size() - may_grow(so_far, stops)));
      }
    }
    REQUIRE(done == expected.has_value());
    REQUIRE(matcher.matched() == done);
    if (done) {
      ++matches;
      REQUIRE(visible == text.substr(0, expected->begin));
      REQUIRE(fed >= expected->end);
      REQUIRE(matcher.feed("more text", visible));
      matcher.flush(visible);
      REQUIRE(visible == text.substr(0, expected->begin));
    } else {
      matcher.flush(visible);
      REQUIRE(visible == text);
    }
  }
  CHECK(matches > 5000);
}

TEST_CASE("the longest of the stop strings that end first wins") {
  StopMatcher matcher({"c", "abc", "bc"});
  std::string visible;
  CHECK(matcher.feed("xxabc", visible));
  CHECK(visible == "xx");
}

TEST_CASE("stop strings may hold any byte, and empty ones are ignored") {
  StopMatcher matcher({"", std::string("\0\xff", 2)});
  std::string visible;
  CHECK_FALSE(matcher.feed(std::string_view("a\0", 2), visible));
  CHECK(visible == "a");
  CHECK(matcher.feed("\xff", visible));
  CHECK(visible == "a");

  StopMatcher none;
  std::string text;
  CHECK_FALSE(none.feed("everything", text));
  CHECK(text == "everything");
}

TEST_CASE("a matcher can be copied and moved in mid text") {
  StopMatcher matcher({"END"});
  std::string visible;
  CHECK_FALSE(matcher.feed("text EN", visible));
  StopMatcher copy = matcher;
  CHECK(copy.feed("D", visible));
  CHECK_FALSE(matcher.feed("!", visible));
  CHECK(visible == "text EN!");
}
