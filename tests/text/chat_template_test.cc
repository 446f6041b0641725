#include "engine/text/chat_template.h"

#include <doctest/doctest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <vector>

#include "specdec/error.h"

using namespace specdec;

namespace {

ErrorCode code_of(const ChatTemplate& chat, const std::vector<ChatMessage>& messages) {
  try {
    chat.render(messages, true);
  } catch (const Error& error) {
    CHECK(std::string(error.what()).size() > 20);
    return error.code();
  }
  return ErrorCode::internal;
}

nlohmann::json read_golden() {
  std::ifstream file(SPECDEC_SOURCE_DIR "/tests/text/chat_golden.json");
  return nlohmann::json::parse(file);
}

}  // namespace

// chat_golden.json is made with jinja2 by make_chat_golden.py.
TEST_CASE("chat templates of published models render as in Jinja") {
  const auto golden = read_golden();
  int renders = 0;
  for (const auto& known : golden.at("known")) {
    const ChatTemplate chat(known.at("template").get<std::string>(), golden.at("bos"),
                            golden.at("eos"));
    for (const auto& render : known.at("renders")) {
      std::vector<ChatMessage> messages;
      for (const auto& message : render.at("messages")) {
        messages.push_back({message.at("role"), message.at("content")});
      }
      INFO(known.at("name").get<std::string>()
           << ", conversation " << render.at("messages").dump());
      ++renders;
      if (render.at("expected").is_null()) {
        CHECK(code_of(chat, messages) == ErrorCode::invalid_argument);
      } else {
        CHECK(chat.render(messages, render.at("prompt").get<bool>()) ==
              render.at("expected").get<std::string>());
      }
    }
  }
  CHECK(renders == 20 * 30);
}

TEST_CASE("an unknown chat template is refused, with a way out") {
  const auto golden = read_golden();
  for (const auto& unknown : golden.at("unknown")) {
    const ChatTemplate chat(unknown.at("template").get<std::string>(), "<s>", "</s>");
    INFO(unknown.at("name").get<std::string>());
    CHECK(code_of(chat, {{"user", "x"}}) == ErrorCode::unsupported);
  }
  CHECK(code_of(ChatTemplate(), {{"user", "x"}}) == ErrorCode::unsupported);
  CHECK_THROWS_WITH_AS(ChatTemplate().render({}, true), doctest::Contains("Request::prompt"),
                       Error);
}

TEST_CASE("roles and empty conversations") {
  const auto golden = read_golden();
  for (const auto& known : golden.at("known")) {
    const ChatTemplate chat(known.at("template").get<std::string>(), "<s>", "</s>");
    CHECK(code_of(chat, {}) == ErrorCode::invalid_argument);
    CHECK(code_of(chat, {{"tool", "x"}}) == ErrorCode::invalid_argument);
    CHECK(code_of(chat, {{"User", "x"}}) == ErrorCode::invalid_argument);
  }
}
