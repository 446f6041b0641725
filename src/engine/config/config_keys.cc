#include "engine/config/config_keys.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>

#include "engine/config/config_text.h"

namespace specdec {
namespace {

constexpr double kMaxInt = std::numeric_limits<int>::max();
constexpr double kMaxFloat = std::numeric_limits<float>::max();
constexpr double kAboveZero = std::numeric_limits<float>::min();  // as a lower bound: more than 0

#define SPECDEC_FIELD(path) [](Config& config) -> FieldRef { return &config.path; }

constexpr std::array kKeys = {
    ConfigKey{"target.model", SPECDEC_FIELD(target.model),
              "target model: a GGUF file, or a Hugging Face folder", 0, 0, "",
              ConfigKey::Kind::path},
    ConfigKey{
        "draft.method", SPECDEC_FIELD(draft.method),
        "none, ngram, suffix, lookahead, draft_model, eagle3, early_exit, medusa or a drafter "
        "of your own; A+B mixes them",
        0, 0, "", ConfigKey::Kind::method},
    ConfigKey{
        "draft.model", SPECDEC_FIELD(draft.model),
        "draft model: a GGUF file, a Hugging Face folder, or the folder of an EAGLE-3 head or "
        "of Medusa heads",
        0, 0, "", ConfigKey::Kind::path},
    ConfigKey{"draft.vocabulary", SPECDEC_FIELD(draft.vocabulary),
              "a draft model's: the target's, or another whose text is translated", 0, 0,
              "same|translate"},
    ConfigKey{"draft.weight_type", SPECDEC_FIELD(draft.weight_type),
              "what the matrices of an EAGLE-3 head or of Medusa heads are kept in", 0, 0,
              "q4_1|q8_0|file"},
    ConfigKey{"draft.vocabulary_list", SPECDEC_FIELD(draft.vocabulary_list),
              "file with the tokens, a number a line, that a draft model's head is cut down to", 0,
              0, "", ConfigKey::Kind::path},
    ConfigKey{"draft.length.mode", SPECDEC_FIELD(draft.length.mode),
              "fixed: num_speculative_tokens; schedule: by batch size; adaptive: by cost and "
              "acceptance",
              0, 0, "fixed|schedule|adaptive"},
    ConfigKey{"draft.length.num_speculative_tokens",
              SPECDEC_FIELD(draft.length.num_speculative_tokens), "longest path of a draft", 1, 64},
    ConfigKey{"draft.length.schedule", SPECDEC_FIELD(draft.length.schedule),
              "[batch size from which, length] pairs; length 0 = no draft", 0, 64},
    ConfigKey{"draft.length.min_confidence", SPECDEC_FIELD(draft.length.min_confidence),
              "stop drafting after a token whose best continuation is less likely; 0 = off", 0, 1},
    ConfigKey{"draft.length.cost_cache", SPECDEC_FIELD(draft.length.cost_cache),
              "file that keeps measured costs between starts; auto: in the user's cache; off: none",
              0, 0},
    ConfigKey{"draft.tree.topk", SPECDEC_FIELD(draft.tree.topk), "children per node; 1 = a chain",
              1, 64},
    ConfigKey{"draft.tree.num_draft_tokens", SPECDEC_FIELD(draft.tree.num_draft_tokens),
              "most draft tokens in a tree, when topk > 1", 1, 512},
    ConfigKey{
        "draft.tree.choices", SPECDEC_FIELD(draft.tree.choices),
        "a static tree: paths of ranks, \"0\", \"0.0\", \"1\"; none: trees grow by confidence"},
    ConfigKey{"draft.ngram.prompt_lookup_min", SPECDEC_FIELD(draft.ngram.prompt_lookup_min),
              "shortest suffix that is looked up", 1, 64},
    ConfigKey{"draft.ngram.prompt_lookup_max", SPECDEC_FIELD(draft.ngram.prompt_lookup_max),
              "longest suffix that is looked up", 1, 64},
    ConfigKey{"draft.suffix.max_tree_depth", SPECDEC_FIELD(draft.suffix.max_tree_depth),
              "longest suffix that is matched", 2, 256},
    ConfigKey{"draft.suffix.max_spec_factor", SPECDEC_FIELD(draft.suffix.max_spec_factor),
              "tokens drafted for each token of the match", 0, 64},
    ConfigKey{"draft.suffix.max_spec_offset", SPECDEC_FIELD(draft.suffix.max_spec_offset),
              "tokens drafted beside those", 0, 64},
    ConfigKey{"draft.suffix.min_token_prob", SPECDEC_FIELD(draft.suffix.min_token_prob),
              "a path that is less likely is not drafted", 0, 1},
    ConfigKey{"draft.suffix.cache_mb", SPECDEC_FIELD(draft.suffix.cache_mb),
              "MiB for outputs of ended requests; 0 = the own text alone", 0, 1 << 20},
    ConfigKey{"draft.early_exit.exit_layer", SPECDEC_FIELD(draft.early_exit.exit_layer),
              "draft with this many of the target's own first layers; 0 = off", 0, 4096},
    ConfigKey{"draft.lookahead.window_size", SPECDEC_FIELD(draft.lookahead.window_size),
              "columns of guessed tokens that the target goes on with beside each step", 1, 64},
    ConfigKey{"draft.lookahead.ngram_size", SPECDEC_FIELD(draft.lookahead.ngram_size),
              "tokens of an n-gram, the first included", 3, 16},
    ConfigKey{"draft.lookahead.verification_set_size",
              SPECDEC_FIELD(draft.lookahead.verification_set_size), "n-grams that a step verifies",
              1, 64},
    ConfigKey{"draft.lookahead.pool_size", SPECDEC_FIELD(draft.lookahead.pool_size),
              "n-grams that a request keeps", 1, 1 << 20},
    ConfigKey{"verify.method", SPECDEC_FIELD(verify.method),
              "acceptance rule; typical is lossy, every other lossless", 0, 0,
              "coupled|rejection|block|traversal|typical"},
    ConfigKey{"verify.typical_epsilon", SPECDEC_FIELD(verify.typical_epsilon),
              "typical acceptance: hard threshold", 0, 1},
    ConfigKey{"verify.typical_delta", SPECDEC_FIELD(verify.typical_delta),
              "typical acceptance: entropy factor", 0, 1},
    ConfigKey{"kv_cache.memory_mb", SPECDEC_FIELD(kv_cache.memory_mb),
              "MiB for the KV of target and draft together", 1, 1 << 24},
    ConfigKey{"kv_cache.block_size", SPECDEC_FIELD(kv_cache.block_size), "tokens per block", 16, 64,
              "16|32|64"},
    ConfigKey{"kv_cache.type", SPECDEC_FIELD(kv_cache.type), "KV element type", 0, 0, "f16|f32"},
    ConfigKey{"kv_cache.prefix_cache", SPECDEC_FIELD(kv_cache.prefix_cache),
              "share the KV of equal prompt beginnings"},
    ConfigKey{"scheduler.max_num_seqs", SPECDEC_FIELD(scheduler.max_num_seqs),
              "sequences in one step", 1, 4096},
    ConfigKey{"scheduler.max_num_batched_tokens", SPECDEC_FIELD(scheduler.max_num_batched_tokens),
              "rows of one step: the token budget", 1, 1 << 20},
    ConfigKey{"scheduler.max_queue", SPECDEC_FIELD(scheduler.max_queue), "requests that may wait",
              1, kMaxInt},
    ConfigKey{"backend.device", SPECDEC_FIELD(backend.device), "where the models run", 0, 0,
              "auto|cuda|cpu"},
    ConfigKey{"backend.threads", SPECDEC_FIELD(backend.threads),
              "0 = the physical cores this process may use", 0, 1024},
    ConfigKey{"backend.device_loop", SPECDEC_FIELD(backend.device_loop),
              "on a GPU, steps follow each other without the host where they can"},
    ConfigKey{"backend.device_sampling", SPECDEC_FIELD(backend.device_sampling),
              "on a GPU, single steps draw their tokens there where they can"},
    ConfigKey{"backend.step_graphs", SPECDEC_FIELD(backend.step_graphs),
              "on a GPU, passes of single steps run as graphs where they can"},
    ConfigKey{"backend.isa", SPECDEC_FIELD(backend.isa), "what the CPU kernels use", 0, 0,
              "auto|avx2|avx512|amx"},
    ConfigKey{"backend.float32_weights", SPECDEC_FIELD(backend.float32_weights),
              "on a GPU, weights of float32 become f16, or stay and are multiplied in TF32 or as "
              "float32",
              0, 0, "f16|tf32|f32"},
    ConfigKey{"backend.dequantise_mb", SPECDEC_FIELD(backend.dequantise_mb),
              "on a GPU, quantised matrices that take at most so many MiB in f16 are kept so; 0 = "
              "none",
              0, 1 << 20},
    ConfigKey{"grammar.cache_mb", SPECDEC_FIELD(grammar.cache_mb),
              "MiB for compiled grammars that are kept for requests to come", 0, 1 << 20},
    ConfigKey{"grammar.cache_entries", SPECDEC_FIELD(grammar.cache_entries),
              "compiled grammars that are kept", 1, kMaxInt},
    ConfigKey{"log.level", SPECDEC_FIELD(log.level), "least severe line that is logged", 0, 0,
              "trace|debug|info|warn|error|off"},
    ConfigKey{"sampling.temperature", SPECDEC_FIELD(sampling.temperature), "0 = greedy", 0, 100},
    ConfigKey{"sampling.top_k", SPECDEC_FIELD(sampling.top_k),
              "keep the k most likely tokens; 0 = off", 0, kMaxInt},
    ConfigKey{"sampling.top_p", SPECDEC_FIELD(sampling.top_p), "nucleus sampling; 1 = off",
              kAboveZero, 1},
    ConfigKey{"sampling.min_p", SPECDEC_FIELD(sampling.min_p),
              "drop tokens below min_p * the best token's probability; 0 = off", 0, 1},
    ConfigKey{"sampling.repetition_penalty", SPECDEC_FIELD(sampling.repetition_penalty),
              "over prompt and output; 1 = off", kAboveZero, kMaxFloat},
    ConfigKey{"sampling.presence_penalty", SPECDEC_FIELD(sampling.presence_penalty),
              "subtracted once for a token in the output; 0 = off", -2, 2},
    ConfigKey{"sampling.frequency_penalty", SPECDEC_FIELD(sampling.frequency_penalty),
              "subtracted for each time a token is in the output; 0 = off", -2, 2},
    ConfigKey{"sampling.min_tokens", SPECDEC_FIELD(sampling.min_tokens),
              "no end of sequence before this many tokens", 0, kMaxInt},
    ConfigKey{"sampling.max_tokens", SPECDEC_FIELD(sampling.max_tokens), "longest output", 1,
              kMaxInt},
    ConfigKey{"sampling.seed", SPECDEC_FIELD(sampling.seed),
              "equal seeds give equal tokens; \"random\" = a new one for each request"},
    ConfigKey{"sampling.logprobs", SPECDEC_FIELD(sampling.logprobs),
              "-1 = off, 0 = of the chosen token, N = also the N most likely", -1, 64},
    ConfigKey{"sampling.stop", SPECDEC_FIELD(sampling.stop), "stop strings, never shown"},
    ConfigKey{"sampling.stop_token_ids", SPECDEC_FIELD(sampling.stop_token_ids),
              "tokens that end the output, beside the model's own", 0, kMaxInt},
    ConfigKey{"sampling.ignore_eos", SPECDEC_FIELD(sampling.ignore_eos),
              "go on past the model's own end of sequence"},
    ConfigKey{"sampling.logit_bias", SPECDEC_FIELD(sampling.logit_bias),
              "{ token id = bias }; -inf bans a token", -kMaxFloat, kMaxFloat},
};

#undef SPECDEC_FIELD

std::string_view last_part(std::string_view name) { return name.substr(name.rfind('.') + 1); }

std::vector<std::string_view> choices_of(const ConfigKey& key) {
  std::vector<std::string_view> result;
  for (std::string_view rest = key.choices; !rest.empty();) {
    const std::size_t bar = std::min(rest.find('|'), rest.size());
    result.push_back(rest.substr(0, bar));
    rest.remove_prefix(std::min(bar + 1, rest.size()));
  }
  return result;
}

std::string range(const ConfigKey& key, const char* what) {
  const bool whole = std::string_view(what).find("whole") != std::string_view::npos;
  const auto text = [&](double bound) {
    return whole ? std::to_string(static_cast<long long>(bound))
                 : float_text(static_cast<float>(bound));
  };
  const bool bounded = key.high < (whole ? kMaxInt : kMaxFloat);
  if (key.low == kAboveZero)
    return std::string(what) + " above 0" + (bounded ? " and at most " + text(key.high) : "");
  if (!bounded) return std::string(what) + ", " + text(key.low) + " or more";
  return std::string(what) + " from " + text(key.low) + " to " + text(key.high);
}

/// Also false for NaN.
bool within(const ConfigKey& key, double value) { return value >= key.low && value <= key.high; }

}  // namespace

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i + 1);
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t substituted = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({substituted, row[j] + 1, row[j + 1] + 1});
    }
  }
  return row.back();
}

std::span<const ConfigKey> config_keys() { return kKeys; }

const ConfigKey* find_config_key(std::string_view name) {
  const auto it = std::ranges::find(kKeys, name, &ConfigKey::name);
  return it == kKeys.end() ? nullptr : &*it;
}

bool is_config_section(std::string_view name) {
  return std::ranges::any_of(kKeys, [&](const ConfigKey& key) {
    return key.name.size() > name.size() && key.name.starts_with(name) &&
           key.name[name.size()] == '.';
  });
}

std::string_view nearest_config_name(std::string_view name) {
  name = name.substr(0, 200);  // hostile names are long
  std::string_view best;
  std::size_t best_distance = std::numeric_limits<std::size_t>::max();
  const auto consider = [&](std::string_view known) {
    std::size_t distance = 2 * edit_distance(name, known);
    // The right name in the wrong section is further than one slip of a key and nearer than two.
    if (last_part(known) == last_part(name)) distance = std::min<std::size_t>(distance, 3);
    if (distance < best_distance) {
      best_distance = distance;
      best = known;
    }
  };
  for (const ConfigKey& key : kKeys) consider(key.name);
  for (const ConfigKey& key : kKeys) consider(key.section());
  return best;
}

std::string expectation(const ConfigKey& key) {
  if (!key.choices.empty()) {
    std::string text = "one of";
    for (std::string_view choice : choices_of(key))
      text += (text.size() == 6 ? " " : ", ") + std::string(choice);
    return text;
  }
  Config unused;
  struct Visitor {
    const ConfigKey& key;
    std::string operator()(std::string*) const {
      switch (key.kind) {
        case ConfigKey::Kind::path:
          return "a path in quotes";
        case ConfigKey::Kind::method:
          return "the name of a drafter in quotes, or a list of names";
        case ConfigKey::Kind::plain:
          break;
      }
      return "a text in quotes";
    }
    std::string operator()(int*) const { return range(key, "a whole number"); }
    std::string operator()(float*) const { return range(key, "a number"); }
    std::string operator()(bool*) const { return "true or false"; }
    std::string operator()(std::optional<std::uint64_t>*) const {
      return "a whole number from 0 to 18446744073709551615, or \"random\"";
    }
    std::string operator()(std::vector<std::string>*) const {
      return "a list of texts that are not empty, as in [\"END\"]";
    }
    std::string operator()(std::vector<TokenId>*) const {
      return "a list of token ids (0 or more), as in [1, 2]";
    }
    std::string operator()(std::unordered_map<TokenId, float>*) const {
      return "a table of token id (0 or more) = finite number or -inf, as in { 42 = -1.5 }";
    }
    std::string operator()(std::vector<std::pair<int, int>>*) const {
      return "a list of [batch size from which, length] pairs, batch sizes rising from 1, lengths "
             "0 "
             "to 64, as in [[1, 5], [8, 3], [32, 0]]";
    }
  };
  return std::visit(Visitor{key}, key.field(unused));
}

template <>
std::string value_problem(const ConfigKey& key, const std::string& value) {
  if (!key.choices.empty() && std::ranges::count(choices_of(key), value) == 0)
    return "is " + quote(value);
  if (key.kind == ConfigKey::Kind::method && value.empty()) return "is empty";
  if (!is_valid_utf8(value)) return "is not valid UTF-8";
  if (value.find('\0') != std::string::npos) return "holds a zero byte";
  return "";
}

template <>
std::string value_problem(const ConfigKey& key, const int& value) {
  const bool known = key.choices.empty()
                         ? within(key, value)
                         : std::ranges::count(choices_of(key), std::to_string(value)) > 0;
  return known ? "" : "is " + std::to_string(value);
}

template <>
std::string value_problem(const ConfigKey& key, const float& value) {
  return within(key, static_cast<double>(value)) ? "" : "is " + float_text(value);
}

template <>
std::string value_problem(const ConfigKey&, const bool&) {
  return "";
}

template <>
std::string value_problem(const ConfigKey&, const std::optional<std::uint64_t>&) {
  return "";
}

template <>
std::string value_problem(const ConfigKey&, const std::vector<std::string>& value) {
  for (const std::string& text : value) {
    if (text.empty()) return "holds an empty text";
    if (!is_valid_utf8(text)) return "holds a text that is not valid UTF-8";
  }
  return "";
}

template <>
std::string value_problem(const ConfigKey& key, const std::vector<TokenId>& value) {
  for (TokenId token : value)
    if (!within(key, token)) return "holds " + std::to_string(token);
  return "";
}

template <>
std::string value_problem(const ConfigKey& key, const std::unordered_map<TokenId, float>& value) {
  for (const auto& [token, bias] : value) {
    if (token < 0) return "holds token " + std::to_string(token);
    const bool banned = std::isinf(bias) && bias < 0;
    if (!banned && !within(key, static_cast<double>(bias)))
      return "gives token " + std::to_string(token) + " the bias " + float_text(bias);
  }
  return "";
}

template <>
std::string value_problem(const ConfigKey& key, const std::vector<std::pair<int, int>>& value) {
  if (value.empty()) return "is empty";
  int previous = 0;
  for (const auto& [batch_size, length] : value) {
    const std::string pair = pair_text({batch_size, length});
    if (previous == 0 && batch_size != 1) return "begins with " + pair;
    if (batch_size <= previous) return "holds " + pair + " after " + std::to_string(previous);
    if (!within(key, length)) return "holds " + pair;
    previous = batch_size;
  }
  return "";
}

std::string environment_name(std::string_view key) {
  std::string name = "SPECDEC_";
  for (char c : key)
    name += c == '.' ? '_' : (c >= 'a' && c <= 'z') ? static_cast<char>(c - 'a' + 'A') : c;
  return name;
}

}  // namespace specdec
