// An engine over a tiny random model, in a folder of its own.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <string>

#include "specdec/engine.h"
#include "support/model_writer.h"

namespace specdec::testing {

class TinyEngine {
 public:
  TinyEngine() {
    std::string pattern =
        (std::filesystem::temp_directory_path() / "specdec-runner-XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
    write_gguf(folder_ / "target.gguf", random_model(micro_model_config(), 3));
    config_.target.model = (folder_ / "target.gguf").string();
    config_.kv_cache.memory_mb = 8;
    config_.backend.threads = 1;
  }
  ~TinyEngine() { std::filesystem::remove_all(folder_); }
  Engine load() const { return Engine::load(config_); }
  /// What load() is given.
  Config& config() { return config_; }

 private:
  std::filesystem::path folder_;
  Config config_;
};

}  // namespace specdec::testing
