#include "engine/backend/cuda_backend.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "engine/backend/cuda_error.h"
#include "engine/backend/cuda_memory.h"
#include "engine/backend/row_pointers.h"
#include "kernels/cpu/row_format.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/batch_buffers.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/kv.h"
#include "kernels/cuda/packing.h"
#include "kernels/cuda/rows.h"
#include "specdec/error.h"

namespace specdec {

namespace {

namespace cuda = kernels::cuda;

constexpr std::size_t kMaxPartialBytes = std::size_t{96} << 20;

/// What a matrix's rows are packed from and kept as: their own type, or, where the file mixes types
/// within one matrix, floats, which are kept as float32 is if there is some among them, else as
/// f16.
struct RowTypes {
  kernels::DataType rows;
  kernels::DataType packed;

  /// `f32_as`: what float32 is kept as. Quantised matrices whose f16 form has at most
  /// `unpacked_bytes` become f16.
  static RowTypes of(const MatrixSource& source, kernels::DataType f32_as,
                     std::size_t unpacked_bytes) {
    const auto all_are = [&](kernels::DataType type) {
      return std::ranges::all_of(source.parts,
                                 [&](const RowSource& part) { return part.type == type; });
    };
    const kernels::DataType first = source.parts.front().type;
    if (all_are(first)) {
      const bool unpacks = kernels::is_quantised(first) && !source.is_table &&
                           cuda::packed_bytes(kernels::DataType::f16, source.rows(), source.cols(),
                                              source.pair_distance) <= unpacked_bytes;
      return {first, unpacks ? kernels::DataType::f16 : cuda::packed_type(first, f32_as)};
    }
    const bool some_f32 = std::ranges::any_of(
        source.parts, [](const RowSource& part) { return part.type == kernels::DataType::f32; });
    return {kernels::DataType::f32, some_f32 ? f32_as : kernels::DataType::f16};
  }
};

/// The operations on one GPU, in order on one stream. Scratch memory grows to what the largest
/// batch so far took; outgrown pieces are kept, since graphs may have been captured with them.
class StreamBackend final : public CudaBackend {
 public:
  StreamBackend(const cuda::DeviceInfo& device, std::string name, int host_threads,
                const BackendConfig& config)
      : name_(std::move(name)),
        f32_as_(config.float32_weights == "f16" ? kernels::DataType::f16 : kernels::DataType::f32),
        full_precision_(config.float32_weights == "f32"),
        unpacked_bytes_(static_cast<std::size_t>(config.dequantise_mb) << 20),
        threads_(host_threads) {
    launch_.device = device;
    select();
    cudaStream_t stream = nullptr;
    check_cuda(::cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "creating a stream");
    stream_.reset(stream);
    cudaEvent_t event = nullptr;
    check_cuda(::cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "creating an event");
    staged_.reset(event);
  }

  ~StreamBackend() override { ::cudaSetDevice(launch_.device.index); }

  std::string_view name() const noexcept override { return name_; }
  const cuda::DeviceInfo& device() const noexcept override { return launch_.device; }
  cudaStream_t stream() const noexcept override { return stream_.get(); }

  std::optional<std::size_t> free_memory() const override {
    std::size_t free = 0;
    std::size_t total = 0;
    check_cuda(::cudaSetDevice(launch_.device.index), "selecting the GPU");
    check_cuda(::cudaMemGetInfo(&free, &total), "asking for free memory");
    return free;
  }
  DeviceBuffer allocate(std::size_t bytes, MemoryUse) override {
    std::byte* memory = allocate_device(bytes).release();
    return {memory, bytes, [](void* data, std::size_t) noexcept { ::cudaFree(data); }};
  }

  const void* read(const void* device, std::size_t bytes, Stream stream) override {
    select();
    if (bytes > read_bytes_) {
      read_memory_ = allocate_pinned(bytes);
      read_bytes_ = bytes;
    }
    const cudaStream_t on = native(stream);
    check_cuda(::cudaMemcpyAsync(read_memory_.get(), device, bytes, cudaMemcpyDeviceToHost, on),
               "reading results");
    check_cuda(::cudaStreamSynchronize(on), "waiting for the GPU");
    return read_memory_.get();
  }

  void write(void* device, const void* host, std::size_t bytes, Stream stream) override {
    select();
    const cudaStream_t on = native(stream);
    check_cuda(::cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, on),
               "writing memory");
    check_cuda(::cudaStreamSynchronize(on), "writing memory");
  }

  kernels::BatchView stage(const kernels::BatchView& host, Stream stream) override {
    select();
    const cudaStream_t on = native(stream);
    if (const cuda::BatchCapacity needed = cuda::BatchBuffers::capacity_of(host);
        !batch_.holds(needed)) {
      check_cuda(::cudaStreamSynchronize(on), "waiting for the GPU");
      grow_batch(needed);
    }
    check_cuda(::cudaEventSynchronize(staged_.get()), "waiting for a copy");
    check_cuda(batch_.stage(host, on), "copying a batch");
    check_cuda(::cudaEventRecord(staged_.get(), on), "copying a batch");
    kernels::BatchView view = host;
    view.device = &batch_.batch();
    view.tokens = view.device->tokens;
    view.output_rows = view.device->output_rows;
    return view;
  }

  std::size_t packed_bytes(const MatrixSource& source) const override {
    const std::size_t bytes =
        cuda::packed_bytes(RowTypes::of(source, f32_as_, unpacked_bytes_).packed, source.rows(),
                           source.cols(), source.pair_distance);
    return (bytes + 255) / 256 * 256;
  }
  kernels::PackedMatrix pack(const MatrixSource& source, void* destination) override;
  kernels::DataType operand_type(const kernels::PackedMatrix& weight) const override {
    return cuda::operand_type(weight.type);
  }

  void embed_rows(const kernels::EmbedRowsParams& params, Stream stream) override {
    run(cuda::embed_rows(params, on(stream)));
  }
  void norm_qkv_rope_append(const kernels::NormQkvRopeAppendParams& params,
                            Stream stream) override {
    if (!cuda::attention_supported(params.num_heads, params.kv))
      throw Error(ErrorCode::unsupported,
                  "the CUDA backend needs a head size that is a multiple of 8 and at most 128, and "
                  "at most 16 query heads a KV head");
    reserve_operand(params.batch.num_rows, params.qkv);
    run(cuda::norm_qkv_rope_append(params, on(stream)));
  }
  void tree_attention(const kernels::TreeAttentionParams& params, Stream stream) override {
    reserve_partials(params);
    run(cuda::tree_attention(params, on(stream)));
  }
  void project(const kernels::ProjectParams& params, Stream stream) override {
    reserve_operand(params.num_rows, params.weight);
    run(cuda::project(params, on(stream)));
  }
  void project_residual(const kernels::ProjectResidualParams& params, Stream stream) override {
    if (params.in_type == kernels::DataType::f32) reserve_operand(params.num_rows, params.weight);
    run(cuda::project_residual(params, on(stream)));
  }
  void norm_gate_up(const kernels::NormGateUpParams& params, Stream stream) override {
    reserve_operand(params.num_rows, params.gate_up);
    run(cuda::norm_gate_up(params, on(stream)));
  }
  void norm_head(const kernels::NormHeadParams& params, Stream stream) override {
    reserve_operand(params.num_outputs, params.head);
    run(cuda::norm_head(params, on(stream)));
  }
  void join_entries(const kernels::JoinEntriesParams& params, Stream stream) override {
    if (params.table.cols % 8 != 0)
      throw Error(ErrorCode::unsupported,
                  "the CUDA backend runs EAGLE heads whose hidden size is a multiple of 8");
    run(cuda::join_entries(params, on(stream)));
  }
  void copy_rows(const kernels::CopyRowsParams& params, Stream stream) override {
    run(cuda::copy_rows(params, on(stream)));
  }
  void move_kv(const kernels::MoveKvParams& params, Stream stream) override;
  void copy_block(std::span<const kernels::KvLayer> layers, int source, int destination,
                  Stream stream) override {
    run(cuda::copy_block(pool_of(layers), source, destination, on(stream)));
  }

  bool computes_on_host() const noexcept override { return false; }
  kernels::Executor& host_executor() override { return threads_; }

 private:
  void select() { check_cuda(::cudaSetDevice(launch_.device.index), "selecting the GPU"); }
  cudaStream_t native(Stream stream) const {
    return stream.handle == nullptr ? stream_.get() : static_cast<cudaStream_t>(stream.handle);
  }
  cuda::Launch on(Stream stream) {
    select();
    cuda::Launch launch = launch_;
    launch.stream = native(stream);
    return launch;
  }
  void run(cudaError_t status) { check_cuda(status, "starting a kernel"); }

  DeviceMemory allocate_device(std::size_t bytes) {
    select();
    void* memory = nullptr;
    check_cuda(::cudaMalloc(&memory, std::max<std::size_t>(bytes, 1)), "allocating GPU memory");
    DeviceMemory owned(static_cast<std::byte*>(memory));
    check_cuda(::cudaMemsetAsync(memory, 0, bytes, stream_.get()), "clearing GPU memory");
    check_cuda(::cudaStreamSynchronize(stream_.get()), "clearing GPU memory");
    return owned;
  }
  PinnedMemory allocate_pinned(std::size_t bytes) {
    void* memory = nullptr;
    check_cuda(::cudaMallocHost(&memory, bytes), "allocating pinned memory");
    return PinnedMemory(static_cast<std::byte*>(memory));
  }

  void grow_batch(cuda::BatchCapacity needed) {
    // Room for growth, so that a running sequence does not come back for more at every block.
    needed.rows = std::max(64, needed.rows);
    needed.sequences = std::max(8, needed.sequences);
    needed.path_slots = std::max(256, 2 * needed.path_slots);
    needed.blocks_per_sequence = std::max(64, 2 * needed.blocks_per_sequence);
    const std::size_t bytes = cuda::BatchBuffers::bytes(needed);
    batch_ = {};
    batch_memory_ = allocate_device(bytes);
    batch_pinned_ = allocate_pinned(bytes);
    batch_ = cuda::BatchBuffers(needed, batch_memory_.get(), batch_pinned_.get());
  }
  void reserve_operand(int rows, const kernels::PackedMatrix& weight) {
    cuda::Workspace& workspace = launch_.workspace;
    const std::size_t bytes =
        cuda::operand_bytes(rows, weight.cols, cuda::operand_element_bytes(weight.type));
    if (bytes <= workspace.operand_bytes) return;
    const std::size_t grown = std::max(bytes, 2 * workspace.operand_bytes);
    workspace.operand = scratch_.emplace_back(allocate_device(grown)).get();
    workspace.operand_bytes = grown;
  }
  void reserve_partials(const kernels::TreeAttentionParams& params) {
    if (params.batch.device == nullptr) return;
    const cuda::DeviceBatch& batch = *params.batch.device;
    cuda::Workspace& workspace = launch_.workspace;
    // A batch that would need more attends without scratch.
    const std::size_t bytes = std::min(
        kMaxPartialBytes, cuda::attention_partial_bytes(batch, params.num_heads, params.kv));
    if (bytes > workspace.partial_bytes) {
      const std::size_t grown =
          std::min(kMaxPartialBytes, std::max(2 * bytes, 2 * workspace.partial_bytes));
      workspace.partials =
          reinterpret_cast<float*>(scratch_.emplace_back(allocate_device(grown)).get());
      workspace.partial_bytes = grown;
    }
    const int counters = cuda::attention_counters(batch, params.num_heads, params.kv);
    if (counters > workspace.num_counters) {
      const int grown = std::max(counters, 2 * workspace.num_counters);
      workspace.counters = reinterpret_cast<int*>(
          scratch_.emplace_back(allocate_device(static_cast<std::size_t>(grown) * sizeof(int)))
              .get());
      workspace.num_counters = grown;
    }
  }
  static cuda::KvPool pool_of(std::span<const kernels::KvLayer> layers) {
    if (layers.size() > static_cast<std::size_t>(cuda::KvPool::kMostLayers))
      throw Error(ErrorCode::unsupported, "the CUDA backend runs models of at most " +
                                              std::to_string(cuda::KvPool::kMostLayers) +
                                              " layers");
    return cuda::make_pool(layers);
  }

  std::string name_;
  kernels::DataType f32_as_;  // what weights of float32 are kept as
  bool full_precision_;       // of those that are kept as they are
  std::size_t unpacked_bytes_;
  kernels::ThreadPool threads_;
  OwnedStream stream_;
  OwnedEvent staged_;  // the copy out of batch_pinned_
  DeviceMemory batch_memory_;
  PinnedMemory batch_pinned_;
  cuda::BatchBuffers batch_;
  PinnedMemory read_memory_;
  std::size_t read_bytes_ = 0;
  std::vector<DeviceMemory> scratch_;  // what launch_.workspace points to, and did before
  cuda::Launch launch_;  // the device and the workspace; the stream is set per operation
};

kernels::PackedMatrix StreamBackend::pack(const MatrixSource& source, void* destination) {
  const int cols = source.cols();
  const RowTypes types = RowTypes::of(source, f32_as_, unpacked_bytes_);
  const bool converts = std::ranges::any_of(
      source.parts, [&](const RowSource& part) { return part.type != types.rows; });
  const kernels::PackedMatrix matrix{
      .type = types.packed,
      .rows = source.rows(),
      .cols = cols,
      .data = destination,
      .pair_distance = source.pair_distance,
      .full_precision = types.packed == kernels::DataType::f32 && full_precision_};
  const std::vector<RowPointer> rows = row_pointers(source);
  const int tiles = cuda::num_tiles(matrix.rows, matrix.pair_distance);
  const std::size_t tile_bytes = static_cast<std::size_t>(cuda::ceil_div(cols, cuda::kUnitCols)) *
                                 cuda::unit_bytes(matrix.type);

  const auto pack_tile = [&](int tile, std::byte* out) {
    const cuda::TileRows of = cuda::TileRows::of(tile, matrix.pair_distance);
    const std::byte* pointers[cuda::kTileRows] = {};
    std::vector<float> converted;  // only where the file mixes types within one matrix
    if (converts) converted.resize(static_cast<std::size_t>(cuda::kTileRows * cols));
    for (int i = 0; i < cuda::kTileRows; ++i) {
      const int row = of.first + i % 8 + (i < 8 ? 0 : of.distance);
      if (i % 8 >= of.valid || row >= matrix.rows) continue;
      const RowPointer& from = rows[static_cast<std::size_t>(row)];
      pointers[i] = from.data;
      if (!converts) continue;
      float* to = &converted[static_cast<std::size_t>(i * cols)];
      kernels::convert_row_to_f32(from.part->type, cols, from.data, to);
      pointers[i] = reinterpret_cast<const std::byte*>(to);
    }
    cuda::pack_tile(types.rows, types.packed, cols, pointers, out);
  };

  constexpr std::size_t kAtOnce = std::size_t{32} << 20;
  const int tiles_at_once = std::max(1, static_cast<int>(kAtOnce / tile_bytes));
  std::vector<std::byte> packed(static_cast<std::size_t>(std::min(tiles, tiles_at_once)) *
                                tile_bytes);
  for (int first = 0; first < tiles; first += tiles_at_once) {
    const int count = std::min(tiles_at_once, tiles - first);
    threads_.parallel_for(count, [&](int i) {
      pack_tile(first + i, packed.data() + static_cast<std::size_t>(i) * tile_bytes);
    });
    write(static_cast<std::byte*>(destination) + static_cast<std::size_t>(first) * tile_bytes,
          packed.data(), static_cast<std::size_t>(count) * tile_bytes, Stream{});
  }
  return matrix;
}

void StreamBackend::move_kv(const kernels::MoveKvParams& params, Stream stream) {
  const cuda::KvPool pool = pool_of(params.layers);
  const auto slot = [&](std::int32_t local) {
    return params.block_table[local / pool.block_size] * pool.block_size + local % pool.block_size;
  };
  cuda::FewMoves few;
  for (const kernels::KvMove& move : params.moves) {
    if (few.count == cuda::FewMoves::kMost) {
      run(cuda::move_kv(pool, few, on(stream)));
      few.count = 0;
    }
    few.moves[few.count++] = {slot(move.source_slot), slot(move.destination_slot)};
  }
  if (few.count > 0) run(cuda::move_kv(pool, few, on(stream)));
}

}  // namespace

std::unique_ptr<Backend> make_cuda_backend(const BackendConfig& config, int host_threads,
                                           std::string& why_not) {
  int count = 0;
  const cudaError_t status = ::cudaGetDeviceCount(&count);
  if (status != cudaSuccess || count == 0) {
    ::cudaGetLastError();
    why_not = status == cudaSuccess ? "there is no GPU" : ::cudaGetErrorString(status);
    return nullptr;
  }
  for (int index = 0; index < count; ++index) {
    cudaDeviceProp properties{};
    if (::cudaGetDeviceProperties(&properties, index) != cudaSuccess) continue;
    if (properties.major < 8) {
      why_not = std::string(properties.name) + " has compute capability " +
                std::to_string(properties.major) + "." + std::to_string(properties.minor) +
                ", the kernels need 8.0";
      continue;
    }
    cuda::DeviceInfo device;
    const cudaError_t described = cuda::describe_device(index, properties, device);
    if (described != cudaSuccess) {
      ::cudaGetLastError();
      why_not = std::string(properties.name) + ": " + ::cudaGetErrorString(described) +
                " (SPECDEC_CUDA_ARCHITECTURES says what kernels are compiled for)";
      continue;
    }
    return std::make_unique<StreamBackend>(device, std::string("cuda: ") + properties.name,
                                           host_threads, config);
  }
  return nullptr;
}

}  // namespace specdec
