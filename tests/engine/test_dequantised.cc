#ifdef SPECDEC_HAS_CUDA

#include <doctest/doctest.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "engine/backend/backend.h"
#include "engine/micro_models.h"
#include "engine/model/weights.h"
#include "support/engine_runs.h"
#include "support/model_writer.h"

// backend.dequantise_mb on a GPU: which matrices become f16, and that nobody can tell by what the
// model says.

using namespace specdec;
using namespace specdec::testing;

using kernels::DataType;

TEST_CASE("quantised weights in f16: what is small, no table, and the same logits" *
          doctest::skip(test_device() != "cuda" || device_missing())) {
  const std::filesystem::path path = std::filesystem::temp_directory_path() /
                                     ("specdec-dequantised-" + std::to_string(::getpid()));
  ModelConfig shape = micro_model_config();
  shape.hidden_size = 64;
  shape.num_heads = 4;
  shape.num_layers = 2;
  shape.ffn_size = 96;
  const RandomModel model = random_model(shape, 4);
  Config as_stored = micro_config();
  as_stored.backend.device = "cuda";
  as_stored.backend.dequantise_mb = 0;
  Config as_f16 = as_stored;
  as_f16.backend.dequantise_mb = 1;
  for (const DataType type : {DataType::q4_0, DataType::q4_1, DataType::q8_0}) {
    CAPTURE(static_cast<int>(type));
    write_gguf(path, model, {.type = type, .embedding_type = type});
    CHECK(logits_of(path, as_stored) == logits_of(path, as_f16));
    const auto source = open_model(path);
    const auto stored = make_backend(as_stored.backend);
    const auto unpacked = make_backend(as_f16.backend);
    const auto kept_as = [&](Backend& backend, const MatrixSource& matrix) {
      const DeviceBuffer memory =
          backend.allocate(backend.packed_bytes(matrix), MemoryUse::weights);
      return backend.pack(matrix, memory.as<void>()).type;
    };
    for (const LayerSource& layer : source->layers())
      for (const MatrixSource* matrix :
           {&layer.qkv, &layer.attention_output, &layer.gate_up, &layer.down}) {
        CHECK(kept_as(*stored, *matrix) == type);
        CHECK(kept_as(*unpacked, *matrix) == DataType::f16);
      }
    CHECK(kept_as(*unpacked, source->embedding()) == type);
    CHECK(kept_as(*unpacked, source->head()) == type);  // tied

    MatrixSource large = source->layers()[0].gate_up;  // some 1.1 MB in f16
    const std::size_t parts = large.parts.size();
    for (int i = 0; i < 44; ++i)
      for (std::size_t part = 0; part < parts; ++part) large.parts.push_back(large.parts[part]);
    large.pair_distance = 0;
    CHECK(kept_as(*unpacked, large) == type);
  }
  std::filesystem::remove(path);
}

#endif  // SPECDEC_HAS_CUDA
