#include "engine/model/medusa_source.h"

#include <string>
#include <string_view>
#include <utility>

#include "engine/model/json_reader.h"
#include "engine/model/safetensors.h"
#include "specdec/error.h"

namespace specdec {
namespace {

namespace fs = std::filesystem;

constexpr int kMostHeads = 32;
constexpr int kMostBlocks = 16;

bool is_file(const fs::path& path) {
  std::error_code ignored;
  return fs::is_regular_file(path, ignored);
}

/// config.json; null: there is none, which old checkpoints are content with.
nlohmann::json read_config(const fs::path& folder) {
  if (!is_file(folder / "config.json")) return nullptr;
  const auto file = MappedFile::open(folder / "config.json");
  return parse_json({reinterpret_cast<const char*>(file->bytes().data()), file->bytes().size()},
                    file->name());
}

/// How a file names its tensors.
class Names {
 public:
  explicit Names(const HeadTensors& tensors) {
    vllm_ = tensors.contains("lm_heads.0.weight");
    if (tensors.contains("medusa_head.0.0.linear.weight")) prefix_ = "medusa_head.";
  }

  std::string block(int head, int block, std::string_view part) const {
    return (vllm_ ? "blocks." + std::to_string(head) + ".layers." + std::to_string(block) + "."
                  : at(head, block) + "linear.") +
           std::string(part);
  }
  std::string output(int head, int num_blocks) const {
    return vllm_ ? "lm_heads." + std::to_string(head) + ".weight" : at(head, num_blocks) + "weight";
  }

 private:
  std::string at(int head, int place) const {
    return prefix_ + std::to_string(head) + "." + std::to_string(place) + ".";
  }

  bool vllm_ = false;
  std::string prefix_;
};

MedusaSource::Head load_head(HeadTensors& tensors, const Names& names, int head, int hidden,
                             int vocab_size) {
  MedusaSource::Head result;
  for (int i = 0; i < kMostBlocks && tensors.contains(names.block(head, i, "weight")); ++i) {
    const std::string bias = names.block(head, i, "bias");
    result.blocks.push_back(
        {.weight = tensors.matrix("block", hidden, {{names.block(head, i, "weight"), hidden}}),
         .bias = tensors.contains(bias) ? tensors.vector(bias, hidden) : std::vector<float>{}});
  }
  const std::string output = names.output(head, static_cast<int>(result.blocks.size()));
  result.output = tensors.matrix("head", hidden, {{output, vocab_size}});
  return result;
}

/// The number of heads that config.json names. More of them in the file are used as well: the first
/// checkpoints say 2 and hold 5.
int heads_named(const nlohmann::json& json, const std::string& file) {
  if (json.is_null()) return 0;
  const JsonObject config(json, file);
  for (const char* key : {"medusa_num_heads", "num_heads"}) {
    const int count = config.integer(key).value_or(0);
    if (count < 0 || count > kMostHeads)
      config.fail_invalid(
          key, "is " + std::to_string(count) + ", must be 1 to " + std::to_string(kMostHeads));
    if (count > 0) return count;
  }
  return 0;
}

}  // namespace

bool is_medusa(const fs::path& path) {
  if (is_file(path / "medusa_lm_head.safetensors")) return true;
  const nlohmann::json json = read_config(path);
  if (!json.is_object()) return false;
  return json.contains("medusa_num_heads") ||
         (json.contains("model_type") && json["model_type"] == "medusa");
}

std::unique_ptr<MedusaSource> open_medusa(const fs::path& path, const ModelConfig& target,
                                          HeadWeights weights) {
  auto source = std::make_unique<MedusaSource>();
  const fs::path published = path / "medusa_lm_head.safetensors";
  source->file = MappedFile::open(is_file(published) ? published : path / "model.safetensors");
  const std::vector<TensorView> list = read_safetensors(*source->file);
  HeadTensors tensors(list, source->file->name(), "Medusa heads", weights, source->converted);
  const Names names(tensors);

  const nlohmann::json json = read_config(path);
  int count = std::max(1, heads_named(json, (path / "config.json").string()));
  const auto is_there = [&](int head) {
    return tensors.contains(names.block(head, 0, "weight")) ||
           tensors.contains(names.output(head, 0));
  };
  while (count < kMostHeads && is_there(count)) ++count;
  for (int head = 0; head < count; ++head)
    source->heads.push_back(load_head(tensors, names, head, target.hidden_size, target.vocab_size));
  tensors.check_unused();
  return source;
}

}  // namespace specdec
