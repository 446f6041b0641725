#include "sampling/grammar/json_schema/formats.h"

#include <string>
#include <vector>

namespace specdec::grammar {
namespace {

using std::string;

struct Format {
  std::string_view name;
  string pattern;             // of the whole string
  string excluded;            // no match of it anywhere; empty: nothing is excluded
  std::uint32_t longest = 0;  // code points; 0: no limit
  enum Exactness {
    exact,
    some_excluded,  // what is excluded may have the format
    some_more,      // so may any other string
  } exactness = exact;
};

string group(const string& pattern) { return "(?:" + pattern + ")"; }

string date() {  // RFC 3339, full-date
  const string leap_year =
      "(?:\\d\\d(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)";
  return "(?:\\d{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\\d|3[01])|"
         "(?:0[469]|11)-(?:0[1-9]|[12]\\d|30)|02-(?:0[1-9]|1\\d|2[0-8]))|" +
         leap_year + "-02-29)";
}

string time() {  // RFC 3339, full-time; a leap second is known only where the offset is zero
  return "(?:(?:[01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(?:\\.\\d+)?(?:[Zz]|[+-](?:[01]\\d|2[0-3]):[0-5]"
         "\\d)|"
         "23:59:60(?:\\.\\d+)?(?:[Zz]|[+-]00:00))";
}

string duration() {  // RFC 3339, appendix A
  const string clock = "T(?:\\d+H(?:\\d+M(?:\\d+S)?)?|\\d+M(?:\\d+S)?|\\d+S)";
  return "P(?:\\d+W|(?:\\d+Y(?:\\d+M(?:\\d+D)?)?|\\d+M(?:\\d+D)?|\\d+D)" + group(clock) + "?|" +
         clock + ")";
}

const string kOctet = "(?:25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)";

string ipv4() { return group(kOctet + "\\.") + "{3}" + kOctet; }

string ipv6() {  // RFC 4291, section 2.2
  const string h = "[0-9A-Fa-f]{1,4}";
  const string tail = "(?:" + h + ":" + h + "|" + ipv4() + ")";
  // How many groups stand before "::" at most, and what comes after it.
  return "(?:(?:" + h + ":){6}" + tail + "|::(?:" + h + ":){5}" + tail + "|(?:" + h +
         ")?::(?:" + h + ":){4}" + tail + "|(?:(?:" + h + ":){0,1}" + h + ")?::(?:" + h + ":){3}" +
         tail + "|(?:(?:" + h + ":){0,2}" + h + ")?::(?:" + h + ":){2}" + tail + "|(?:(?:" + h +
         ":){0,3}" + h + ")?::" + h + ":" + tail + "|(?:(?:" + h + ":){0,4}" + h + ")?::" + tail +
         "|(?:(?:" + h + ":){0,5}" + h + ")?::" + h + "|(?:(?:" + h + ":){0,6}" + h + ")?::)";
}

const string kLabel = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?";

string hostname() { return kLabel + group("\\." + kLabel) + "*"; }

string email(const string& others) {  // RFC 5321, section 4.1.2; `others`: characters beyond ASCII
  const string atom = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~" + others + "-]+";
  const string quoted = "\"(?:[ !#-\\[\\]-~" + others + "]|\\\\[ -~])*\"";
  const string label = others.empty() ? kLabel
                                      : "[A-Za-z0-9" + others + "](?:[A-Za-z0-9" + others +
                                            "-]{0,61}[A-Za-z0-9" + others + "])?";
  return "(?:" + atom + group("\\." + atom) + "*|" + quoted + ")@(?:" + label +
         group("\\." + label) + "*|\\[" + ipv4() + "\\]|\\[IPv6:" + ipv6() + "\\])";
}

const string kBeyondAscii =
    "\\u00A0-\\uD7FF\\uF900-\\uFDCF\\uFDF0-\\uFFEF\\u{10000}-\\u{1FFFD}\\u{20000}-\\u{2FFFD}"
    "\\u{30000}-\\u{3FFFD}";

/// RFC 3986, appendix A; RFC 3987 with `others`.
struct UriSyntax {
  explicit UriSyntax(const string& others) {
    const string escape = "%[0-9A-Fa-f]{2}";
    const string plain = "A-Za-z0-9._~!$&'()*+,;=\\-" + others;
    const string pchar = "(?:[" + plain + ":@]|" + escape + ")";
    const string user = "(?:[" + plain + ":]|" + escape + ")*@";
    const string host = "(?:\\[(?:" + ipv6() +
                        "|v[0-9A-Fa-f]+\\.[A-Za-z0-9._~!$&'()*+,;=:-]+)\\]|(?:[" + plain + "]|" +
                        escape + ")*)";
    const string authority = "//" + group(user) + "?" + host + "(?::\\d*)?";
    const string segments = group("/" + pchar + "*") + "*";
    const string absolute = "/(?:" + pchar + "+" + segments + ")?";
    end = group("\\?(?:" + pchar + "|[/?])*") + "?" + group("#(?:" + pchar + "|[/?])*") + "?";
    hierarchy = "(?:" + authority + segments + "|" + absolute + "|" + pchar + "+" + segments + "|)";
    const string first = "(?:[" + plain + "@]|" + escape + ")+";  // of a relative path: no colon
    relative = "(?:" + authority + segments + "|" + absolute + "|" + first + segments + "|)";
  }
  string uri() const { return "[A-Za-z][A-Za-z0-9+.-]*:" + hierarchy + end; }
  string reference() const { return "(?:" + uri() + "|" + relative + end + ")"; }

  string hierarchy;
  string relative;
  string end;
};

string uri_template() {  // RFC 6570
  const string name = "(?:[A-Za-z0-9_]|%[0-9A-Fa-f]{2})+";
  const string variable = name + group("\\." + name) + "*(?::[1-9]\\d{0,3}|\\*)?";
  return "(?:[^\\x00-\\x20\"'%<>\\\\^`{|}\\x7F]|%[0-9A-Fa-f]{2}|\\{[+#./;?&=,!@|]?" + variable +
         group("," + variable) + "*\\})*";
}

const string kPointer = "(?:/(?:[^~/]|~[01])*)*";

/// Part of the syntax that all dialects agree on: groups nest three deep, and quantifiers stand
/// behind something that can be repeated.
string regex() {
  const string escape =
      "\\\\(?:[dDwWsSnrtfv.^$*+?()\\[\\]{}|/\\\\-]|x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4})";
  const string item = "(?:[^\\\\\\[\\]^-]|" + escape + ")";
  const string char_class = "\\[\\^?" + item + "(?:" + item + "|\\^)*-?\\]";
  // a-z and the like: escapes and single characters only, in ascending order.
  const string ranges = "\\[\\^?(?:a-z|A-Z|0-9|a-f|A-F|[^\\\\\\[\\]^-]|" + escape + ")+-?\\]";
  string bounds = "\\d{1,3},?|\\d,[1-9]\\d{1,2}|\\d\\d,[1-9]\\d{2}";
  for (char low = '0'; low <= '9'; ++low) {  // as many digits on both sides
    bounds += string("|") + low + ",[" + low + "-9]";
    if (low != '9')
      bounds += string("|[0-") + low + "]\\d,[" + static_cast<char>(low + 1) + "-9]\\d";
  }
  const string quantifier = "(?:[*+?]|\\{(?:" + bounds + ")\\})\\??";
  const string simple =
      "(?:[^\\\\\\[\\](){}|^$*+?]|" + escape + "|" + char_class + "|" + ranges + ")";
  string unit = simple;
  const auto alternatives = [&](const string& of) {
    const string branch = "\\^?" + group(of + group(quantifier) + "?") + "*\\$?";
    return branch + group("\\|" + branch) + "*";
  };
  for (int depth = 0; depth < 3; ++depth) {
    unit = "(?:" + simple + "|\\((?:\\?:)?" + alternatives(unit) + "\\))";
  }
  return alternatives(unit);
}

Format make_format(std::string_view name) {
  if (name == "date") return {name, date(), "^0000"};
  if (name == "time") return {name, time(), ""};
  if (name == "date-time") return {name, date() + "[Tt]" + time(), "^0000"};
  if (name == "duration") return {name, duration(), ""};
  if (name == "email") return {name, email(""), ""};
  if (name == "idn-email") return {name, email(kBeyondAscii), ""};
  // "--" at the third place marks a label of another alphabet, with rules of its own.
  if (name == "hostname") return {name, hostname(), "(?:^|\\.)..--", 253, Format::some_excluded};
  if (name == "host-name") return {name, hostname(), "(?:^|\\.)..--", 253, Format::some_excluded};
  if (name == "idn-hostname")
    return {name, hostname(), "(?:^|\\.)..--", 253, Format::some_excluded};
  if (name == "ipv4" || name == "ip-address") return {name, ipv4(), ""};
  if (name == "ipv6") return {name, ipv6(), ""};
  if (name == "uri") return {name, UriSyntax("").uri(), ""};
  if (name == "uri-reference") return {name, UriSyntax("").reference(), ""};
  if (name == "iri") return {name, UriSyntax(kBeyondAscii).uri(), ""};
  if (name == "iri-reference") return {name, UriSyntax(kBeyondAscii).reference(), ""};
  if (name == "uri-template") return {name, uri_template(), ""};
  if (name == "uuid") {
    return {name, "[0-9A-Fa-f]{8}-(?:[0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}", ""};
  }
  if (name == "json-pointer") return {name, kPointer, ""};
  if (name == "relative-json-pointer") {
    return {name, "(?:0|[1-9]\\d*)(?:#|" + kPointer + ")", ""};
  }
  if (name == "regex") return {name, regex(), "", 0, Format::some_more};
  return {"", "", ""};
}

}  // namespace

std::optional<FormatLanguage> format_language(StringLanguage& strings, RegexPool& pool,
                                              std::string_view name) {
  const Format format = make_format(name);
  if (format.name.empty()) return std::nullopt;
  std::vector<RegexRef> parts = {strings.pattern("^(?:" + format.pattern + ")$", format.name)};
  if (format.longest > 0) parts.push_back(strings.length(0, format.longest));
  FormatLanguage language;
  language.most = format.exactness == Format::some_more ? strings.any() : pool.all_of(parts);
  if (!format.excluded.empty()) {
    parts.push_back(strings.complement(strings.pattern(format.excluded, format.name)));
  }
  language.least = pool.all_of(parts);
  if (format.exactness == Format::exact) language.most = language.least;
  return language;
}

}  // namespace specdec::grammar
