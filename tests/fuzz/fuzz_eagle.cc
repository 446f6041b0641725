// An EAGLE-3 head: a byte whose low bit asks for quantised weights and whose next one for the wider
// target, two bytes of length, config.json, model.safetensors.
#include <numeric>

#include "engine/model/eagle_source.h"
#include "engine/model/tensor_view.h"
#include "fuzz_input.h"
#include "specdec/error.h"

using namespace specdec;

namespace {

/// The target of the seeds.
ModelConfig target_of(int width) {
  ModelConfig target;
  target.vocab_size = 8;
  target.hidden_size = width;
  target.num_layers = 6;
  target.num_heads = 1;
  target.num_kv_heads = 1;
  target.head_dim = width;
  target.ffn_size = width;
  return target;
}

/// Reads what the engine would: every byte of every matrix.
int checksum(const MatrixSource& matrix) {
  int sum = 0;
  for (const RowSource& rows : matrix.parts) {
    const std::size_t size = tensor_bytes(
        rows.type, static_cast<std::size_t>(rows.num_rows) * static_cast<std::size_t>(rows.cols));
    sum = std::accumulate(rows.data, rows.data + size, sum, [](int so_far, std::byte byte) {
      return so_far ^ std::to_integer<int>(byte);
    });
  }
  return sum;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 3) return 0;
  const std::string_view rest = fuzz::text_of(data + 3, size - 3);
  const std::size_t wanted = data[1] | static_cast<std::size_t>(data[2]) << 8;
  const std::string_view config = rest.substr(0, wanted);
  const auto file = fuzz::file_of(rest.substr(config.size()), "fuzz/model.safetensors");
  try {
    const auto head =
        read_eagle_head(config, "fuzz/config.json", file, target_of((data[0] & 2) != 0 ? 32 : 2),
                        (data[0] & 1) != 0 ? HeadWeights::q8_0 : HeadWeights::as_stored);
    int sum = 0;
    for (const MatrixSource& fc : head->fc) sum ^= checksum(fc);
    for (const MatrixSource* matrix :
         {&head->qkv, &head->attention_output, &head->gate_up, &head->down, &head->head})
      sum ^= checksum(*matrix);
    if (head->embedding) sum ^= checksum(*head->embedding);
    [[maybe_unused]] volatile int keep = sum;
    for (const TokenId token : head->target_tokens)
      if (token < 0 || token >= 8) std::abort();
  } catch (const Error&) {
  }
  return 0;
}
