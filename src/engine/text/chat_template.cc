#include "engine/text/chat_template.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "engine/text/utf8.h"
#include "specdec/error.h"

namespace specdec {
namespace {

constexpr std::string_view kWhatToDo =
    "; render the prompt yourself and pass it as Request::prompt (or prompt_tokens)";

// The string literals inside the template's {{ }} and {% %}, with their escapes resolved.
std::vector<std::string> literals(std::string_view jinja) {
  std::vector<std::string> found;
  for (std::size_t at = 0; at + 1 < jinja.size();) {
    const std::string_view open = jinja.substr(at, 2);
    if (open == "{#") {
      at = std::min(jinja.find("#}", at), jinja.size());
      continue;
    }
    if (open != "{{" && open != "{%") {
      ++at;
      continue;
    }
    const std::string_view close = open == "{{" ? "}}" : "%}";
    for (at += 2; at < jinja.size() && jinja.substr(at, 2) != close; ++at) {
      const char quote = jinja[at];
      if (quote != '\'' && quote != '"') continue;
      std::string text;
      for (++at; at < jinja.size() && jinja[at] != quote; ++at) {
        if (jinja[at] != '\\' || at + 1 == jinja.size()) {
          text.push_back(jinja[at]);
          continue;
        }
        ++at;
        if (jinja[at] == 'n')
          text.push_back('\n');
        else if (jinja[at] == 't')
          text.push_back('\t');
        else
          text.push_back(jinja[at]);
      }
      found.push_back(std::move(text));
    }
  }
  return found;
}

bool has(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

// The template without spaces and with one kind of quote, so that formatting does not matter.
std::string squeezed(std::string_view jinja) {
  std::string text;
  for (const char c : jinja) {
    if (c != ' ' && c != '\n' && c != '\t' && c != '\r') text.push_back(c == '"' ? '\'' : c);
  }
  // message['content'] and message.content are one.
  for (const std::string_view key : {"content", "role"}) {
    const std::string subscript = "['" + std::string(key) + "']";
    for (std::size_t at = 0; (at = text.find(subscript, at)) != std::string::npos;) {
      text.replace(at, subscript.size(), "." + std::string(key));
    }
  }
  return text;
}

// Python's str.isspace().
bool is_python_space(char32_t c) {
  return (c >= 9 && c <= 13) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

// str.strip(), which Jinja's trim filter calls.
std::string_view stripped(std::string_view text) {
  std::size_t begin = text.size(), end = 0;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t length = std::max<std::size_t>(1, utf8_sequence_length(text.substr(at)));
    if (!is_python_space(utf8_code_point(text.substr(at, length)))) {
      begin = std::min(begin, at);
      end = at + length;
    }
    at += length;
  }
  return begin < end ? text.substr(begin, end - begin) : std::string_view();
}

[[noreturn]] void refuse(const std::string& what) {
  throw Error(ErrorCode::invalid_argument, "chat template: " + what);
}

}  // namespace

ChatTemplate::ChatTemplate(std::string_view jinja, std::string bos, std::string eos)
    : bos_(std::move(bos)), eos_(std::move(eos)) {
  if (jinja.empty()) return;
  family_ = Family::unknown;
  // A template with a marker of something that changes plain turns too is not one of the four.
  for (const std::string_view marker : {"think", "<<SYS>>", "[SYSTEM_PROMPT]", "{%macro"}) {
    if (has(squeezed(jinja), marker)) return;
  }
  const std::string squeezed_jinja = squeezed(jinja);
  if (!has(squeezed_jinja, "bos_token")) bos_.clear();
  trim_ = has(squeezed_jinja, "content|trim") || has(squeezed_jinja, "content.strip()");
  if (has(jinja, "<|im_start|>"))
    recognise_chatml(jinja);
  else if (has(jinja, "<|start_header_id|>"))
    recognise_llama3(jinja);
  else if (has(jinja, "<|user|>"))
    recognise_zephyr(jinja);
  else if (has(jinja, "[INST]"))
    recognise_mistral(jinja);
}

void ChatTemplate::recognise_chatml(std::string_view jinja) {
  if (!has(jinja, "<|im_end|>") || has(jinja, "<|im_sep|>")) return;
  constexpr std::string_view kSystem = "<|im_start|>system\n";
  for (const std::string& literal : literals(jinja)) {
    const std::size_t begin = literal.find(kSystem);
    const std::size_t end = literal.find("<|im_end|>", begin == std::string::npos ? 0 : begin);
    if (begin == std::string::npos || end == std::string::npos) continue;
    if (begin != 0 || literal.substr(end) != "<|im_end|>\n") return;
    if (!default_system_.empty() && default_system_ != literal) return;
    default_system_ = literal;
  }
  const std::string text = squeezed(jinja);
  if (!has(text, "add_generation_prompt")) return;
  open_last_turn_ = has(text, "(loop.lastandadd_generation_prompt)ornotloop.last");
  family_ = Family::chatml;
}

void ChatTemplate::recognise_llama3(std::string_view jinja) {
  if (!has(jinja, "<|end_header_id|>") || !has(jinja, "<|eot_id|>")) return;
  const std::string text = squeezed(jinja);
  always_prompts_ = !has(text, "add_generation_prompt");
  if (has(text, "CuttingKnowledgeDate")) {
    // Llama 3.2 asks for the day where it can; the same request must give the same tokens tomorrow,
    // so it gets the date that the template itself falls back to, as 3.1 does.
    constexpr std::string_view kDate = "date_string='26Jul2024'";
    if (!has(text, "CuttingKnowledgeDate:December2023") &&
        !has(text, "CuttingKnowledgeDate:December2022")) {
      return;
    }
    if (!has(text, kDate) && !has(text, "date_string=\"26Jul2024\"")) return;
    system_preamble_ = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n";
  }
  family_ = Family::llama3;
}

void ChatTemplate::recognise_zephyr(std::string_view jinja) {
  if (!has(jinja, "<|assistant|>") || !has(jinja, "eos_token")) return;
  family_ = Family::zephyr;
}

void ChatTemplate::recognise_mistral(std::string_view jinja) {
  const std::string text = squeezed(jinja);
  if (!has(jinja, "[/INST]") || !has(text, "eos_token")) return;
  for (const std::string& literal : literals(jinja)) {
    if (has(literal, "[INST]")) instruction_begin_ = literal;
    if (has(literal, "[/INST]")) instruction_end_ = literal;
  }
  family_ = Family::mistral;
}

std::string ChatTemplate::content(const ChatMessage& message) const {
  return std::string(trim_ ? stripped(message.content) : std::string_view(message.content));
}

std::string ChatTemplate::render(std::span<const ChatMessage> messages,
                                 bool add_generation_prompt) const {
  if (family_ == Family::none || family_ == Family::unknown) {
    throw Error(
        ErrorCode::unsupported,
        (family_ == Family::none
             ? std::string("the model has no chat template")
             : std::string("the model's chat template is not one that specdec knows (ChatML, "
                           "Llama 3, Zephyr, Mistral)")) +
            std::string(kWhatToDo));
  }
  if (messages.empty()) refuse("a conversation needs at least one message");
  for (const ChatMessage& message : messages) {
    if (message.role != "system" && message.role != "user" && message.role != "assistant") {
      refuse("role \"" + message.role + "\" is not one of system, user, assistant");
    }
  }
  const bool prompt = add_generation_prompt || always_prompts_;
  switch (family_) {
    case Family::chatml: {
      std::string text = render_chatml(messages);
      if (prompt) return text + "<|im_start|>assistant\n";
      if (open_last_turn_) text.resize(text.size() - std::string_view("<|im_end|>\n").size());
      return text;
    }
    case Family::llama3:
      return render_llama3(messages) +
             (prompt ? "<|start_header_id|>assistant<|end_header_id|>\n\n" : "");
    case Family::zephyr:
      return render_zephyr(messages) + (prompt ? "<|assistant|>\n" : "");
    default:
      return render_mistral(messages);
  }
}

std::string ChatTemplate::render_chatml(std::span<const ChatMessage> messages) const {
  std::string text = bos_;
  if (messages.front().role != "system") text += default_system_;
  for (const ChatMessage& message : messages) {
    text += "<|im_start|>" + message.role + "\n" + content(message) + "<|im_end|>\n";
  }
  return text;
}

std::string ChatTemplate::render_llama3(std::span<const ChatMessage> messages) const {
  std::string text = bos_;
  const auto turn = [&](std::string_view role, const std::string& body) {
    text.append("<|start_header_id|>").append(role).append("<|end_header_id|>\n\n");
    text.append(body).append("<|eot_id|>");
  };
  if (!system_preamble_.empty()) {
    const bool given = messages.front().role == "system";
    turn("system", system_preamble_ + (given ? content(messages.front()) : std::string()));
    if (given) messages = messages.subspan(1);
  }
  for (const ChatMessage& message : messages) turn(message.role, content(message));
  return text;
}

std::string ChatTemplate::render_zephyr(std::span<const ChatMessage> messages) const {
  std::string text = bos_;
  for (const ChatMessage& message : messages) {
    text += "<|" + message.role + "|>\n" + content(message) + eos_ + "\n";
  }
  return text;
}

std::string ChatTemplate::render_mistral(std::span<const ChatMessage> messages) const {
  std::string text = bos_;
  std::optional<std::string> system;
  if (messages.front().role == "system") {
    if (!takes_system_) refuse("this model's template takes no system message");
    system = messages.front().content;
    messages = messages.subspan(1);
  }
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const ChatMessage& message = messages[i];
    if (message.role != (i % 2 == 0 ? "user" : "assistant")) {
      refuse("after an optional system message, roles must alternate user, assistant; message " +
             std::to_string(i) + " of those is \"" + message.role + "\"");
    }
    if (message.role == "user") {
      const bool joins = system && i == (system_in_last_turn_ ? messages.size() - 1 : 0);
      text +=
          instruction_begin_ + (joins ? *system + "\n\n" : "") + message.content + instruction_end_;
    } else {
      text += answer_begin_ + content(message) + answer_end_;
    }
  }
  return text;
}

}  // namespace specdec
