#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "engine/backend/device_buffer.h"
#include "engine/model/weights.h"
#include "kernels/executor.h"
#include "kernels/ops.h"
#include "specdec/config.h"

namespace specdec {

/// The queue that an operation is enqueued on. The CPU has one and runs at once.
struct Stream {
  void* handle = nullptr;
};

/// What a buffer is for decides how its pages are laid out.
enum class MemoryUse : std::uint8_t {
  weights,  ///< written once, streamed through: large pages
  cache,    ///< touched bit by bit: pages appear as they are written
  scratch,
};

/// A device that computes: the fused operations of kernels/ops.h, its memory, and its weight
/// layout. Pointers in params structs are the backend's own memory, but for `moves` and their block
/// table and the row ids of copy_rows, which are host memory and read before the call returns; a
/// batch is what stage() made of it. An operation is ordered after those before it on the same
/// stream. Used from one thread at a time. Where a device can fail, any call may throw
/// Error(device), and then all later ones do.
class Backend {
 public:
  virtual ~Backend() = default;

  virtual std::string_view name() const noexcept = 0;
  /// Bytes that allocate() could still give; nothing where memory is the host's.
  virtual std::optional<std::size_t> free_memory() const { return std::nullopt; }
  /// Zero-filled memory, 64-byte aligned. Throws Error(out_of_memory).
  virtual DeviceBuffer allocate(std::size_t bytes, MemoryUse use) = 0;
  /// A pointer through which the host may read `bytes` at `device` once everything on `stream` is
  /// done; valid until the next call. On the CPU it is `device` itself.
  virtual const void* read(const void* device, std::size_t bytes, Stream stream) = 0;

  /// Copies host memory to the backend's; `host` is the caller's again on return.
  virtual void write(void* device, const void* host, std::size_t bytes, Stream stream) = 0;
  /// Puts a batch where operations can read it. What the result points to stays valid until the
  /// next call, `host` and everything behind it must until then too.
  virtual kernels::BatchView stage(const kernels::BatchView& host, Stream stream) = 0;

  /// Bytes that pack() will write for `source`, a multiple of 64.
  virtual std::size_t packed_bytes(const MatrixSource& source) const = 0;
  /// Repacks a matrix from its file into `destination` (64-byte aligned, packed_bytes long). No
  /// Error but for sources that mix types beyond conversion.
  virtual kernels::PackedMatrix pack(const MatrixSource& source, void* destination) = 0;
  /// How a product with `weight` best finds its activations: the out_type of the op before it.
  virtual kernels::DataType operand_type(const kernels::PackedMatrix& weight) const = 0;

  virtual void embed_rows(const kernels::EmbedRowsParams& params, Stream stream) = 0;
  virtual void norm_qkv_rope_append(const kernels::NormQkvRopeAppendParams& params,
                                    Stream stream) = 0;
  virtual void tree_attention(const kernels::TreeAttentionParams& params, Stream stream) = 0;
  virtual void project_residual(const kernels::ProjectResidualParams& params, Stream stream) = 0;
  virtual void norm_gate_up(const kernels::NormGateUpParams& params, Stream stream) = 0;
  virtual void norm_head(const kernels::NormHeadParams& params, Stream stream) = 0;
  virtual void move_kv(const kernels::MoveKvParams& params, Stream stream) = 0;
  // What EAGLE heads need beside them.
  virtual void project(const kernels::ProjectParams& params, Stream stream) = 0;
  virtual void join_entries(const kernels::JoinEntriesParams& params, Stream stream) = 0;
  virtual void copy_rows(const kernels::CopyRowsParams& params, Stream stream) = 0;
  /// Copies a whole block in every layer of a pool (copy-on-write).
  virtual void copy_block(std::span<const kernels::KvLayer> layers, int source, int destination,
                          Stream stream) = 0;

  /// Whether its operations run on the threads of host_executor().
  virtual bool computes_on_host() const noexcept = 0;
  /// Threads for host stages between operations (sampling, host drafters).
  virtual kernels::Executor& host_executor() = 0;
};

/// The backend that `config` asks for. Throws Error(invalid_config, unsupported).
std::unique_ptr<Backend> make_backend(const BackendConfig& config);

}  // namespace specdec
