#include "engine/text/chat_template.h"

#include <algorithm>
#include <optional>

#include "engine/text/jinja_outline.h"
#include "engine/text/utf8.h"
#include "specdec/error.h"

namespace specdec {
namespace {

constexpr std::string_view kWhatToDo =
    "; render the prompt yourself and pass it as Request::prompt (or prompt_tokens)";

bool has(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
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
  const JinjaOutline outline = outline_jinja(jinja);
  // What changes plain turns in ways that are not rendered here.
  for (const std::string_view marker : {"think>", "<<SYS>>", "[SYSTEM_PROMPT]", "{%macro"}) {
    if (has(outline.code, marker)) return;
  }
  if (!has(outline.code, "bos_token")) bos_.clear();
  trim_ = has(outline.code, "content|trim") || has(outline.code, "content.strip()");
  if (has(outline.code, "<|im_start|>"))
    recognise_chatml(outline);
  else if (has(outline.code, "<|start_header_id|>"))
    recognise_llama3(outline);
  else if (has(outline.code, "<|user|>"))
    recognise_zephyr(outline);
  else if (has(outline.code, "[INST]"))
    recognise_mistral(outline);
}

void ChatTemplate::recognise_chatml(const JinjaOutline& outline) {
  const std::string turn = "'<|im_start|>'+message.role+'\n'+" + content_code();
  const bool closed = has(outline.code, turn + "+'<|im_end|>'+'\n'}}") ||
                      has(outline.code, turn + "+'<|im_end|>\n'}}");
  // Qwen 1.5 ends a turn in a statement of its own.
  open_last_turn_ = has(outline.code, turn +
                                          "}}{%if(loop.last and add_generation_prompt)or not "
                                          "loop.last%}{{'<|im_end|>'+'\n'}}{%endif%}");
  if (outline.has_text || closed == open_last_turn_) return;
  if (!has(outline.code, "{%if add_generation_prompt%}{{'<|im_start|>assistant\n'}}{%endif%}")) {
    return;
  }
  constexpr std::string_view kSystem = "<|im_start|>system\n";
  for (const std::string& literal : outline.literals) {
    if (!literal.starts_with(kSystem) || !has(literal, "<|im_end|>")) continue;
    if (!literal.ends_with("<|im_end|>\n")) return;
    if (!default_system_.empty() && default_system_ != literal) return;
    default_system_ = literal;
  }
  family_ = Family::chatml;
}

void ChatTemplate::recognise_llama3(const JinjaOutline& outline) {
  const std::string turn = "'<|start_header_id|>'+message.role+'<|end_header_id|>\n\n'+" +
                           content_code() + "+'<|eot_id|>'";
  const std::string_view prompt = "{{'<|start_header_id|>assistant<|end_header_id|>\n\n'}}";
  if (outline.has_text || !has(outline.code, turn) || !has(outline.code, prompt)) return;
  always_prompts_ = !has(outline.code, "add_generation_prompt");
  if (has(outline.code, "Today Date")) {
    // Llama 3.2 asks for the day where it can; the same request must give the same tokens tomorrow,
    // so it gets the date that the template itself falls back to, as 3.1 does.
    if (!has(outline.code, "date_string='26 Jul 2024'") ||
        !has(outline.code, "{{'<|start_header_id|>system<|end_header_id|>\n\n'}}") ||
        !has(outline.code,
             "{{'Cutting Knowledge Date: December 2023\n'}}"
             "{{'Today Date: '+date_string+'\n\n'}}")) {
      return;
    }
    system_preamble_ = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n";
  }
  family_ = Family::llama3;
}

void ChatTemplate::recognise_zephyr(const JinjaOutline& outline) {
  for (const std::string_view role : {"user", "system", "assistant"}) {
    const std::string turn = "{{'<|" + std::string(role) + "|>\n'+" + content_code() + "+eos_token";
    if (!has(outline.code, turn + "}}{{'\n'}}") && !has(outline.code, turn + "+'\n'}}")) return;
  }
  if (!has(outline.code, "add_generation_prompt%}{{'<|assistant|>'}}{{'\n'}}{%endif%}") &&
      !has(outline.code, "add_generation_prompt%}{{'<|assistant|>\n'}}{%endif%}")) {
    return;
  }
  family_ = Family::zephyr;
}

void ChatTemplate::recognise_mistral(const JinjaOutline& outline) {
  const auto one_literal = [&](std::string_view part, std::string& literal) {
    for (const std::string& candidate : outline.literals) {
      if (!has(candidate, part)) continue;
      if (!literal.empty() && literal != candidate) return false;
      literal = candidate;
    }
    return !literal.empty();
  };
  if (outline.has_text || !one_literal("[INST]", instruction_begin_) ||
      !one_literal("[/INST]", instruction_end_)) {
    return;
  }
  const auto user_turn = [&](std::string_view system) {
    return has(outline.code, "{{'" + instruction_begin_ + "'" + std::string(system) +
                                 "+message.content+'" + instruction_end_ + "'}}");
  };
  if (!user_turn("")) return;
  const std::string answer = content_code() + "+eos_token";
  const auto answer_is = [&](std::string_view begin, std::string_view end) {
    return has(outline.code, "{{" + std::string(begin) + answer + std::string(end) + "}}");
  };
  const bool blank_before = answer_is("' '+", "");
  const bool blank_after = answer_is("", "+' '");
  if (blank_before + blank_after + answer_is("", "") != 1) return;
  if (blank_before) answer_begin_ = " ";
  answer_end_ = eos_ + (blank_after ? " " : "");
  takes_system_ = has(outline.code, "system_message");
  if (takes_system_) {
    const bool first = has(outline.code, "{%if loop.first and system_message is defined%}");
    system_in_last_turn_ = has(outline.code, "{%if loop.last and system_message is defined%}");
    if (first == system_in_last_turn_ || !user_turn("+system_message+'\n\n'")) return;
  }
  family_ = Family::mistral;
}

std::string ChatTemplate::content_code() const {
  return trim_ ? "message.content|trim" : "message.content";
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
