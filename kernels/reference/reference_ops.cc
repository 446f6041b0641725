#include "kernels/reference/reference_ops.h"

#include <cmath>
#include <cstddef>

#include "kernels/reference/kv_access.h"

namespace specdec::kernels::reference {
namespace {

std::vector<double> rms_norm(const float* x, const float* weight, float eps, int n) {
  double sum = 0;
  for (int i = 0; i < n; ++i) sum += static_cast<double>(x[i]) * x[i];
  const double scale = 1.0 / std::sqrt(sum / n + static_cast<double>(eps));
  std::vector<double> out(static_cast<std::size_t>(n));
  for (int i = 0; i < n; ++i) out[i] = x[i] * scale * weight[i];
  return out;
}

template <typename T>
std::vector<double> multiply(const DenseMatrix& matrix, const T* x) {
  std::vector<double> out(static_cast<std::size_t>(matrix.rows));
  for (int r = 0; r < matrix.rows; ++r) {
    const float* row = matrix.data.data() + static_cast<std::size_t>(r) * matrix.cols;
    double sum = 0;
    for (int c = 0; c < matrix.cols; ++c) sum += static_cast<double>(row[c]) * x[c];
    out[r] = sum;
  }
  return out;
}

void rotate(double* head, const float* cosines, const float* sines, int head_dim) {
  const int half = head_dim / 2;
  for (int i = 0; i < half; ++i) {
    const double a = head[i];
    const double b = head[i + half];
    head[i] = a * cosines[i] - b * sines[i];
    head[i + half] = b * cosines[i] + a * sines[i];
  }
}

/// The slot of `position` as row `row` of `sequence` sees it.
int slot_of(const BatchView& batch, const SequenceRows& sequence, int row, int position) {
  const int offset = batch.path_offsets == nullptr ? -1 : batch.path_offsets[row];
  if (offset < 0 || position < sequence.context_len) return position;
  return batch.path_slots[offset + (position - sequence.context_len)];
}

}  // namespace

void embed_rows(const EmbedRowsParams& params, const DenseMatrix& table) {
  for (int r = 0; r < params.num_rows; ++r) {
    for (int c = 0; c < table.cols; ++c) {
      params.out[static_cast<std::size_t>(r) * table.cols + c] =
          table.data[static_cast<std::size_t>(params.tokens[r]) * table.cols + c];
    }
  }
}

void norm_qkv_rope_append(const NormQkvRopeAppendParams& params, const DenseMatrix& qkv) {
  const KvLayer& kv = params.kv;
  const int d = kv.head_dim;
  for (const SequenceRows& sequence : params.batch.sequences) {
    for (int row = sequence.row_begin; row < sequence.row_begin + sequence.num_rows; ++row) {
      const float* x = params.x + static_cast<std::size_t>(row) * qkv.cols;
      const auto normed = params.norm_weight == nullptr
                              ? std::vector<double>(x, x + qkv.cols)
                              : rms_norm(x, params.norm_weight, params.norm_eps, qkv.cols);
      std::vector<double> y = multiply(qkv, normed.data());
      const std::size_t angles = static_cast<std::size_t>(params.batch.positions[row]) * (d / 2);
      const float* cosines = params.rope_cos + angles;
      const float* sines = params.rope_sin + angles;
      for (int head = 0; head < params.num_heads + kv.num_kv_heads; ++head) {
        rotate(y.data() + static_cast<std::size_t>(head) * d, cosines, sines, d);
      }
      const int q_size = params.num_heads * d;
      for (int i = 0; i < q_size; ++i) {
        params.q[static_cast<std::size_t>(row) * q_size + i] = static_cast<float>(y[i]);
      }
      const int slot = params.batch.slots[row];
      const int block = sequence.block_table[slot / kv.block_size];
      const int offset = slot % kv.block_size;
      for (int head = 0; head < kv.num_kv_heads; ++head) {
        for (int i = 0; i < d; ++i) {
          store_element(kv.keys, kv.type, key_index(kv, block, head, i, offset),
                        y[q_size + head * d + i]);
          store_element(kv.values, kv.type, value_index(kv, block, head, offset, i),
                        y[q_size + (kv.num_kv_heads + head) * d + i]);
        }
      }
    }
  }
}

void tree_attention(const TreeAttentionParams& params) {
  const KvLayer& kv = params.kv;
  const int d = kv.head_dim;
  const int group = params.num_heads / kv.num_kv_heads;
  for (const SequenceRows& sequence : params.batch.sequences) {
    for (int row = sequence.row_begin; row < sequence.row_begin + sequence.num_rows; ++row) {
      const int count = params.batch.positions[row] + 1;
      for (int head = 0; head < params.num_heads; ++head) {
        const std::size_t at = (static_cast<std::size_t>(row) * params.num_heads + head) * d;
        std::vector<double> scores(static_cast<std::size_t>(count));
        double top = -INFINITY;
        for (int t = params.first_position; t < count; ++t) {
          const int slot = slot_of(params.batch, sequence, row, t);
          const int block = sequence.block_table[slot / kv.block_size];
          double dot = 0;
          for (int i = 0; i < d; ++i) {
            dot += params.q[at + i] *
                   load_element(kv.keys, kv.type,
                                key_index(kv, block, head / group, i, slot % kv.block_size));
          }
          scores[t] = dot * params.scale;
          top = std::fmax(top, scores[t]);
        }
        std::vector<double> sum(static_cast<std::size_t>(d));
        double total = 0;
        for (int t = params.first_position; t < count; ++t) {
          const int slot = slot_of(params.batch, sequence, row, t);
          const int block = sequence.block_table[slot / kv.block_size];
          const double weight = std::exp(scores[t] - top);
          total += weight;
          for (int i = 0; i < d; ++i) {
            sum[i] += weight *
                      load_element(kv.values, kv.type,
                                   value_index(kv, block, head / group, slot % kv.block_size, i));
          }
        }
        for (int i = 0; i < d; ++i) params.out[at + i] = static_cast<float>(sum[i] / total);
      }
    }
  }
}

void project(const ProjectParams& params, const DenseMatrix& weight) {
  for (int r = 0; r < params.num_rows; ++r) {
    const auto y = multiply(weight, params.in + static_cast<std::size_t>(r) * weight.cols);
    for (int i = 0; i < weight.rows; ++i)
      params.out[static_cast<std::size_t>(r) * weight.rows + i] = static_cast<float>(y[i]);
  }
}

void project_residual(const ProjectResidualParams& params, const DenseMatrix& weight) {
  for (int r = 0; r < params.num_rows; ++r) {
    const auto y = multiply(weight, params.in + static_cast<std::size_t>(r) * weight.cols);
    float* x = params.x + static_cast<std::size_t>(r) * weight.rows;
    for (int i = 0; i < weight.rows; ++i) x[i] = static_cast<float>(x[i] + y[i]);
  }
}

void norm_gate_up(const NormGateUpParams& params, const DenseMatrix& gate_up) {
  const int ffn = gate_up.rows / 2;
  for (int r = 0; r < params.num_rows; ++r) {
    const float* x = params.x + static_cast<std::size_t>(r) * gate_up.cols;
    const auto normed = rms_norm(x, params.norm_weight, params.norm_eps, gate_up.cols);
    const auto y = multiply(gate_up, normed.data());
    for (int i = 0; i < ffn; ++i) {
      params.out[static_cast<std::size_t>(r) * ffn + i] =
          static_cast<float>(y[i] / (1.0 + std::exp(-y[i])) * y[ffn + i]);
    }
  }
}

void norm_head(const NormHeadParams& params, const DenseMatrix& head) {
  for (int i = 0; i < params.num_outputs; ++i) {
    const float* x = params.x + static_cast<std::size_t>(params.row_ids[i]) * head.cols;
    const auto normed = rms_norm(x, params.norm_weight, params.norm_eps, head.cols);
    const auto y = multiply(head, normed.data());
    for (int v = 0; v < head.rows; ++v) {
      params.logits[static_cast<std::size_t>(i) * head.rows + v] = static_cast<float>(y[v]);
    }
  }
}

void join_entries(const JoinEntriesParams& params, const DenseMatrix& table) {
  const int hidden = table.cols;
  const auto width = static_cast<std::size_t>(hidden);
  for (std::size_t r = 0; r < static_cast<std::size_t>(params.num_rows); ++r) {
    const auto state_row =
        params.state_rows == nullptr ? r : static_cast<std::size_t>(params.state_rows[r]);
    const float* const embedded = &table.data[static_cast<std::size_t>(params.tokens[r]) * width];
    const float* const state = params.states + state_row * width;
    const auto token = rms_norm(embedded, params.token_norm_weight, params.norm_eps, hidden);
    const auto normed = rms_norm(state, params.state_norm_weight, params.norm_eps, hidden);
    for (std::size_t i = 0; i < width; ++i) {
      params.out[r * 2 * width + i] = static_cast<float>(token[i]);
      params.out[r * 2 * width + width + i] = static_cast<float>(normed[i]);
      if (params.residual != nullptr)
        params.residual[r * width + i] =
            params.normed_residual ? static_cast<float>(normed[i]) : state[i];
    }
  }
}

void copy_rows(const CopyRowsParams& params) {
  for (int i = 0; i < params.num_rows; ++i) {
    const int from = params.source_rows == nullptr ? i : params.source_rows[i];
    const int to = params.destination_rows == nullptr ? i : params.destination_rows[i];
    for (int c = 0; c < params.cols; ++c)
      params.destination[static_cast<std::size_t>(to) * params.cols + c] =
          params.source[static_cast<std::size_t>(from) * params.cols + c];
  }
}

namespace {

void move_layer(const KvLayer& kv, const MoveKvParams& params) {
  for (const KvMove& move : params.moves) {
    const int from = params.block_table[move.source_slot / kv.block_size];
    const int to = params.block_table[move.destination_slot / kv.block_size];
    const int from_offset = move.source_slot % kv.block_size;
    const int to_offset = move.destination_slot % kv.block_size;
    for (int head = 0; head < kv.num_kv_heads; ++head) {
      for (int i = 0; i < kv.head_dim; ++i) {
        const double key =
            load_element(kv.keys, kv.type, key_index(kv, from, head, i, from_offset));
        store_element(kv.keys, kv.type, key_index(kv, to, head, i, to_offset), key);
        const double value =
            load_element(kv.values, kv.type, value_index(kv, from, head, from_offset, i));
        store_element(kv.values, kv.type, value_index(kv, to, head, to_offset, i), value);
      }
    }
  }
}

}  // namespace

void move_kv(const MoveKvParams& params) {
  for (const KvLayer& layer : params.layers) move_layer(layer, params);
}

}  // namespace specdec::kernels::reference
