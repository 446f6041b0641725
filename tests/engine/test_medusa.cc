#include <doctest/doctest.h>

#include <unistd.h>

#include <filesystem>

#include "engine/micro_models.h"
#include "specdec/error.h"
#include "support/engine_runs.h"
#include "support/model_writer.h"

using namespace specdec;
using namespace specdec::testing;

namespace {

Request request_of(int length) {
  Request request;
  for (int t = 0; t < length; ++t) request.prompt_tokens.push_back((13 * t + 5) % 250);
  request.sampling.seed = 3;
  request.sampling.temperature = 0;
  request.sampling.max_tokens = 40;
  request.sampling.ignore_eos = true;
  return request;
}

struct Trees {
  std::vector<TreeSnapshot> drafted;  // of the steps that drafted
  int cached = 0;
};

Trees run(Engine& engine, const Request& request) {
  Trees trees;
  engine.record_trees(true);
  const RequestId id = engine.submit(request);
  while (engine.step()) {
    const TreeSnapshot tree = engine.last_tree(id);
    if (tree.tokens.size() > 1) trees.drafted.push_back(tree);
    for (const Output& output : engine.take_outputs())
      if (output.finished()) trees.cached = output.stats.num_cached_tokens;
  }
  return trees;
}

}  // namespace

// Heads that repeat the target's own head say, of the feature of the token before the root, what
// the target said of it: the root. Any other feature, or one without the final norm, says something
// else.
TEST_CASE("Medusa heads read the target's feature of the token before the root") {
  const std::filesystem::path folder =
      std::filesystem::temp_directory_path() / ("specdec-medusa-" + std::to_string(::getpid()));
  ModelConfig shape = micro_model_config();
  shape.num_layers = 3;
  const RandomModel target = random_model(shape, 1);
  std::filesystem::create_directories(folder);
  write_gguf(folder / "target.gguf", target);
  write_medusa_folder(folder / "heads", copying_medusa(target, 3), {.num_heads = 3});
  Config config = micro_config();
  config.target.model = (folder / "target.gguf").string();
  config.draft.model = (folder / "heads").string();
  config.draft.method = "medusa";
  config.draft.weight_type = "file";
  for (const int topk : {1, 2})
    for (const int budget : {256, 16}) {
      CAPTURE(topk);
      CAPTURE(budget);
      config.draft.tree.topk = topk;
      config.scheduler.max_num_batched_tokens = budget;
      config.scheduler.max_num_seqs = 4;
      Engine engine = Engine::load(config);
      // The second prompt is a hit in the cache, all but its last tokens. No chunk holds the last
      // token alone: with it for a root, a draft would follow what the target never said.
      for (const int length : {35, 42}) {
        const Trees trees = run(engine, request_of(length));
        REQUIRE(trees.drafted.size() > 5);
        if (length == 42) CHECK(trees.cached >= 32);
        for (const TreeSnapshot& tree : trees.drafted) CHECK(tree.tokens[1] == tree.tokens[0]);
      }
    }
  std::filesystem::remove_all(folder);
}

TEST_CASE("Medusa drafts no deeper than it has heads, and a static tree as it is told") {
  Config config = micro_medusa_config();
  config.draft.length.num_speculative_tokens = 8;
  Engine chain = Engine::load(config);
  for (const TreeSnapshot& tree : run(chain, request_of(20)).drafted)
    CHECK(tree.tokens.size() <= 4);  // three heads

  config.draft.tree.choices = {"0", "1", "2", "0.0", "0.1", "1.0", "0.0.3"};
  Engine engine = Engine::load(config);
  const Trees trees = run(engine, request_of(20));
  REQUIRE(trees.drafted.size() > 5);
  const std::vector<int> parents = {-1, 0, 0, 0, 1, 1, 2, 4};
  int whole = 0;
  for (const TreeSnapshot& tree : trees.drafted) {
    whole += tree.parents == parents ? 1 : 0;
    // Near the end of the answer less depth is left; what stays is the tree without it.
    CHECK(tree.tokens.size() <= parents.size());
    // A level's tokens are its head's, whatever lies above.
    if (tree.tokens.size() > 6) CHECK(tree.tokens[4] == tree.tokens[6]);
  }
  CHECK(whole > 5);
}

TEST_CASE("Medusa heads under another method's name, and malformed choices, are refused") {
  Config config = micro_medusa_config();
  config.draft.method = "eagle3";
  CHECK(refusal(config).find("is a folder of Medusa heads") != std::string::npos);
  config = micro_eagle_config();
  config.draft.method = "medusa";
  CHECK(refusal(config).find("set draft.method = \"eagle3\"") != std::string::npos);
  config = micro_medusa_config();
  config.draft.model.clear();
  CHECK(refusal(config).find("draft.model is not set") != std::string::npos);
  config = micro_medusa_config();
  config.draft.tree.choices = {"0.1"};
  CHECK(refusal(config).find("has no parent") != std::string::npos);
  config.draft.tree.choices = {"0"};
  config.verify.method = "block";
  CHECK(refusal(config).find("draft.tree.choices") != std::string::npos);
}
