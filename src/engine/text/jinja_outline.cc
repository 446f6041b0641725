#include "engine/text/jinja_outline.h"

#include <algorithm>
#include <cctype>

namespace specdec {
namespace {

constexpr std::string_view kBlank = " \t\r\n";

struct Tag {
  std::size_t begin = 0, end = 0;  // in the template, delimiters included
  char kind = 0;                   // '{' expression, '%' statement, '#' comment
};

// The end of a tag's inside: its closing delimiter, not in a string literal. npos: there is none.
std::size_t find_close(std::string_view jinja, std::size_t from, char kind) {
  const char close[2] = {kind == '{' ? '}' : kind, '}'};
  for (std::size_t at = from; at + 1 < jinja.size(); ++at) {
    if (jinja[at] == close[0] && jinja[at + 1] == close[1]) return at;
    if (kind == '#' || (jinja[at] != '\'' && jinja[at] != '"')) continue;
    const char quote = jinja[at];
    for (++at; at < jinja.size() && jinja[at] != quote; ++at) at += jinja[at] == '\\';
  }
  return std::string_view::npos;
}

Tag next_tag(std::string_view jinja, std::size_t from) {
  for (std::size_t at = from; (at = jinja.find('{', at)) != std::string_view::npos; ++at) {
    const char kind = at + 1 < jinja.size() ? jinja[at + 1] : '\0';
    if (kind != '{' && kind != '%' && kind != '#') continue;
    const std::size_t close = find_close(jinja, at + 2, kind);
    if (close == std::string_view::npos) break;
    return {at, close + 2, kind};
  }
  return {jinja.size(), jinja.size(), 0};
}

char resolved_escape(char c) { return c == 'n' ? '\n' : c == 't' ? '\t' : c == 'r' ? '\r' : c; }

void append_inside(std::string_view inside, JinjaOutline& outline) {
  for (std::size_t at = 0; at < inside.size(); ++at) {
    const char quote = inside[at];
    if (quote != '\'' && quote != '"') {
      // A blank between words stays, as one.
      const bool word = !outline.code.empty() &&
                        (std::isalnum(static_cast<unsigned char>(outline.code.back())) != 0 ||
                         outline.code.back() == '_');
      if (kBlank.find(quote) == std::string_view::npos) {
        outline.code.push_back(quote);
      } else if (const std::size_t next = inside.find_first_not_of(kBlank, at);
                 word && next != std::string_view::npos &&
                 (std::isalnum(static_cast<unsigned char>(inside[next])) != 0 ||
                  inside[next] == '_')) {
        outline.code.push_back(' ');
        at = next - 1;
      }
      continue;
    }
    std::string literal;
    for (++at; at < inside.size() && inside[at] != quote; ++at) {
      const bool escape = inside[at] == '\\' && at + 1 < inside.size();
      if (escape) ++at;
      literal.push_back(escape ? resolved_escape(inside[at]) : inside[at]);
    }
    outline.code += "'" + literal + "'";
    outline.literals.push_back(std::move(literal));
  }
}

// What of the text between two tags is output (Jinja, "Whitespace Control").
std::string_view output_text(std::string_view jinja, const Tag& before, const Tag& after) {
  std::string_view text = jinja.substr(before.end, after.begin - before.end);
  if (before.kind != 0 && jinja[before.end - 3] == '-') {
    text.remove_prefix(std::min(text.find_first_not_of(kBlank), text.size()));
  } else if (before.kind == '%' || before.kind == '#') {
    if (text.starts_with('\n')) text.remove_prefix(1);
  }
  if (after.kind != 0 && jinja[after.begin + 2] == '-') {
    text = text.substr(0, text.find_last_not_of(kBlank) + 1);
  } else if (after.kind == '%' || after.kind == '#') {
    // A tag that is first on its line.
    const std::string_view whole = jinja.substr(before.end, after.begin - before.end);
    const std::size_t last = whole.find_last_not_of(" \t");
    const bool first = last == std::string_view::npos ? before.kind == 0 : whole[last] == '\n';
    if (first) text = text.substr(0, text.find_last_not_of(" \t") + 1);
  }
  if (after.kind == 0 && text.ends_with('\n')) text.remove_suffix(1);  // keep_trailing_newline off
  return text;
}

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  std::string result;
  std::size_t begin = 0;
  for (std::size_t at = 0; (at = text.find(from, begin)) != std::string::npos;) {
    result.append(text, begin, at - begin).append(to);
    begin = at + from.size();
  }
  result.append(text, begin);
  text = std::move(result);
}

}  // namespace

JinjaOutline outline_jinja(std::string_view template_text) {
  std::string jinja(template_text);  // Jinja reads every kind of line end as \n
  replace_all(jinja, "\r\n", "\n");
  replace_all(jinja, "\r", "\n");
  JinjaOutline outline;
  Tag before;
  while (true) {
    const Tag tag = next_tag(jinja, before.end);
    const std::string_view text = output_text(jinja, before, tag);
    if (!text.empty()) {
      outline.has_text = true;
      outline.code.append("{{'").append(text).append("'}}");
    }
    if (tag.kind == 0) break;
    before = tag;
    if (tag.kind == '#') continue;
    std::string_view inside =
        std::string_view(jinja).substr(tag.begin + 2, tag.end - tag.begin - 4);
    if (inside.starts_with('-') || inside.starts_with('+')) inside.remove_prefix(1);
    if (inside.ends_with('-') || inside.ends_with('+')) inside.remove_suffix(1);
    outline.code += tag.kind == '{' ? "{{" : "{%";
    append_inside(inside, outline);
    outline.code += tag.kind == '{' ? "}}" : "%}";
  }
  replace_all(outline.code, "['content']", ".content");
  replace_all(outline.code, "['role']", ".role");
  return outline;
}

}  // namespace specdec
