#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "specdec/export.h"
#include "specdec/sampling_options.h"

namespace specdec {

/// `[target]`
struct TargetConfig {
  std::string model;  ///< GGUF file, or a Hugging Face folder with config.json, safetensors and
                      ///< tokenizer.json

  bool operator==(const TargetConfig&) const = default;
};

/// `[draft.length]`
struct DraftLengthConfig {
  std::string mode = "fixed";      ///< fixed | schedule | adaptive
  int num_speculative_tokens = 5;  ///< longest path of a draft, 1 to 64; adaptive: the most
  std::vector<std::pair<int, int>> schedule = {
      {1, 5}, {8, 3}, {32, 0}};  ///< batch size from which -> length
  /// A model draft is cut before a token whose parent's draft distribution gives its best token
  /// less than this: decided from the shape of the distribution, so it never biases the output. 0 =
  /// off.
  float min_confidence = 0.0f;
  /// Where measured costs are kept between starts: auto ($XDG_CACHE_HOME/specdec/costs.json) | off
  /// | a file, relative to the working folder. adaptive only.
  std::string cost_cache = "auto";

  bool operator==(const DraftLengthConfig&) const = default;
};

/// `[draft.tree]`
struct DraftTreeConfig {
  int topk = 1;               ///< children per node; 1 = a chain
  int num_draft_tokens = 16;  ///< most nodes below the root, when topk > 1
  /// A static tree in their place: paths of ranks below the root, "0", "0.0", "1": the best token,
  /// the best after it, the second best. Empty: trees grow where the draft is sure.
  std::vector<std::string> choices;

  bool operator==(const DraftTreeConfig&) const = default;
};

/// `[draft.ngram]`
struct NgramConfig {
  int prompt_lookup_min = 2;  ///< shortest suffix that is looked up
  int prompt_lookup_max = 5;  ///< longest suffix that is looked up

  bool operator==(const NgramConfig&) const = default;
};

/// `[draft.suffix]`: SuffixDecoding (arXiv 2411.04975)
struct SuffixConfig {
  int max_tree_depth = 24;       ///< longest suffix that is matched
  float max_spec_factor = 1.0f;  ///< tokens drafted for each token of the match
  int max_spec_offset = 0;       ///< ... and beside them
  float min_token_prob = 0.1f;   ///< a path that is less likely is not drafted
  int cache_mb = 64;             ///< MiB for outputs of ended requests; 0 = the own text alone

  bool operator==(const SuffixConfig&) const = default;
};

/// `[draft.early_exit]`: the target drafts for itself (LayerSkip, arXiv 2404.16710)
struct EarlyExitConfig {
  /// The target's first layers that draft, below all of its layers; takes a draft model's place. 0
  /// = off.
  int exit_layer = 0;

  bool operator==(const EarlyExitConfig&) const = default;
};

/// `[draft.lookahead]`: Lookahead decoding (arXiv 2402.02057)
struct LookaheadConfig {
  int window_size = 4;            ///< columns of the window, 1 to 64
  int ngram_size = 4;             ///< tokens of an n-gram, the first included, 3 to 16
  int verification_set_size = 4;  ///< n-grams that a step verifies, 1 to 64
  int pool_size = 1024;           ///< n-grams that a request keeps

  bool operator==(const LookaheadConfig&) const = default;
};

/// `[draft]`
struct DraftConfig {
  /// none | ngram | suffix | lookahead | draft_model | eagle3 | early_exit | medusa | the name of a
  /// drafter added with Engine::add_drafter; several joined by '+' (a list in TOML) feed one tree.
  std::string method = "none";
  /// Draft model, EAGLE-3 head or Medusa heads; loaded when set, whatever the method.
  std::string model;
  /// same | translate: what a draft model of another vocabulary gets: an error that shows the first
  /// difference, or its text in the target's tokens (string-level exact match, arXiv 2502.05202).
  std::string vocabulary = "same";
  /// q4_1 | q8_0 | file: what the matrices of heads are kept in. q4_1 leaves 8 bits to what reads
  /// the target's features.
  std::string weight_type = "q8_0";
  /// A file of token numbers, one a line: a draft model's head knows these alone (FR-Spec, arXiv
  /// 2502.14856), and is read that much faster. Empty: all of them.
  std::string vocabulary_list;
  DraftLengthConfig length;
  DraftTreeConfig tree;
  NgramConfig ngram;
  SuffixConfig suffix;
  EarlyExitConfig early_exit;
  LookaheadConfig lookahead;

  bool operator==(const DraftConfig&) const = default;
};

/// `[verify]`
struct VerifyConfig {
  std::string method = "coupled";  ///< coupled | rejection | block | traversal | typical (lossy)
  float typical_epsilon = 0.09f;   ///< typical acceptance (arXiv 2401.10774): hard threshold
  float typical_delta = 0.3f;      ///< typical acceptance: entropy factor

  bool operator==(const VerifyConfig&) const = default;
};

/// `[kv_cache]`
struct KvCacheConfig {
  int memory_mb = 512;       ///< one budget in MiB for target and draft together
  int block_size = 32;       ///< tokens per block: 16, 32 or 64
  std::string type = "f16";  ///< f16 | f32
  bool prefix_cache = true;

  bool operator==(const KvCacheConfig&) const = default;
};

/// `[scheduler]`
struct SchedulerConfig {
  int max_num_seqs = 32;             ///< sequences in one step
  int max_num_batched_tokens = 512;  ///< rows of one step: the token budget
  int max_queue = 1024;              ///< requests that may wait

  bool operator==(const SchedulerConfig&) const = default;
};

/// `[backend]`
struct BackendConfig {
  std::string device = "auto";  ///< auto | cuda | cpu; auto: a GPU where there is one
  int threads = 0;              ///< 0 = the physical cores this process may use
  bool device_loop = true;      ///< on a GPU: let steps follow each other without the host
  bool device_sampling = true;  ///< on a GPU: draw tokens there in single steps too
  bool step_graphs = true;      ///< on a GPU: run passes of single steps as graphs
  std::string isa = "auto";     ///< auto | avx2 | avx512 | amx: what the CPU kernels use; auto: the
                                ///< fastest here, which is never amx
  /// f16 | tf32 | f32: how a GPU keeps and multiplies the matrices that a file has in float32. f16:
  /// two bytes a weight; tf32: four, with float32's range and, like f16, ten bits of fraction; f32:
  /// with its accuracy, by three products in TF32.
  std::string float32_weights = "f16";
  /// On a GPU, quantised matrices that take at most so many MiB in f16 are kept as that: products
  /// have the same bits, and small ones, which wait for each other rather than for memory, are
  /// quicker. Tables (embeddings, tied heads) stay quantised. 0: none.
  int dequantise_mb = 4;

  bool operator==(const BackendConfig&) const = default;
};

/// `[grammar]`: compiled grammars that Engine::grammar() keeps
struct GrammarConfig {
  int cache_mb = 256;        ///< MiB for all of them together
  int cache_entries = 1000;  ///< the most of them

  bool operator==(const GrammarConfig&) const = default;
};

/// `[log]`
struct LogConfig {
  std::string level = "warn";  ///< trace | debug | info | warn | error | off

  bool operator==(const LogConfig&) const = default;
};

/// Everything specdec.toml says. Precedence: defaults < file < SPECDEC_* environment < overrides
/// (command-line flags). A value type; not thread-safe while it is being changed.
struct SPECDEC_API Config {
  TargetConfig target;
  DraftConfig draft;
  VerifyConfig verify;
  KvCacheConfig kv_cache;
  SchedulerConfig scheduler;
  BackendConfig backend;
  GrammarConfig grammar;
  LogConfig log;
  SamplingOptions sampling;  ///< `[sampling]`: what a front end starts from; Engine never reads it

  /// Reads and checks a file. Relative model paths are taken relative to the file. Throws
  /// Error(invalid_config) with file, line, key and, for an unknown key, the nearest known one;
  /// Error(io) when the file cannot be read.
  static Config from_file(const std::filesystem::path& path);
  /// The same for a text; `name` stands for the file in messages.
  static Config from_string(std::string_view toml, std::string_view name = "<string>");

  /// Sets one dotted key ("draft.length.num_speculative_tokens") from text, as a flag or variable
  /// would. `origin` ("--seed", "SPECDEC_SAMPLING_SEED") is what messages and to_toml() name.
  /// Throws Error(invalid_config).
  void set(std::string_view key, std::string_view value, std::string_view origin);
  /// Applies every SPECDEC_* variable: SPECDEC_ + the dotted key in capitals with '_' for '.'.
  /// Unknown ones throw.
  void apply_environment();
  /// Throws Error(invalid_config) when values contradict each other or a required one is missing.
  void validate() const;
  /// Every key with its value and, as a comment, where it came from; valid TOML (what
  /// --print-config prints).
  std::string to_toml() const;
  /// All dotted keys, in the order of to_toml().
  static std::vector<std::string> keys();
  /// One line about a key, without a full stop; empty for an unknown one.
  static std::string_view describe(std::string_view key);

  /// Where each key that is not at its default came from: "specdec.toml:12", "SPECDEC_...",
  /// "--flag".
  std::map<std::string, std::string, std::less<>> origins;

  /// Equal values; origins do not count.
  bool operator==(const Config& other) const;
};

}  // namespace specdec
