#include "batch.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "specdec/error.h"

namespace specdec::cuda_test {

using namespace kernels::cuda;

namespace {

class HostRows final : public TargetRows {
 public:
  HostRows(const TestBatch& batch, std::size_t sequence, RowSampler& sampler)
      : batch_(batch),
        sequence_(batch.sequences()[sequence]),
        first_row_(batch.first_row(sequence)),
        sampler_(sampler) {}

  int vocab_size() const override { return batch_.vocab(); }
  OutputToken sample(int node) override { return sampler_.sample(row(node), context(node)); }
  void probabilities(int node, std::span<float> out) override {
    sampler_.probabilities(row(node), context(node), out);
  }
  void fill_logprobs(int node, OutputToken& token) override {
    sampler_.fill_logprobs(row(node), context(node), token);
  }

 private:
  std::span<const float> row(int node) const { return batch_.row(first_row_ + node); }
  const RowContext& context(int node) {
    path_.clear();
    for (const std::int32_t at : sequence_.tree.path_to(node))
      if (at > 0) path_.push_back(sequence_.tree.tokens[static_cast<std::size_t>(at)]);
    const int depth = static_cast<int>(path_.size());
    context_ = {.options = &sequence_.options,
                .seed = sequence_.seed,
                .position = sequence_.length + depth,
                .penalties = &sequence_.penalties,
                .path = path_,
                .num_output_tokens = sequence_.num_output + depth,
                .end_tokens = sequence_.end_tokens};
    return context_;
  }

  const TestBatch& batch_;
  const TestSequence& sequence_;
  int first_row_;
  RowSampler& sampler_;
  std::vector<TokenId> path_;
  RowContext context_;
};

template <typename T>
std::uint32_t bits(T value) {
  return std::bit_cast<std::uint32_t>(value);
}

}  // namespace

Launch test_launch() {
  static const DeviceInfo device = [] {
    DeviceInfo info;
    cudaDeviceProp properties{};
    REQUIRE(cudaGetDeviceProperties(&properties, 0) == cudaSuccess);
    REQUIRE(describe_device(0, properties, info) == cudaSuccess);
    return info;
  }();
  Launch to;
  to.device = device;
  return to;
}

TestBatch::TestBatch(int vocab, std::vector<TestSequence> sequences, std::vector<float> logits,
                     int padding)
    : vocab_(vocab), sequences_(std::move(sequences)), logits_(std::move(logits)) {
  std::vector<std::int32_t> sizes, tokens, parents, depths;
  std::vector<RowSampling> options;
  std::vector<SequenceState> states;
  for (std::size_t i = 0; i < sequences_.size(); ++i) {
    const TestSequence& sequence = sequences_[i];
    first_rows_.push_back(num_rows());
    sizes.push_back(sequence.tree.size());
    capacity_ = std::max(capacity_, sequence.tree.max_depth() + 1);
    for (int node = 0; node < sequence.tree.size() + padding; ++node) {
      const bool there = node < sequence.tree.size();
      const auto at = static_cast<std::size_t>(node);
      sequence_of_row_.push_back(there ? static_cast<std::int32_t>(i) : -1);
      tokens.push_back(there ? sequence.tree.tokens[at] : -7);
      parents.push_back(there ? sequence.tree.parents[at] : -7);
      depths.push_back(there ? sequence.tree.depths[at] : -7);
    }
    RowSampling sampling = row_sampling(sequence.options, sequence.seed);
    if (penalises(sequence.options)) {
      counts_.emplace_back(token_counts(sequence.penalties, vocab));
      sampling.token_counts = counts_.back().get();
    }
    if (!sequence.options.logit_bias.empty()) {
      std::vector<std::int32_t> ids;
      std::vector<float> values;
      for (const auto& [token, bias] : sequence.options.logit_bias) {
        ids.push_back(token);
        values.push_back(bias);
      }
      sampling.num_bias = static_cast<std::int32_t>(ids.size());
      ids_.emplace_back(ids);
      sampling.bias_tokens = ids_.back().get();
      biases_.emplace_back(values);
      sampling.bias_values = biases_.back().get();
    }
    if (!sequence.end_tokens.empty()) {
      sampling.num_end_tokens = static_cast<std::int32_t>(sequence.end_tokens.size());
      ids_.emplace_back(sequence.end_tokens);
      sampling.end_tokens = ids_.back().get();
    }
    options.push_back(sampling);
    states.push_back({sequence.length, sequence.num_output});
  }
  const auto rows = static_cast<std::size_t>(num_rows());
  const std::size_t count = sequences_.size();
  const auto chunks = static_cast<std::size_t>(num_chunks(vocab));
  logits_.resize(rows * static_cast<std::size_t>(vocab));
  device_logits_ = DeviceArray<float>(logits_);
  options_ = DeviceArray<RowSampling>(options);
  states_ = DeviceArray<SequenceState>(states);
  device_first_rows_ = DeviceArray<std::int32_t>(first_rows_);
  sizes_ = DeviceArray<std::int32_t>(sizes);
  device_sequence_of_row_ = DeviceArray<std::int32_t>(sequence_of_row_);
  tree_tokens_ = DeviceArray<std::int32_t>(tokens);
  parents_ = DeviceArray<std::int32_t>(parents);
  depths_ = DeviceArray<std::int32_t>(depths);
  row_states_ = DeviceArray<RowState>(rows);
  chunk_keys_ = DeviceArray<std::uint32_t>(rows * chunks);
  raw_chunk_keys_ = DeviceArray<std::uint32_t>(rows * chunks);
  scores_ = DeviceArray<float>(logits_.size());
  digits_ = DeviceArray<unsigned long long>(rows * kDigitBins);
  slice_best_ = DeviceArray<SliceBest>(rows * static_cast<std::size_t>(num_slices(vocab)));
  tokens_ = DeviceArray<std::int32_t>(rows);
  status_ = DeviceArray<RowStatus>(rows);
  path_lengths_ = DeviceArray<std::int32_t>(count);
  path_status_ = DeviceArray<RowStatus>(count);
  path_nodes_ = DeviceArray<std::int32_t>(count * static_cast<std::size_t>(capacity_));
  path_tokens_ = DeviceArray<std::int32_t>(count * static_cast<std::size_t>(capacity_));
  for (auto* poisoned : {&path_lengths_, &path_nodes_, &path_tokens_, &tokens_})
    poisoned->fill(0xEE);
  scores_.fill(0xFF);  // NaN: nothing reads what was not written
  chunk_keys_.fill(0xFF);
  raw_chunk_keys_.fill(0xFF);
}

void TestBatch::set_masks(std::span<const std::uint32_t> masks,
                          std::span<const std::int32_t> of_rows) {
  masks_ = DeviceArray<std::uint32_t>(masks);
  mask_of_row_ = DeviceArray<std::int32_t>(of_rows);
}

SampleRowsParams TestBatch::params() const {
  SampleRowsParams out;
  out.vocab = vocab_;
  out.tree = {.num_sequences = static_cast<std::int32_t>(sequences_.size()),
              .num_rows = num_rows(),
              .first_rows = device_first_rows_.get(),
              .sizes = sizes_.get(),
              .sequence_of_row = device_sequence_of_row_.get(),
              .tokens = tree_tokens_.get(),
              .parents = parents_.get(),
              .depths = depths_.get()};
  out.logits = device_logits_.get();
  out.options = options_.get();
  out.sequences = states_.get();
  out.masks = masks_.get();
  out.mask_of_row = mask_of_row_.size() > 0 ? mask_of_row_.get() : nullptr;
  out.scratch = {.states = row_states_.get(),
                 .chunk_keys = chunk_keys_.get(),
                 .raw_chunk_keys = raw_chunk_keys_.get(),
                 .scores = needs().edits ? scores_.get() : nullptr,
                 .digits = digits_.get(),
                 .slice_best = slice_best_.get()};
  out.tokens = tokens_.get();
  out.status = status_.get();
  return out;
}

SamplingNeeds TestBatch::needs() const {
  SamplingNeeds needs;
  needs.edits = mask_of_row_.size() > 0;
  for (const TestSequence& sequence : sequences_) add_needs(sequence.options, vocab_, needs);
  return needs;
}

AcceptedPaths TestBatch::paths() const {
  return {.capacity = capacity_,
          .lengths = path_lengths_.get(),
          .nodes = path_nodes_.get(),
          .tokens = path_tokens_.get(),
          .status = path_status_.get()};
}

TestBatch::HostResult TestBatch::host(std::size_t sequence, RowSampler& sampler,
                                      VerifyMethod method) const {
  HostRows rows(*this, sequence, sampler);
  HostResult result;
  try {
    const TestSequence& of = sequences_[sequence];
    result.path = verify(of.tree, rows,
                         {.method = method,
                          .seed = of.seed,
                          .position = of.length,
                          .greedy = of.options.temperature == 0});
  } catch (const Error& error) {
    result.error = error;
  }
  return result;
}

TestBatch::DeviceResult TestBatch::device(const Launch& to) const {
  DeviceResult result;
  result.capacity = capacity_;
  for (const TestSequence& sequence : sequences_)
    result.most = std::max(result.most, sequence.options.logprobs);
  const std::size_t entries = sequences_.size() * static_cast<std::size_t>(capacity_);
  DeviceArray<float> logprobs(entries);
  DeviceArray<std::int32_t> top_tokens(entries * static_cast<std::size_t>(result.most));
  DeviceArray<float> top_logprobs(entries * static_cast<std::size_t>(result.most));
  REQUIRE(sample_and_accept(params(), needs(), paths(), to) == cudaSuccess);
  REQUIRE(path_logprobs({.rows = params(),
                         .paths = paths(),
                         .most = result.most,
                         .logprobs = logprobs.get(),
                         .top_tokens = top_tokens.get(),
                         .top_logprobs = top_logprobs.get()},
                        to) == cudaSuccess);
  REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
  const int most = result.most;
  result = read_paths();
  result.most = most;
  result.logprobs = logprobs.read();
  result.top_tokens = top_tokens.read();
  result.top_logprobs = top_logprobs.read();
  return result;
}

TestBatch::DeviceResult TestBatch::read_paths() const {
  DeviceResult result;
  result.capacity = capacity_;
  result.lengths = path_lengths_.read();
  result.nodes = path_nodes_.read();
  result.tokens = path_tokens_.read();
  result.status = path_status_.read();
  return result;
}

void TestBatch::check(const Launch& to) const {
  RowSampler sampler(vocab_);
  const DeviceResult device = this->device(to);
  for (std::size_t i = 0; i < sequences_.size(); ++i) {
    CAPTURE(i);
    const HostResult host = this->host(i, sampler);
    if (host.error.has_value()) {
      CHECK(device.status[i] != RowStatus::ok);
      CHECK(device.lengths[i] == 0);
      const bool model = host.error->code() == ErrorCode::invalid_model;
      CHECK(model == (device.status[i] == RowStatus::bad_logits ||
                      device.status[i] == RowStatus::no_logits));
      continue;
    }
    REQUIRE(device.status[i] == RowStatus::ok);
    const AcceptedPath& path = host.path;
    REQUIRE(device.lengths[i] == static_cast<int>(path.tokens.size()));
    for (std::size_t j = 0; j < path.tokens.size(); ++j) {
      CAPTURE(j);
      const std::size_t at = i * static_cast<std::size_t>(device.capacity) + j;
      const OutputToken& token = path.tokens[j];
      CHECK(device.nodes[at] == path.nodes[j]);
      REQUIRE(device.tokens[at] == token.token);
      if (sequences_[i].options.logprobs < 0) continue;
      CHECK(bits(device.logprobs[at]) == bits(token.logprob));
      for (std::size_t k = 0; k < token.top_logprobs.size(); ++k) {
        CAPTURE(k);
        const std::size_t entry = at * static_cast<std::size_t>(device.most) + k;
        REQUIRE(device.top_tokens[entry] == token.top_logprobs[k].token);
        REQUIRE(bits(device.top_logprobs[entry]) == bits(token.top_logprobs[k].logprob));
      }
    }
  }
  const std::vector<RowState> states = row_states_.read();
  for (const RowState& state : states) CHECK((state.best == 0 && state.dense == 0));
  const std::vector<unsigned long long> digits = digits_.read();
  CHECK(std::count(digits.begin(), digits.end(), 0ull) == static_cast<long>(digits.size()));
}

}  // namespace specdec::cuda_test
