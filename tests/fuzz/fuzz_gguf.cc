// A GGUF file: header, tensors, configuration, tokenizer. Only specdec::Error may come out.
#include "engine/model/gguf_model.h"
#include "fuzz_input.h"
#include "specdec/error.h"

using namespace specdec;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const auto file = fuzz::file_of(fuzz::text_of(data, size), "fuzz.gguf");
    const auto model = open_gguf_model(file);
    rope_inverse_frequencies(model->config());
    for (const LayerSource& layer : model->layers()) model->release(layer.qkv);
    const auto tokenizer = model->load_tokenizer();
    tokenizer->decode(tokenizer->encode("Hello <|im_start|> 12 \xff world"), true);
  } catch (const Error&) {
  }
  return 0;
}
