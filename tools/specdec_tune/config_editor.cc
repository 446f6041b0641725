#include "tools/specdec_tune/config_editor.h"

#include <toml++/toml.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <optional>
#include <vector>

#include "specdec/error.h"

namespace specdec::tune {
namespace {

constexpr std::string_view kMark = "# tuned:";

using Path = std::vector<std::string>;

Path split(std::string_view key) {
  Path parts;
  for (std::size_t dot; (dot = key.find('.')) != std::string_view::npos; key.remove_prefix(dot + 1))
    parts.emplace_back(key.substr(0, dot));
  parts.emplace_back(key);
  return parts;
}

std::string join(std::span<const std::string> parts) {
  std::string text;
  for (const std::string& part : parts) text += (text.empty() ? "" : ".") + part;
  return text;
}

toml::table parse(std::string_view text, std::string_view name) {
  try {
    return toml::parse(text, name);
  } catch (const toml::parse_error& error) {
    throw Error(ErrorCode::invalid_config,
                std::string(name) + ":" + std::to_string(error.source().begin.line) +
                    ": not valid TOML: " + std::string(error.description()));
  }
}

/// One key of one document: where it is, or where it might go.
class KeyEdit {
 public:
  KeyEdit(const std::string& text, const toml::table& document, const Assignment& assignment)
      : text_(text),
        document_(document),
        assignment_(assignment),
        path_(split(assignment.key)),
        newline_(text.find("\r\n") != std::string::npos ? "\r\n" : "\n") {
    table_ = &document;
    while (known_ + 1 < path_.size()) {
      const toml::table* next = (*table_)[path_[known_]].as_table();
      if (next == nullptr) break;
      table_ = next;
      ++known_;
      if (!next->is_inline()) continue;  // dotted keys make tables inside inline ones too
      inline_table_ = next;
      inline_known_ = known_;
    }
  }

  /// Texts that may be what is wanted, the neatest first.
  std::vector<std::string> candidates() const {
    const toml::node* value = known_ + 1 == path_.size() ? table_->get(path_.back()) : nullptr;
    return value != nullptr ? replacements(*value) : additions();
  }

 private:
  std::vector<std::string> replacements(const toml::node& value) const {
    const std::size_t begin = offset(value.source().begin);
    const std::size_t end = offset(value.source().end);
    std::string text = text_;
    text.replace(begin, end - begin, assignment_.value);
    const std::size_t line = line_begin(key_offset(path_.back()));
    std::vector<std::string> results;
    if (inline_table_ == nullptr) {
      std::string commented = text;
      const std::size_t first = marked_lines_above(line);
      commented.replace(first, line - first, comment_line(indent_at(line)));
      results.push_back(std::move(commented));
      if (first != line) {  // unless that was no comment, but part of a text of several lines
        commented = text;
        commented.insert(line, comment_line(indent_at(line)));
        results.push_back(std::move(commented));
      }
    }
    results.push_back(std::move(text));
    return results;
  }

  std::vector<std::string> additions() const {
    const std::span<const std::string> rest = std::span(path_).subspan(known_);
    std::vector<std::string> results;
    if (inline_table_ != nullptr) {
      std::size_t end = offset(inline_table_->source().end) - 1;  // its brace
      while (end > 0 && (text_[end - 1] == ' ' || text_[end - 1] == '\t')) --end;
      results.push_back(inserted(end, (inline_table_->empty() ? " " : ", ") +
                                          join(std::span(path_).subspan(inline_known_)) + " = " +
                                          assignment_.value));
      return results;
    }
    const auto sibling = last_sibling();
    if (rest.size() == 1 && known_ > 0) {
      if (sibling) results.push_back(inserted_line(sibling->end, sibling->prefix, rest));
      const std::size_t header = offset(table_->source().begin);
      if (header < text_.size() && text_[header] == '[')
        results.push_back(inserted_line(header, "", rest));
    }
    if (path_.size() > 1) {
      const std::string section = "[" + join(std::span(path_).first(path_.size() - 1)) + "]" +
                                  newline_ + comment_line("") + path_.back() + " = " +
                                  assignment_.value;
      if (known_ > 0) results.push_back(inserted_after_line(end_of(*table_), newline_ + section));
      results.push_back(inserted_after_line(
          text_.size(),
          (text_.find_first_not_of(" \t\r\n") == std::string::npos ? "" : newline_) + section));
    }
    if (sibling) results.push_back(inserted_line(sibling->end, sibling->prefix, rest));
    results.push_back(
        inserted(0, comment_line("") + assignment_.key + " = " + assignment_.value + newline_));
    return results;
  }

  struct Sibling {
    std::size_t end = 0;  // of its value
    std::string prefix;   // what stands before its name on its line: spaces, "draft.length."
  };
  std::optional<Sibling> last_sibling() const {
    std::optional<Sibling> last;
    for (const auto& [key, value] : *table_) {
      const toml::table* inner = value.as_table();
      if (inner != nullptr && !inner->is_inline()) continue;
      const std::size_t end = offset(value.source().end);
      if (last && last->end > end) continue;
      const std::size_t begin = offset(key.source().begin);
      const std::size_t line = line_begin(begin);
      last = {end, text_.substr(line, begin - line)};
    }
    return last;
  }

  /// The last byte that belongs to a table or anything in it.
  std::size_t end_of(const toml::table& table) const {
    std::size_t end = offset(table.source().begin);
    for (const auto& [key, value] : table) {
      const toml::table* inner = value.as_table();
      end = std::max(end, inner != nullptr && !inner->is_inline() ? end_of(*inner)
                                                                  : offset(value.source().end));
    }
    return end;
  }

  std::string inserted(std::size_t at, const std::string& what) const {
    std::string text = text_;
    return text.insert(at, what);
  }
  /// `what` as lines of their own after the line of `at`.
  std::string inserted_after_line(std::size_t at, const std::string& what) const {
    const std::size_t end = at > 0 && at >= text_.size() ? std::string::npos : text_.find('\n', at);
    if (end != std::string::npos) return inserted(end + 1, what + newline_);
    const bool open = !text_.empty() && text_.back() != '\n';
    return text_ + (open ? newline_ : "") + what + newline_;
  }
  std::string inserted_line(std::size_t at, const std::string& prefix,
                            std::span<const std::string> rest) const {
    const std::string indent = prefix.substr(0, prefix.find_first_not_of(" \t"));
    return inserted_after_line(
        at, comment_line(indent) + prefix + join(rest) + " = " + assignment_.value);
  }

  std::string comment_line(const std::string& indent) const {
    if (assignment_.comment.empty()) return {};
    return indent + std::string(kMark) + " " + assignment_.comment + newline_;
  }

  std::size_t marked_lines_above(std::size_t line) const {
    while (line > 0) {
      const std::size_t above = line_begin(line - 1);
      const std::size_t text = text_.find_first_not_of(" \t", above);
      if (text == std::string::npos || !std::string_view(text_).substr(text).starts_with(kMark))
        break;
      line = above;
    }
    return line;
  }

  std::size_t key_offset(const std::string& name) const {
    for (const auto& [key, value] : *table_)
      if (key.str() == name) return offset(key.source().begin);
    return 0;
  }
  std::size_t line_begin(std::size_t at) const {
    if (at == 0) return 0;
    const std::size_t newline = text_.rfind('\n', at - 1);
    return newline == std::string::npos ? 0 : newline + 1;
  }
  std::string indent_at(std::size_t line) const {
    return text_.substr(line, text_.find_first_not_of(" \t", line) - line);
  }
  /// toml++ counts lines and columns from 1, columns in code points.
  std::size_t offset(const toml::source_position& position) const {
    std::size_t at = 0;
    for (toml::source_index line = 1; line < position.line; ++line) {
      const std::size_t newline = text_.find('\n', at);
      if (newline == std::string::npos) return text_.size();
      at = newline + 1;
    }
    const auto continues = [&](std::size_t i) {
      return (static_cast<unsigned char>(text_[i]) & 0xC0U) == 0x80U;
    };
    for (toml::source_index column = 1; column < position.column && at < text_.size(); ++column) {
      ++at;
      while (at < text_.size() && continues(at)) ++at;
    }
    return at;
  }

  const std::string& text_;
  const toml::table& document_;
  const Assignment& assignment_;
  Path path_;
  std::string newline_;
  const toml::table* table_ = nullptr;         // the innermost table on the path that exists
  std::size_t known_ = 0;                      // parts of the path that lead to it
  const toml::table* inline_table_ = nullptr;  // the innermost { } on the path
  std::size_t inline_known_ = 0;               // parts that lead to it
};

/// What the document should be after the edit; nothing when a part of the path is no table.
std::optional<toml::table> edited_document(toml::table document, const Assignment& assignment,
                                           const toml::table& value) {
  const Path path = split(assignment.key);
  toml::table* table = &document;
  for (const std::string& part : std::span(path).first(path.size() - 1)) {
    if (!table->contains(part)) table->insert(part, toml::table{});
    table = (*table)[part].as_table();
    if (table == nullptr) return std::nullopt;
  }
  value.get("value")->visit([&](const auto& node) { table->insert_or_assign(path.back(), node); });
  return document;
}

std::string edit_one(const std::string& text, const Assignment& assignment, std::string_view name) {
  const toml::table document = parse(text, name);
  const toml::table value = parse("value = " + assignment.value, assignment.key);
  if (const auto wanted = edited_document(document, assignment, value)) {
    for (const std::string& candidate : KeyEdit(text, document, assignment).candidates()) {
      try {
        if (toml::parse(candidate) == *wanted) return candidate;
      } catch (const toml::parse_error&) {  // the next one may do
      }
    }
  }
  throw Error(ErrorCode::invalid_config, std::string(name) + ": " + assignment.key +
                                             " cannot be set by an edit here; set it to " +
                                             assignment.value + " by hand");
}

}  // namespace

std::string edit_config(std::string_view text, std::span<const Assignment> assignments,
                        std::string_view name) {
  std::string edited(text);
  for (const Assignment& assignment : assignments) edited = edit_one(edited, assignment, name);
  return edited;
}

std::string toml_string(std::string_view text) {
  constexpr char kHex[] = "0123456789ABCDEF";
  std::string quoted = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\')
      quoted += {'\\', c};
    else if (byte < 0x20 || byte == 0x7F)
      quoted += {'\\', 'u', '0', '0', kHex[byte >> 4U], kHex[byte & 15U]};
    else
      quoted += c;
  }
  return quoted + '"';
}

void replace_file(const std::string& path, std::string_view text) {
  namespace fs = std::filesystem;
  std::error_code error;
  fs::path target = fs::weakly_canonical(path, error);
  if (error) target = path;
  const fs::path part = target.string() + ".part";
  std::ofstream file(part, std::ios::binary | std::ios::trunc);
  file.write(text.data(), static_cast<std::streamsize>(text.size()));
  file.close();
  const fs::perms mode = fs::status(target, error).permissions();
  if (file && !error) fs::permissions(part, mode, error);
  error.clear();
  if (file) fs::rename(part, target, error);
  if (file && !error) return;
  fs::remove(part, error);
  throw Error(ErrorCode::io, "cannot write " + path);
}

}  // namespace specdec::tune
