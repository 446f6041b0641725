#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/executor.h"
#include "kernels/ops.h"

namespace specdec::kernels {

struct KernelTable;
struct GemmJob;
struct PrepareJob;
enum class Epilogue : std::uint8_t;

/// Instruction sets that the CPU kernels are built for. avx512_vnni and amx give the same bits,
/// avx2 others.
enum class Isa : std::uint8_t { avx2, avx512_vnni, amx };

const char* to_string(Isa isa) noexcept;
/// Whether processor and operating system can run it (avx2 includes FMA and F16C).
bool supported(Isa isa) noexcept;
/// The fastest that is supported; never amx, which is slower for weights with a scale per 32
/// columns (docs/decisions.md). Without AVX2 this is still Isa::avx2: check supported() first.
Isa best_isa() noexcept;

/// Weight rows of one packed tile: SIMD lanes are output rows.
inline constexpr int kTileRows = 16;
/// Packed matrices start on this boundary; 2 MiB (huge pages) is better for large ones.
inline constexpr std::size_t kPackAlignment = 64;

/// The fused operations of kernels/ops.h on the CPU. Outputs are bitwise functions of the op's
/// inputs and the Isa: not of the number of rows, threads, or how a context was split into calls.
///
/// Owns scratch memory that grows to the largest call, so an instance serves one caller at a time;
/// different instances may run on different threads. Shapes are trusted: the caller has checked
/// them. Throws std::bad_alloc.
class CpuOps {
 public:
  /// `executor` must outlive the instance. `isa` must be supported.
  CpuOps(Isa isa, Executor& executor);
  ~CpuOps();
  CpuOps(const CpuOps&) = delete;
  CpuOps& operator=(const CpuOps&) = delete;

  Isa isa() const noexcept { return isa_; }

  /// Bytes of a packed [rows, cols] matrix; rows are padded to whole tiles.
  static std::size_t packed_bytes(DataType type, int rows, int cols) noexcept;
  /// How a product with weights of that type finds its activations without a pass of its own:
  /// q8_0 (groups of int8, as many bytes as 1.5 a value) for quantised ones, else f32.
  static DataType operand_type(DataType weight) noexcept;
  /// Packs rows [first_row, first_row + count) of a matrix into its packed layout at `packed` (the
  /// start of the whole matrix). `row_pointers[i]` is row first_row + i in the file's format.
  /// `first_row` is a multiple of kTileRows; `count` is too, unless the rows end there: the last
  /// tile is padded with zeros. Ranges of tiles may be packed from several threads at once.
  void pack_rows(DataType type, int cols, int first_row, int count,
                 const std::byte* const* row_pointers, void* packed) const noexcept;

  void embed_rows(const EmbedRowsParams& params);
  void norm_qkv_rope_append(const NormQkvRopeAppendParams& params);
  void tree_attention(const TreeAttentionParams& params);
  void project(const ProjectParams& params);
  void project_residual(const ProjectResidualParams& params);
  void norm_gate_up(const NormGateUpParams& params);
  void norm_head(const NormHeadParams& params);
  void join_entries(const JoinEntriesParams& params);
  void copy_rows(const CopyRowsParams& params);
  void move_kv(const MoveKvParams& params);

 private:
  /// Memory for one call's intermediate values; grows, aligned to cache lines.
  class Scratch {
   public:
    template <typename T>
    T* get(std::size_t count) {
      return static_cast<T*>(reserve(count * sizeof(T)));
    }

   private:
    void* reserve(std::size_t bytes);
    std::vector<std::byte> bytes_;
  };
  struct AttentionPlan;

  template <typename Body>
  void parallel(int count, const Body& body);
  static void move_layer(const KvLayer& kv, const MoveKvParams& params);
  const void* prepare(const float* x, const std::int32_t* row_ids, const float* norm_weight,
                      float norm_eps, int num_rows, const PackedMatrix& matrix);
  void prepare(const PrepareJob& job);
  /// `op` into floats, then groups of them: where no thread has all values of a group. `cols` of a
  /// row of the result.
  template <class Params>
  void through_floats(Params params, int num_rows, int cols, void (CpuOps::*op)(const Params&));
  void multiply(const GemmJob& job, int tiles);
  void project_rows(const PackedMatrix& weight, const float* in, DataType in_type, int num_rows,
                    Epilogue epilogue, float* out);

  Isa isa_;
  Executor* executor_;
  const KernelTable* kernels_;
  Scratch activations_;
  Scratch product_;
  Scratch partials_;
  std::unique_ptr<AttentionPlan> plan_;
};

}  // namespace specdec::kernels
