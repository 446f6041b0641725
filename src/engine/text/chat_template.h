#pragma once

#include <span>
#include <string>
#include <string_view>

#include "specdec/request.h"

namespace specdec {

struct JinjaOutline;

/// A model's chat template. The Jinja text is recognised, not run: ChatML, Llama 3 (and 3.1, 3.2),
/// Zephyr and Mistral, each with the variations that published models have. What is rendered is
/// what Jinja renders under Python's transformers (trim_blocks, lstrip_blocks) without tools.
class ChatTemplate {
 public:
  ChatTemplate() = default;
  /// Never throws for an unknown template: render() does. `bos` and `eos` are the texts of the
  /// tokens that templates call bos_token and eos_token.
  ChatTemplate(std::string_view jinja, std::string bos, std::string eos);

  /// Throws Error(unsupported) for an unknown template or none, Error(invalid_argument) for an
  /// empty conversation, a role other than system, user, assistant, or an order of roles that the
  /// template refuses.
  std::string render(std::span<const ChatMessage> messages, bool add_generation_prompt) const;

 private:
  enum class Family { none, unknown, chatml, llama3, zephyr, mistral };

  void recognise_chatml(const JinjaOutline& outline);
  void recognise_llama3(const JinjaOutline& outline);
  void recognise_zephyr(const JinjaOutline& outline);
  void recognise_mistral(const JinjaOutline& outline);
  std::string render_chatml(std::span<const ChatMessage> messages) const;
  std::string render_llama3(std::span<const ChatMessage> messages) const;
  std::string render_zephyr(std::span<const ChatMessage> messages) const;
  std::string render_mistral(std::span<const ChatMessage> messages) const;
  std::string content(const ChatMessage& message) const;
  std::string content_code() const;  // how the template writes it

  Family family_ = Family::none;
  std::string bos_;  // empty where the template writes none
  std::string eos_;
  bool trim_ = false;            // content | trim
  bool open_last_turn_ = false;  // ChatML: without a generation prompt the last turn stays open
  bool always_prompts_ = false;  // the generation prompt does not depend on the argument
  std::string default_system_;   // ChatML: the system turn of a conversation without one
  std::string system_preamble_;  // Llama 3.1: what the system turn begins with; it is always there
  bool takes_system_ = true;     // Mistral
  bool system_in_last_turn_ = false;  // Mistral: the system text joins the last user turn
  std::string instruction_begin_, instruction_end_, answer_begin_, answer_end_;  // Mistral
};

}  // namespace specdec
