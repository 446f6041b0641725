#include "engine/device_sampler.h"

#include <algorithm>

#include "engine/backend/cuda_error.h"
#include "engine/device_turn.h"
#include "engine/row_sampling.h"

namespace specdec {

namespace cuda = kernels::cuda;

namespace {

constexpr int kMostRows = 128;     // nodes of the trees that are drawn at a time
constexpr int kMostMasks = 1024;   // 6 MB at a vocabulary of 49,152 tokens
constexpr std::int32_t kAll = -1;  // every token may follow

}  // namespace

DeviceSampler::DeviceSampler(CudaBackend& backend, int vocab_size, int max_sequences, int most_rows,
                             bool coupled)
    : backend_(backend),
      vocab_size_(vocab_size),
      most_rows_(most_rows),
      coupled_(coupled),
      requests_(backend, vocab_size, max_sequences),
      masks_(vocab_size, kMostMasks, most_rows, backend.stream()) {
  Arena sizes(nullptr);
  place_scratch(sizes);
  scratch_memory_ = backend.allocate(sizes.used(), MemoryUse::scratch);
  Arena parts(scratch_memory_.as<std::byte>());
  place_scratch(parts);
}

void DeviceSampler::place_scratch(Arena& arena) {
  const auto rows = static_cast<std::size_t>(most_rows_);
  const auto chunks = static_cast<std::size_t>(cuda::num_chunks(vocab_size_));
  arena.take(scratch_.states, rows);
  arena.take(scratch_.chunk_keys, rows * chunks);
  arena.take(scratch_.raw_chunk_keys, rows * chunks);
  arena.take(scratch_.scores, rows * static_cast<std::size_t>(vocab_size_));
  arena.take(scratch_.digits, rows * cuda::kDigitBins);
  arena.take(scratch_.slice_best, rows * static_cast<std::size_t>(cuda::num_slices(vocab_size_)));
}

DeviceSampler::Entry DeviceSampler::Entry::of(Arena& arena, std::size_t trees, std::size_t rows) {
  Entry entry;
  arena.take(entry.sampling, trees);
  arena.take(entry.states, trees);
  arena.take(entry.first_rows, trees);
  arena.take(entry.sizes, trees);
  for (std::int32_t** part :
       {&entry.sequence_of_row, &entry.tokens, &entry.parents, &entry.depths, &entry.masks})
    arena.take(*part, rows);
  return entry;
}

DeviceSampler::Result DeviceSampler::Result::of(Arena& arena, const Shape& shape) {
  const auto trees = static_cast<std::size_t>(shape.trees);
  const std::size_t tokens = trees * static_cast<std::size_t>(shape.capacity);
  const std::size_t top = tokens * static_cast<std::size_t>(std::max(0, shape.most_logprobs));
  Result result{.paths = {.capacity = shape.capacity}};
  arena.take(result.paths.lengths, trees);
  arena.take(result.paths.status, trees);
  arena.take(result.paths.nodes, tokens);
  arena.take(result.paths.tokens, tokens);
  arena.take(result.tokens, static_cast<std::size_t>(shape.rows));
  arena.take(result.status, static_cast<std::size_t>(shape.rows));
  if (shape.most_logprobs < 0) return result;
  arena.take(result.logprobs, tokens);
  arena.take(result.top_tokens, top);
  arena.take(result.top_logprobs, top);
  return result;
}

bool DeviceSampler::serves(const Sequence& sequence) const {
  const SamplingOptions& options = sequence.request.sampling;
  return sequence.tree.size() <= most_rows_ && options.logprobs <= cuda::kMostLogprobs &&
         (coupled_ || options.temperature == 0);
}

bool DeviceSampler::begin(std::span<Sequence* const> batch) {
  trees_.clear();
  for (Sequence* sequence : batch) {
    if (!sequence->samples) continue;
    if (!serves(*sequence)) return false;
    trees_.push_back({sequence, {}});
  }
  for (std::size_t i = 0; i < trees_.size(); ++i)
    trees_[i].sampling = requests_.place(i, *trees_[i].sequence);
  return !trees_.empty();
}

std::vector<Sequence*> DeviceSampler::draw(const float* logits) {
  std::vector<Sequence*> left;
  std::size_t begin = 0;
  while (begin < trees_.size()) {
    std::size_t end = begin;
    for (int rows = 0; end < trees_.size(); ++end)
      if ((rows += trees_[end].sequence->tree.size()) > most_rows_) break;
    draw_group(std::span(trees_).subspan(begin, end - begin), logits, left);
    begin = end;
  }
  return left;
}

/// Writes the numbers of the masks that the tree's nodes are under. False: the host knows what is
/// wrong at one of them.
bool DeviceSampler::find_masks(const Sequence& sequence, std::span<std::int32_t> numbers) {
  std::fill(numbers.begin(), numbers.end(), kAll);
  if (!sequence.grammar) return true;
  for (std::size_t node = 0; node < numbers.size(); ++node) {
    if (const GrammarMask& mask = sequence.node_masks[node])
      numbers[node] = masks_.number(mask);
    else if (node == 0 || !sequence.node_grammar[node].must_end())
      return false;
  }
  return true;
}

void DeviceSampler::draw_group(std::span<const Tree> trees, const float* logits,
                               std::vector<Sequence*>& left) {
  Shape shape{.trees = static_cast<int>(trees.size())};
  cuda::SamplingNeeds needs;
  for (const Tree& tree : trees) {
    shape.rows += tree.sequence->tree.size();
    shape.capacity = std::max(shape.capacity, tree.sequence->tree.max_depth() + 1);
    shape.most_logprobs = std::max(shape.most_logprobs, tree.sequence->request.sampling.logprobs);
    add_needs(tree.sequence->request.sampling, vocab_size_, needs);
  }
  const Buffers buffers = reserve(shape);
  const Entry& host = buffers.host_entry;
  // The trees' roots have rows of the pass in the batch's order, with nothing between them.
  const int first_output = trees.front().sequence->first_output;
  for (std::size_t i = 0; i < trees.size(); ++i) {
    const Sequence& sequence = *trees[i].sequence;
    const DraftTree& tree = sequence.tree;
    const auto size = static_cast<std::size_t>(tree.size());
    const int first = sequence.first_output - first_output;
    host.sampling[i] = trees[i].sampling;
    host.states[i] = {sequence.size(), sequence.num_output()};
    host.first_rows[i] = first;
    host.sizes[i] = tree.size();
    std::fill_n(host.sequence_of_row + first, size, static_cast<std::int32_t>(i));
    std::copy_n(tree.tokens.begin(), size, host.tokens + first);
    std::copy_n(tree.parents.begin(), size, host.parents + first);
    std::copy_n(tree.depths.begin(), size, host.depths + first);
    const std::span masks(host.masks + first, size);
    if (!find_masks(sequence, masks)) {
      host.sizes[i] = 0;  // it has no path
      std::fill_n(host.sequence_of_row + first, size, -1);
    }
    needs.edits |= std::any_of(masks.begin(), masks.end(), [](std::int32_t m) { return m >= 0; });
  }
  masks_.send();
  const cudaStream_t stream = backend_.stream();
  check_cuda(::cudaMemcpyAsync(device_.as<void>(), pinned_.get(), buffers.entry_bytes,
                               cudaMemcpyHostToDevice, stream),
             "sending draft trees");

  const Entry& entry = buffers.entry;
  const Result& result = buffers.result;
  const cuda::Launch to{.stream = stream, .device = backend_.device(), .workspace = {}};
  const cuda::SampleRowsParams rows{
      .vocab = vocab_size_,
      .tree = {.num_sequences = shape.trees,
               .num_rows = shape.rows,
               .first_rows = entry.first_rows,
               .sizes = entry.sizes,
               .sequence_of_row = entry.sequence_of_row,
               .tokens = entry.tokens,
               .parents = entry.parents,
               .depths = entry.depths},
      .logits = logits + static_cast<std::ptrdiff_t>(first_output) * vocab_size_,
      .options = entry.sampling,
      .sequences = entry.states,
      .mask_of_row = entry.masks,
      .masks = masks_.table(),
      .scratch = scratch_,
      .tokens = result.tokens,
      .status = result.status};
  check_cuda(cuda::sample_and_accept(rows, needs, result.paths, to), "drawing tokens");
  if (shape.most_logprobs >= 0)
    check_cuda(cuda::path_logprobs({.rows = rows,
                                    .paths = result.paths,
                                    .most = shape.most_logprobs,
                                    .logprobs = result.logprobs,
                                    .top_tokens = result.top_tokens,
                                    .top_logprobs = result.top_logprobs},
                                   to),
               "reading log-probabilities");
  check_cuda(::cudaMemcpyAsync(pinned_.get() + buffers.entry_bytes,
                               device_.as<std::byte>() + buffers.entry_bytes, buffers.result_bytes,
                               cudaMemcpyDeviceToHost, stream),
             "reading tokens");
  check_cuda(::cudaStreamSynchronize(stream), "waiting for tokens");
  for (std::size_t i = 0; i < trees.size(); ++i)
    if (host.sizes[i] == 0 ||
        !take(buffers.host_result, shape, i, host.first_rows[i], *trees[i].sequence))
      left.push_back(trees[i].sequence);
}

/// Gives a sequence the path of tree `index`. False: there is a fault on it.
bool DeviceSampler::take(const Result& result, const Shape& shape, std::size_t index, int first_row,
                         Sequence& sequence) {
  if (result.paths.status[index] != cuda::RowStatus::ok) return false;
  const TokenLogprobs logprobs{result.logprobs, result.top_tokens, result.top_logprobs,
                               shape.most_logprobs};
  const int length = result.paths.lengths[index];
  for (int i = 0; i < length; ++i) {
    const std::size_t at =
        index * static_cast<std::size_t>(shape.capacity) + static_cast<std::size_t>(i);
    OutputToken token;
    token.token = result.paths.tokens[at];
    token.drafted = i + 1 < length;
    logprobs.fill(at, sequence.request.sampling, token);
    sequence.path.nodes.push_back(result.paths.nodes[at]);
    sequence.path.tokens.push_back(std::move(token));
  }
  for (int node = 0; node < sequence.tree.size(); ++node) {
    NodeOrigin& origin = sequence.origins[static_cast<std::size_t>(node)];
    if (origin.watcher != 0 && result.status[first_row + node] == cuda::RowStatus::ok)
      origin.answer = result.tokens[first_row + node];
  }
  return true;
}

DeviceSampler::Buffers DeviceSampler::reserve(const Shape& shape) {
  const auto trees = static_cast<std::size_t>(shape.trees);
  const auto rows = static_cast<std::size_t>(shape.rows);
  Buffers buffers;
  Arena entry_size(nullptr);
  Entry::of(entry_size, trees, rows);
  buffers.entry_bytes = entry_size.used();
  Arena result_size(nullptr);
  Result::of(result_size, shape);
  buffers.result_bytes = result_size.used();
  const std::size_t bytes = buffers.entry_bytes + buffers.result_bytes;
  if (device_.bytes() < bytes) {
    device_ = DeviceBuffer();
    device_ = backend_.allocate(2 * bytes, MemoryUse::scratch);
    void* memory = nullptr;
    pinned_.reset();
    check_cuda(::cudaMallocHost(&memory, 2 * bytes), "allocating pinned memory");
    pinned_.reset(static_cast<std::byte*>(memory));
  }
  const auto place = [&](std::byte* memory, Entry& entry, Result& result) {
    Arena entries(memory);
    entry = Entry::of(entries, trees, rows);
    Arena results(memory + buffers.entry_bytes);
    result = Result::of(results, shape);
  };
  place(device_.as<std::byte>(), buffers.entry, buffers.result);
  place(pinned_.get(), buffers.host_entry, buffers.host_result);
  return buffers;
}

std::unique_ptr<StepSampler> make_device_sampler(const StepParts& parts) {
  auto* const backend = dynamic_cast<CudaBackend*>(&parts.backend);
  if (backend == nullptr || !parts.config.backend.device_sampling) return nullptr;
  return std::make_unique<DeviceSampler>(
      *backend, parts.target.config().vocab_size, parts.config.scheduler.max_num_seqs,
      std::min(kMostRows, parts.target.max_rows()), parts.config.verify.method == "coupled");
}

}  // namespace specdec
