#include "support/engine_runs.h"

#ifdef SPECDEC_HAS_CUDA
#include <cuda_runtime_api.h>
#endif

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <map>
#include <numeric>
#include <random>

namespace specdec::testing {

namespace {

bool same_bits(float a, float b) { return std::memcmp(&a, &b, sizeof(a)) == 0; }

bool same_top(const std::vector<TokenLogprob>& a, const std::vector<TokenLogprob>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const auto& x, const auto& y) {
    return x.token == y.token && same_bits(x.logprob, y.logprob);
  });
}

}  // namespace

bool same_output(const RunResult& a, const RunResult& b) {
  return a.text == b.text && a.tokens == b.tokens && a.finish_reason == b.finish_reason &&
         a.error == b.error &&
         std::equal(a.logprobs.begin(), a.logprobs.end(), b.logprobs.begin(), b.logprobs.end(),
                    same_bits) &&
         std::equal(a.top_logprobs.begin(), a.top_logprobs.end(), b.top_logprobs.begin(),
                    b.top_logprobs.end(), same_top);
}

std::string describe_difference(const RunResult& a, const RunResult& b) {
  const std::size_t common = std::min(a.tokens.size(), b.tokens.size());
  for (std::size_t i = 0; i < common; ++i) {
    if (a.tokens[i] != b.tokens[i])
      return "token " + std::to_string(i) + ": " + std::to_string(a.tokens[i]) + " against " +
             std::to_string(b.tokens[i]);
    if (!same_bits(a.logprobs[i], b.logprobs[i]))
      return "logprob " + std::to_string(i) + ": " + std::to_string(a.logprobs[i]) + " against " +
             std::to_string(b.logprobs[i]);
    if (!same_top(a.top_logprobs[i], b.top_logprobs[i])) return "top logprobs " + std::to_string(i);
  }
  if (a.tokens.size() != b.tokens.size())
    return std::to_string(a.tokens.size()) + " tokens against " + std::to_string(b.tokens.size());
  if (a.finish_reason != b.finish_reason)
    return std::string("finish reason ") + to_string(a.finish_reason) + " against " +
           to_string(b.finish_reason) + " " + a.error + b.error;
  return a.text == b.text ? "no difference" : "text: \"" + a.text + "\" against \"" + b.text + "\"";
}

std::vector<RunResult> run_requests(Engine& engine, const std::vector<Request>& requests, int batch,
                                    std::uint32_t order_seed) {
  std::vector<std::size_t> order(requests.size());
  std::iota(order.begin(), order.end(), 0U);
  if (order_seed != 0) std::shuffle(order.begin(), order.end(), std::mt19937(order_seed));
  std::vector<RunResult> results(requests.size());
  std::map<RequestId, std::size_t> running;
  std::size_t next = 0;
  while (next < order.size() || !running.empty()) {
    while (next < order.size() && static_cast<int>(running.size()) < batch) {
      running[engine.submit(requests[order[next]])] = order[next];
      ++next;
    }
    engine.step();
    for (Output& output : engine.take_outputs()) {
      RunResult& result = results[running.at(output.id)];
      result.text += output.text;
      for (OutputToken& token : output.tokens) {
        result.tokens.push_back(token.token);
        result.logprobs.push_back(token.logprob);
        result.top_logprobs.push_back(std::move(token.top_logprobs));
      }
      if (!output.finished()) continue;
      result.finish_reason = output.finish_reason;
      if (output.error) result.error = output.error->what();
      result.stats = output.stats;
      running.erase(output.id);
    }
  }
  return results;
}

bool is_sanitized() {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return true;
#else
  return false;
#endif
}

std::string real_target_path() {
  if (is_sanitized()) return {};  // minutes; the micro models take the same paths
  const char* set = std::getenv("SPECDEC_TEST_TARGET");
  const std::string path =
      set != nullptr ? set : SPECDEC_SOURCE_DIR "/.cache/models/SmolLM2-135M-Instruct.Q4_1.gguf";
  return std::filesystem::exists(path) ? path : std::string();
}

std::string draft_model_path() { return SPECDEC_SOURCE_DIR "/models/smollm2-135m-draft.Q8_0.gguf"; }

std::string test_device() {
  const char* set = std::getenv("SPECDEC_TEST_DEVICE");
  return set != nullptr ? set : "cpu";
}

bool device_missing() {
  if (test_device() == "cpu") return false;
#ifdef SPECDEC_HAS_CUDA
  // No backend: what to skip is asked while static objects are made, before kernels are known.
  int count = 0;
  return ::cudaGetDeviceCount(&count) != cudaSuccess || count == 0;
#else
  return true;
#endif
}

bool full_tests() {
  const char* set = std::getenv("SPECDEC_TEST_FULL");
  return set != nullptr && std::string_view(set) == "1";
}

}  // namespace specdec::testing
