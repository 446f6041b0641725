#pragma once

#include "engine/backend/backend.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/thread_pool.h"

namespace specdec {

/// The operations on this machine's cores. Enqueue means run.
class CpuBackend final : public Backend {
 public:
  CpuBackend(kernels::Isa isa, int num_threads);

  std::string_view name() const noexcept override;
  DeviceBuffer allocate(std::size_t bytes, MemoryUse use) override;
  const void* read(const void* device, std::size_t bytes, Stream stream) override;
  void write(void* device, const void* host, std::size_t bytes, Stream stream) override;
  kernels::BatchView stage(const kernels::BatchView& host, Stream) override { return host; }
  std::size_t packed_bytes(const MatrixSource& source) const override;
  kernels::PackedMatrix pack(const MatrixSource& source, void* destination) override;
  kernels::DataType operand_type(const kernels::PackedMatrix& weight) const override {
    return kernels::CpuOps::operand_type(weight.type);
  }

  void embed_rows(const kernels::EmbedRowsParams& params, Stream) override {
    ops_.embed_rows(params);
  }
  void norm_qkv_rope_append(const kernels::NormQkvRopeAppendParams& params, Stream) override {
    ops_.norm_qkv_rope_append(params);
  }
  void tree_attention(const kernels::TreeAttentionParams& params, Stream) override {
    ops_.tree_attention(params);
  }
  void project(const kernels::ProjectParams& params, Stream) override { ops_.project(params); }
  void join_entries(const kernels::JoinEntriesParams& params, Stream) override {
    ops_.join_entries(params);
  }
  void copy_rows(const kernels::CopyRowsParams& params, Stream) override { ops_.copy_rows(params); }
  void project_residual(const kernels::ProjectResidualParams& params, Stream) override {
    ops_.project_residual(params);
  }
  void norm_gate_up(const kernels::NormGateUpParams& params, Stream) override {
    ops_.norm_gate_up(params);
  }
  void norm_head(const kernels::NormHeadParams& params, Stream) override { ops_.norm_head(params); }
  void move_kv(const kernels::MoveKvParams& params, Stream) override { ops_.move_kv(params); }
  void copy_block(std::span<const kernels::KvLayer> layers, int source, int destination,
                  Stream) override;

  bool computes_on_host() const noexcept override { return true; }
  kernels::Executor& host_executor() override { return threads_; }

 private:
  kernels::ThreadPool threads_;
  kernels::CpuOps ops_;
};

}  // namespace specdec
