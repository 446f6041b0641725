#include "sampling/grammar/json_schema/string_language.h"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "sampling/grammar/json_schema/formats.h"
#include "sampling/grammar/json_schema/json_value.h"

using namespace specdec::grammar;

namespace {

std::string body(std::string_view text, bool ascii_only) {
  const std::string quoted = quote_json(text, ascii_only);
  return quoted.substr(1, quoted.size() - 2);
}

const std::vector<std::string> kStrings = {"",
                                           "a",
                                           "plain text",
                                           "quote\"d",
                                           "back\\slash",
                                           "line\nbreak\ttab",
                                           std::string("\x01\x1f\x7f"),
                                           "\xC3\xA9",
                                           "\xE2\x82\xAC 5",
                                           "\xF0\x9F\x92\xA9",
                                           "\xEF\xBF\xBF",
                                           "\xF4\x8F\xBF\xBF",
                                           "/path/x"};

}  // namespace

TEST_CASE("a literal has the texts that decode to it") {
  RegexPool pool;
  StringLanguage strings(pool);
  for (const std::string& wanted : kStrings) {
    const RegexRef literal = strings.literal(wanted);
    const RegexRef others = strings.complement(literal);
    for (const std::string& other : kStrings) {
      for (const bool ascii_only : {false, true}) {
        const std::string text = body(other, ascii_only);
        CAPTURE(text);
        CHECK(pool.matches(literal, text) == (wanted == other));
        CHECK(pool.matches(others, text) == (wanted != other));
        CHECK(pool.matches(strings.any(), text));
      }
    }
  }
  for (const char* text : {"\"", "\\", "\n", "\\x", "\\u12", "\\ud800", "\\udc00x", "\xC3"})
    CHECK(!pool.matches(strings.any(), text));
}

TEST_CASE("lengths count code points") {
  RegexPool pool;
  StringLanguage strings(pool);
  const std::string astral = "\xF0\x9F\x92\xA9\xF0\x9F\x92\xA9";  // two code points
  for (const bool ascii_only : {false, true}) {
    CHECK(pool.matches(strings.length(2, 2), body(astral, ascii_only)));
    CHECK(!pool.matches(strings.length(3, std::nullopt), body(astral, ascii_only)));
    CHECK(!pool.matches(strings.length(0, 1), body(astral, ascii_only)));
  }
  // Not expanded.
  const RegexRef bounded = strings.length(1, 100'000);
  CHECK(pool.matches(bounded, std::string(1000, 'x')));
  CHECK(!pool.matches(bounded, ""));
}

TEST_CASE("patterns look at the decoded string") {
  RegexPool pool;
  StringLanguage strings(pool);
  CHECK(pool.matches(strings.pattern("^a\"b$", "test"), "a\\\"b"));
  CHECK(pool.matches(strings.pattern("\\n", "test"), "x\\ny"));
  CHECK(!pool.matches(strings.pattern("^.$", "test"), "\\n"));
  CHECK(pool.matches(strings.pattern("^\xC3\xA9$", "test"), "\\u00e9"));
  CHECK(pool.matches(strings.pattern("\\d", "test"), "abc7def"));
}

TEST_CASE("formats") {
  struct Row {
    const char* format;
    std::vector<const char*> valid;
    std::vector<const char*> invalid;
  };
  const Row rows[] = {
      {"date",
       {"2024-02-29", "2000-02-29", "1963-06-19", "0001-12-31"},
       {"2023-02-29", "1900-02-29", "2020-13-01", "2020-04-31", "0000-01-01", "20-1-1",
        "2020-01-01Z"}},
      {"time",
       {"08:30:06Z", "23:59:60Z", "08:30:06.283185+05:30", "00:00:00z"},
       {"24:00:00Z", "08:60:06Z", "08:30:06", "08:30:06+24:00", "22:59:60Z"}},
      {"date-time",
       {"1963-06-19T08:30:06.283185Z", "1937-01-01t12:00:27.87+00:20"},
       {"1963-06-19T08:30:06", "1990-02-31T15:59:59Z", "2013-350T01:01:01"}},
      {"duration",
       {"P4DT12H30M5S", "P1Y", "PT36H", "P4W"},
       {"P", "P1YT", "PT1D", "P2D1Y", "4DT", "P1"}},
      {"email",
       {"joe.bloggs@example.com", "te~st@example.com", "\\\"joe b\\\"@example.com",
        "a@[127.0.0.1]"},
       {"2962", ".test@example.com", "te..st@example.com", "joe@", "a b@example.com"}},
      {"hostname", {"www.example.com", "a", "1host"}, {"-a", "a-", "a_b", "a..b", "", "a.", "x.."}},
      {"ipv4",
       {"192.168.0.1", "0.0.0.0", "255.255.255.255"},
       {"256.1.1.1", "1.2.3", "01.2.3.4", "1.2.3.4.5"}},
      {"ipv6",
       {"::1", "::", "12:34:56:78::", "1:2:3:4:5:6:7:8", "::ffff:192.168.0.1", "1::8"},
       {"12345::", "1:2:3:4:5:6:7", "1::2::3", ":1", "::1%eth0", "1:2:3:4:5:6:7:8:9", "fe80:"}},
      {"uri",
       {"http://foo.bar/?baz=qux#quux", "urn:oasis:names", "mailto:a@b.c", "ftp://[::1]:21/x",
        "a:"},
       {"//foo.bar", "/abc", "http:// x", "bar,:baz", "http://foo.bar/?q=Test%20URL-encoded stuff",
        "a b:c"}},
      {"uri-reference",
       {"/abc", "//foo.bar/?x", "#frag", "", "a/b:c"},
       {"\\\\\\\\WIN", "#fr\\\\ag", "a b"}},
      {"uuid",
       {"2EB8AA08-AA98-11EA-B4AA-73B441D16380"},
       {"2eb8aa08-aa98-11ea-b4aa-73b441d1638", "x"}},
      {"json-pointer", {"", "/foo/0", "/a~1b", "/"}, {"foo", "/~2", "/~"}},
      {"relative-json-pointer", {"1", "0#", "120/foo/bar"}, {"-1", "/foo", "01", "0##"}},
      {"uri-template", {"http://example.com/{term:1}/{term}", "{?x,y}"}, {"http://x/{term"}},
      {"regex",
       {"^a+$", "([abc])+\\\\s+$", "x{2,12}", "(?:a|b)*"},
       {"^(abc]", "*a", "a{3,2}", "[b-a]", "("}}};
  RegexPool pool;
  StringLanguage strings(pool);
  for (const Row& row : rows) {
    CAPTURE(row.format);
    const auto language = format_language(strings, pool, row.format);
    REQUIRE(language.has_value());
    for (const char* text : row.valid) {
      CAPTURE(text);
      CHECK(pool.matches(language->least, text));
      CHECK(pool.matches(language->most, text));
    }
    for (const char* text : row.invalid) {
      CAPTURE(text);
      CHECK(!pool.matches(language->least, text));
    }
  }
  CHECK(!format_language(strings, pool, "no such format"));
}
