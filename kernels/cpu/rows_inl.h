#pragma once

// Row-wise operations for any vector width; after simd_*.h and math_inl.h.

#include "kernels/cpu/kernel_table.h"

namespace specdec::kernels {
namespace {

constexpr int kGroup = 32;
constexpr int kGroupVectors = kGroup / kLanes;

/// 1 / sqrt(mean(x^2) + eps); four chains of lanes, added in a fixed order.
float norm_scale(const float* x, int cols, float eps) {
  F sums[4] = {zero(), zero(), zero(), zero()};
  int c = 0;
  for (; c + 4 * kLanes <= cols; c += 4 * kLanes) {
    for (int i = 0; i < 4; ++i) {
      const F v = load(x + c + i * kLanes);
      sums[i] = fma(v, v, sums[i]);
    }
  }
  for (int i = 0; c < cols; c += kLanes, ++i) {
    const F v = load_first(x + c, cols - c, 0.0f);
    sums[i] = fma(v, v, sums[i]);
  }
  const float sum = reduce_add(add(add(sums[0], sums[1]), add(sums[2], sums[3])));
  return 1.0f / __builtin_sqrtf(sum / static_cast<float>(cols) + eps);
}

void quantise_group(const F* v, ActivationGroup* out) {
  F top = abs(v[0]);
  for (int i = 1; i < kGroupVectors; ++i) top = max(top, abs(v[i]));
  const float amax = reduce_max(top);
  // Below this 127 / amax would overflow; such a group is nothing beside its neighbours.
  const bool tiny = amax < 1e-35f;
  const F inverse = set1(tiny ? 0.0f : 127.0f / amax);
  F scaled[kGroupVectors];
  for (int i = 0; i < kGroupVectors; ++i) scaled[i] = mul(v[i], inverse);
  const int sum = quantise_32(scaled, out->q);
  out->d = tiny ? 0.0f : amax / 127.0f;
  out->d_sum = out->d * static_cast<float>(sum);
  // Modular: a NaN among the values leaves a sum beyond any range, and d is NaN or meaningless
  // then.
  out->q4_bias = static_cast<int>(-8U * static_cast<unsigned>(sum));
  out->q8_bias = static_cast<int>(-128U * static_cast<unsigned>(sum));
}

void quantise(const float* x, int groups, ActivationGroup* out, int stride) {
  for (int g = 0; g < groups; ++g, x += kGroup, out += stride) {
    F v[kGroupVectors];
    for (int i = 0; i < kGroupVectors; ++i) v[i] = load(x + i * kLanes);
    quantise_group(v, out);
  }
}

void prepare(const PrepareJob& job, int row_begin, int row_end) {
  for (int r = row_begin; r < row_end; ++r) {
    const auto source = static_cast<std::size_t>(job.row_ids == nullptr ? r : job.row_ids[r]);
    const float* x = job.x + source * static_cast<std::size_t>(job.cols);
    const bool has_norm = job.norm_weight != nullptr;
    const F scale = set1(has_norm ? norm_scale(x, job.cols, job.norm_eps) : 1.0f);
    const int first = r / kPanelRows * kPanelRows;
    const int left = job.num_rows - first;
    const int panel_rows = left < kPanelRows ? left : kPanelRows;
    if (job.quantise) {
      const int groups = job.cols / kGroup;
      auto* out = static_cast<ActivationGroup*>(job.out) +
                  static_cast<std::size_t>(first) * static_cast<std::size_t>(groups) + (r - first);
      for (int g = 0; g < groups; ++g, out += panel_rows) {
        F v[kGroupVectors];
        for (int i = 0; i < kGroupVectors; ++i) {
          const int c = g * kGroup + i * kLanes;
          v[i] = load(x + c);
          if (has_norm) v[i] = mul(mul(v[i], scale), load(job.norm_weight + c));
        }
        quantise_group(v, out);
      }
    } else {
      auto* out = static_cast<float*>(job.out) +
                  static_cast<std::size_t>(first) * static_cast<std::size_t>(job.cols) +
                  (r - first);
      for (int c = 0; c < job.cols; c += kLanes) {
        const int n = job.cols - c < kLanes ? job.cols - c : kLanes;
        F v = load_first(x + c, n, 0.0f);
        if (has_norm) v = mul(mul(v, scale), load_first(job.norm_weight + c, n, 0.0f));
        float lanes[kLanes];
        store(lanes, v);
        for (int i = 0; i < n; ++i, out += panel_rows) *out = lanes[i];
      }
    }
  }
}

void rms_norm(const float* x, const float* weight, float eps, int cols, float* out) {
  const F scale = set1(norm_scale(x, cols, eps));
  for (int c = 0; c < cols; c += kLanes) {
    const int n = cols - c;
    store_first(out + c, n,
                mul(mul(load_first(x + c, n, 0.0f), scale), load_first(weight + c, n, 0.0f)));
  }
}

inline F silu_mul(F gate, F up) {
  return mul(div(gate, add(set1(1.0f), exp(sub(zero(), gate)))), up);
}

void silu_mul_row(const float* gate, const float* up, float* out, int count) {
  for (int i = 0; i < count; i += kLanes) {
    const int n = count - i;
    store_first(out + i, n, silu_mul(load_first(gate + i, n, 0.0f), load_first(up + i, n, 0.0f)));
  }
}

/// One head in place: halves layout, (i, i + half).
void rotate(const float* in, const float* cosines, const float* sines, int half, float* out) {
  for (int i = 0; i < half; i += kLanes) {
    const int n = half - i;
    const F a = load_first(in + i, n, 0.0f);
    const F b = load_first(in + half + i, n, 0.0f);
    const F c = load_first(cosines + i, n, 0.0f);
    const F s = load_first(sines + i, n, 0.0f);
    store_first(out + i, n, fnma(b, s, mul(a, c)));
    store_first(out + half + i, n, fma(a, s, mul(b, c)));
  }
}

std::uint16_t to_f16(float v) {
  return static_cast<std::uint16_t>(_cvtss_sh(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

void to_f16(const float* in, int count, std::uint16_t* out) {
  int i = 0;
  for (; i + kLanes <= count; i += kLanes) store_f16(out + i, load(in + i));
  for (; i < count; ++i) out[i] = to_f16(in[i]);
}

/// Where the block's entries of KV head `h` begin, in elements.
std::size_t head_base(const RopeAppendJob& job, int h) {
  const KvLayer& kv = job.kv;
  return (static_cast<std::size_t>(job.block) * static_cast<std::size_t>(kv.num_kv_heads) +
          static_cast<std::size_t>(h)) *
         static_cast<std::size_t>(kv.head_dim) * static_cast<std::size_t>(kv.block_size);
}

void append_key(const RopeAppendJob& job, const float* rotated, int h) {
  const KvLayer& kv = job.kv;
  const std::size_t at = head_base(job, h) + static_cast<std::size_t>(job.offset);
  if (kv.type == DataType::f32) {
    float* keys = static_cast<float*>(kv.keys) + at;
    for (int i = 0; i < kv.head_dim; ++i) keys[i * kv.block_size] = rotated[i];
  } else {
    std::uint16_t half[kMaxHeadDim];
    to_f16(rotated, kv.head_dim, half);
    auto* keys = static_cast<std::uint16_t*>(kv.keys) + at;
    for (int i = 0; i < kv.head_dim; ++i) keys[i * kv.block_size] = half[i];
  }
}

void append_value(const RopeAppendJob& job, const float* value, int h) {
  const KvLayer& kv = job.kv;
  const std::size_t at = head_base(job, h) + static_cast<std::size_t>(job.offset) *
                                                 static_cast<std::size_t>(kv.head_dim);
  if (kv.type == DataType::f32) {
    std::memcpy(static_cast<float*>(kv.values) + at, value,
                static_cast<std::size_t>(kv.head_dim) * sizeof(float));
  } else {
    to_f16(value, kv.head_dim, static_cast<std::uint16_t*>(kv.values) + at);
  }
}

void rope_append(const RopeAppendJob& job) {
  const int d = job.kv.head_dim;
  const int values = job.num_heads + job.kv.num_kv_heads;
  for (int h = job.head_begin; h < job.head_end; ++h) {
    const float* in = job.qkv + h * d;
    if (h < job.num_heads) {
      rotate(in, job.cosines, job.sines, d / 2, job.q + h * d);
    } else if (h < values) {
      float key[kMaxHeadDim];
      rotate(in, job.cosines, job.sines, d / 2, key);
      append_key(job, key, h - job.num_heads);
    } else {
      append_value(job, in, h - values);
    }
  }
}

}  // namespace
}  // namespace specdec::kernels
