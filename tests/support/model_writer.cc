#include "support/model_writer.h"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <stdexcept>
#include <utility>

#include "support/quantise.h"

namespace specdec::testing {
namespace {

using kernels::DataType;
using nlohmann::json;

std::string utf8(unsigned code_point) {
  if (code_point < 0x80) return {static_cast<char>(code_point)};
  return {static_cast<char>(0xc0 | (code_point >> 6)), static_cast<char>(0x80 | (code_point & 63))};
}

/// GPT-2's printable stand-in for each byte.
std::vector<std::string> byte_alphabet() {
  std::vector<std::string> alphabet;
  unsigned next = 256;
  for (unsigned byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte != 173);
    alphabet.push_back(utf8(printable ? byte : next++));
  }
  return alphabet;
}

std::string gguf_name(const std::string& name) {
  static const std::vector<std::pair<std::string, std::string>> kNames = {
      {"input_layernorm", "attn_norm"},    {"self_attn.q_proj", "attn_q"},
      {"self_attn.k_proj", "attn_k"},      {"self_attn.v_proj", "attn_v"},
      {"self_attn.o_proj", "attn_output"}, {"post_attention_layernorm", "ffn_norm"},
      {"mlp.gate_proj", "ffn_gate"},       {"mlp.up_proj", "ffn_up"},
      {"mlp.down_proj", "ffn_down"}};
  if (name == "model.embed_tokens.weight") return "token_embd.weight";
  if (name == "model.norm.weight") return "output_norm.weight";
  if (name == "lm_head.weight") return "output.weight";
  const std::string prefix = "model.layers.";
  const std::size_t dot = name.find('.', prefix.size());
  const std::string ending = name.substr(dot + 1);
  for (const auto& [hf, gguf] : kNames) {
    if (ending == hf + ".weight") {
      return "blk." + name.substr(prefix.size(), dot - prefix.size()) + "." + gguf + ".weight";
    }
  }
  throw std::invalid_argument("no GGUF name for " + name);
}

std::uint32_t gguf_type(DataType type) {
  switch (type) {
    case DataType::f32:
      return 0;
    case DataType::f16:
      return 1;
    case DataType::q4_0:
      return 2;
    case DataType::q4_1:
      return 3;
    case DataType::q8_0:
      return 8;
    case DataType::bf16:
      return 30;
  }
  throw std::invalid_argument("no GGUF type");
}

/// Rows of each head from the halves layout to the pairs layout.
std::vector<float> to_pairs(const RandomTensor& tensor, int head_dim) {
  const auto cols = static_cast<std::size_t>(tensor.shape[1]);
  std::vector<float> out;
  for (int head = 0; head < tensor.shape[0] / head_dim; ++head) {
    for (int row = 0; row < head_dim; ++row) {
      const int source = head * head_dim + (row % 2 == 0 ? row / 2 : head_dim / 2 + row / 2);
      const auto begin = tensor.values.begin() + static_cast<std::ptrdiff_t>(source * cols);
      out.insert(out.end(), begin, begin + static_cast<std::ptrdiff_t>(cols));
    }
  }
  return out;
}

void set_config(GgufFileSpec& spec, const ModelConfig& config) {
  const auto u32 = [&](const char* key, int value) {
    spec.set_u32(key, static_cast<std::uint32_t>(value));
  };
  spec.set_string("general.architecture", "llama");
  spec.set_string("general.name", config.name);
  u32("llama.block_count", config.num_layers);
  u32("llama.context_length", config.max_position);
  u32("llama.embedding_length", config.hidden_size);
  u32("llama.feed_forward_length", config.ffn_size);
  u32("llama.attention.head_count", config.num_heads);
  u32("llama.attention.head_count_kv", config.num_kv_heads);
  u32("llama.attention.key_length", config.head_dim);
  u32("llama.attention.value_length", config.head_dim);
  u32("llama.rope.dimension_count", config.head_dim);
  u32("llama.vocab_size", config.vocab_size);
  spec.set_f32("llama.rope.freq_base", config.rope_theta);
  spec.set_f32("llama.attention.layer_norm_rms_epsilon", config.norm_eps);
}

void set_tokenizer(GgufFileSpec& spec, const TestTokenizer& tokenizer) {
  spec.set_string("tokenizer.ggml.model", "gpt2");
  spec.set_string("tokenizer.ggml.pre", "smollm");
  spec.set_strings("tokenizer.ggml.tokens", tokenizer.tokens);
  std::vector<std::int32_t> types(tokenizer.tokens.size(), 1);
  std::fill_n(types.begin(), tokenizer.num_special, 3);
  spec.set_i32s("tokenizer.ggml.token_type", types);
  spec.set_strings("tokenizer.ggml.merges", tokenizer.merges);
  spec.set_u32("tokenizer.ggml.bos_token_id", 0);
  spec.set_u32("tokenizer.ggml.eos_token_id", static_cast<std::uint32_t>(tokenizer.eos_token));
  spec.set_bool("tokenizer.ggml.add_bos_token", false);
  if (!tokenizer.chat_template.empty()) {
    spec.set_string("tokenizer.chat_template", tokenizer.chat_template);
  }
}

std::string shard_name(int shard, int num_shards) {
  if (num_shards == 1) return "model.safetensors";
  const auto digits = [](int number) {
    const std::string text = std::to_string(number);
    return std::string(5 - text.size(), '0') + text;
  };
  return "model-" + digits(shard + 1) + "-of-" + digits(num_shards) + ".safetensors";
}

}  // namespace

TestTokenizer::TestTokenizer(int vocab_size, bool chatml) {
  tokens.emplace_back("<|endoftext|>");
  if (chatml) {
    tokens.emplace_back("<|im_start|>");
    tokens.emplace_back("<|im_end|>");
    eos_token = 2;
    chat_template =
        "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + "
        "message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}"
        "{{ '<|im_start|>assistant\n' }}{% endif %}";
  }
  num_special = static_cast<int>(tokens.size());
  const auto size = static_cast<std::size_t>(vocab_size);
  if (size < tokens.size() + 256)
    throw std::invalid_argument("TestTokenizer: vocab_size too small");
  for (const std::string& byte : byte_alphabet()) tokens.push_back(byte);

  const std::string letters = "etaoinshrdlucmfwypvbgkjqxz";
  std::vector<std::string> stems = {byte_alphabet()[' ']};
  for (const char letter : letters) stems.emplace_back(1, letter);
  std::set<std::string> known;
  for (std::size_t s = 0; tokens.size() < size; ++s) {
    for (std::size_t l = 0; l < letters.size() && tokens.size() < size; ++l) {
      const std::string stem = stems.at(s);
      const std::string merged = stem + letters[l];
      if (!known.insert(merged).second) continue;
      tokens.push_back(merged);
      merges.push_back(stem + " " + letters[l]);
      stems.push_back(merged);
    }
  }
}

GgufFileSpec gguf_spec(const RandomModel& model, const GgufOptions& options) {
  GgufFileSpec spec;
  spec.version = options.version;
  spec.alignment = options.alignment;
  set_config(spec, model.config);
  if (options.alignment != 32) spec.set_u32("general.alignment", options.alignment);
  if (options.tokenizer) {
    set_tokenizer(spec, options.own_tokenizer != nullptr
                            ? *options.own_tokenizer
                            : TestTokenizer(model.config.vocab_size, options.chatml));
  }
  if (!model.config.rope_factors.empty()) {
    spec.tensors.push_back({"rope_freqs.weight",
                            {model.config.rope_factors.size()},
                            0,
                            quantise(model.config.rope_factors, DataType::f32)});
  }
  for (const RandomTensor& tensor : model.tensors) {
    const std::string name = gguf_name(tensor.name);
    const bool is_norm = tensor.shape.size() == 1;
    const bool is_table = name == "token_embd.weight" || name == "output.weight";
    const DataType type =
        is_norm ? DataType::f32 : (is_table ? options.embedding_type : options.type);
    const bool rotated = name.ends_with("attn_q.weight") || name.ends_with("attn_k.weight");
    const auto values = rotated ? to_pairs(tensor, model.config.head_dim) : tensor.values;
    spec.tensors.push_back({name,
                            {tensor.shape.rbegin(), tensor.shape.rend()},
                            gguf_type(type),
                            quantise(values, type)});
  }
  return spec;
}

std::vector<std::byte> safetensors_bytes(const RandomModel& model, const HfOptions& options,
                                         int shard) {
  json header = {{"__metadata__", {{"format", "pt"}}}};
  std::vector<std::byte> data;
  for (std::size_t i = 0; i < model.tensors.size(); ++i) {
    if (static_cast<int>(i) % options.num_shards != shard) continue;
    const RandomTensor& tensor = model.tensors[i];
    const auto bytes = quantise(tensor.values, options.type);
    header[tensor.name] = {{"dtype", options.type == DataType::f32   ? "F32"
                                     : options.type == DataType::f16 ? "F16"
                                                                     : "BF16"},
                           {"shape", tensor.shape},
                           {"data_offsets", {data.size(), data.size() + bytes.size()}}};
    data.insert(data.end(), bytes.begin(), bytes.end());
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return Bytes().add<std::uint64_t>(text.size()).add_text(text).append(data).data;
}

std::string hf_config_json(const ModelConfig& config) {
  json out = {{"architectures", {"LlamaForCausalLM"}},
              {"model_type", "llama"},
              {"_name_or_path", config.name},
              {"vocab_size", config.vocab_size},
              {"hidden_size", config.hidden_size},
              {"intermediate_size", config.ffn_size},
              {"num_hidden_layers", config.num_layers},
              {"num_attention_heads", config.num_heads},
              {"num_key_value_heads", config.num_kv_heads},
              {"head_dim", config.head_dim},
              {"max_position_embeddings", config.max_position},
              {"rms_norm_eps", config.norm_eps},
              {"rope_theta", config.rope_theta},
              {"rope_scaling", nullptr},
              {"tie_word_embeddings", config.tied_head},
              {"hidden_act", "silu"},
              {"attention_bias", false},
              {"torch_dtype", "float32"}};
  const RopeScaling& scaling = config.rope_scaling;
  if (scaling.factor != 1.0f) {
    out["rope_scaling"] = {{"rope_type", "llama3"},
                           {"factor", scaling.factor},
                           {"low_freq_factor", scaling.low_freq_factor},
                           {"high_freq_factor", scaling.high_freq_factor},
                           {"original_max_position_embeddings", scaling.original_max_position}};
  }
  return out.dump(2);
}

std::string tokenizer_json(const TestTokenizer& tokenizer) {
  json added = json::array();
  json vocab = json::object();
  for (std::size_t id = 0; id < tokenizer.tokens.size(); ++id) {
    vocab[tokenizer.tokens[id]] = id;
    if (static_cast<int>(id) < tokenizer.num_special) {
      added.push_back({{"id", id},
                       {"content", tokenizer.tokens[id]},
                       {"single_word", false},
                       {"lstrip", false},
                       {"rstrip", false},
                       {"normalized", false},
                       {"special", true}});
    }
  }
  const json byte_level = {{"type", "ByteLevel"},
                           {"add_prefix_space", false},
                           {"trim_offsets", true},
                           {"use_regex", true}};
  const json digits = {{"type", "Digits"}, {"individual_digits", true}};
  const json out = {
      {"version", "1.0"},
      {"truncation", nullptr},
      {"padding", nullptr},
      {"added_tokens", added},
      {"normalizer", nullptr},
      {"pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", {digits, byte_level}}}},
      {"post_processor", nullptr},
      {"decoder", byte_level},
      {"model",
       {{"type", "BPE"},
        {"dropout", nullptr},
        {"unk_token", nullptr},
        {"continuing_subword_prefix", nullptr},
        {"end_of_word_suffix", nullptr},
        {"fuse_unk", false},
        {"byte_fallback", false},
        {"vocab", vocab},
        {"merges", tokenizer.merges}}}};
  return out.dump();
}

void write_file(const std::filesystem::path& path, std::string_view text) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(text.data(), static_cast<std::streamsize>(text.size()));
  if (!file.flush()) throw std::runtime_error("cannot write " + path.string());
}

void write_file(const std::filesystem::path& path, const std::vector<std::byte>& bytes) {
  write_file(path, std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

void write_gguf(const std::filesystem::path& path, const RandomModel& model,
                const GgufOptions& options) {
  write_file(path, gguf_spec(model, options).bytes());
}

void write_hf_folder(const std::filesystem::path& folder, const RandomModel& model,
                     const HfOptions& options) {
  std::filesystem::create_directories(folder);
  const TestTokenizer tokenizer(model.config.vocab_size, options.chatml);
  write_file(folder / "config.json", hf_config_json(model.config));
  write_file(folder / "tokenizer.json", tokenizer_json(tokenizer));
  json tokenizer_config = {
      {"bos_token", "<|endoftext|>"},
      {"eos_token", tokenizer.tokens[static_cast<std::size_t>(tokenizer.eos_token)]},
      {"add_bos_token", false}};
  if (options.chatml) tokenizer_config["chat_template"] = tokenizer.chat_template;
  write_file(folder / "tokenizer_config.json", tokenizer_config.dump(2));
  write_file(folder / "generation_config.json",
             json({{"eos_token_id", tokenizer.eos_token}}).dump(2));
  for (int shard = 0; shard < options.num_shards; ++shard) {
    write_file(folder / shard_name(shard, options.num_shards),
               safetensors_bytes(model, options, shard));
  }
  if (options.num_shards == 1) return;
  json map = json::object();
  for (std::size_t i = 0; i < model.tensors.size(); ++i) {
    map[model.tensors[i].name] =
        shard_name(static_cast<int>(i) % options.num_shards, options.num_shards);
  }
  write_file(folder / "model.safetensors.index.json",
             json({{"metadata", {{"total_size", 0}}}, {"weight_map", map}}).dump(2));
}

}  // namespace specdec::testing
