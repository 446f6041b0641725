// config.json and model.safetensors: two bytes of length, the configuration, the weights.
#include "engine/model/hf_folder.h"
#include "fuzz_input.h"
#include "specdec/error.h"

using namespace specdec;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  const std::string_view rest = fuzz::text_of(data + 2, size - 2);
  const std::size_t wanted = data[0] | static_cast<std::size_t>(data[1]) << 8;
  const std::string_view config = rest.substr(0, wanted);
  const std::string_view weights = rest.substr(config.size());
  try {
    const auto file = fuzz::file_of(weights, "fuzz/model.safetensors");
    const auto model = open_hf_model(config, "fuzz", {file}, {});
    rope_inverse_frequencies(model->config());
    model->release(model->head());
  } catch (const Error&) {
  }
  return 0;
}
