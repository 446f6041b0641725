// A Hugging Face tokenizer: tokenizer.json, tokenizer_config.json, generation_config.json and
// chat_template.jinja, with a NUL between them.
#include <array>

#include "engine/text/tokenizer_json.h"
#include "fuzz_input.h"
#include "specdec/error.h"

using namespace specdec;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string_view rest = fuzz::text_of(data, size);
  std::array<std::string_view, 4> parts;
  for (std::string_view& part : parts) {
    part = rest.substr(0, rest.find('\0'));
    rest.remove_prefix(part.size() < rest.size() ? part.size() + 1 : rest.size());
  }
  try {
    const auto tokenizer =
        make_bpe_tokenizer(parse_tokenizer_files({parts[0], parts[1], parts[2], parts[3]}, "fuzz"));
    tokenizer->decode(tokenizer->encode("Hello <|im_start|> 12 \xff world"), true);
    const std::array<ChatMessage, 2> messages = {{{"system", "Be brief."}, {"user", "Why?"}}};
    tokenizer->apply_chat_template(messages, true);
  } catch (const Error&) {
  }
  return 0;
}
