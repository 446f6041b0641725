#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace specdec {

/// A Jinja template in one spelling, so that templates can be told apart by plain search: no blanks
/// inside {{ }} and {% %}, no comments, no whitespace control, 'single quotes' with escapes
/// resolved, message.content for message['content'].
struct JinjaOutline {
  std::string code;                   // {{...}} and {%...%}, nothing between them
  std::vector<std::string> literals;  // string literals, in order
  /// True when template text outside of tags reaches the output, given trim_blocks and
  /// lstrip_blocks (as Python's transformers sets them). It stands in `code` as {{'text'}}.
  bool has_text = false;
};

/// Never fails: broken Jinja gives an outline that nothing recognises.
JinjaOutline outline_jinja(std::string_view template_text);

}  // namespace specdec
