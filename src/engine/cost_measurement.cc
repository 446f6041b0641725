#include "engine/cost_measurement.h"

#include <algorithm>
#include <chrono>
#include <numeric>

namespace specdec {

namespace {

constexpr int kShortContext = 128;
constexpr int kLongContext = 1024;

double median(std::vector<double>& values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

double seconds_of(const PassToTime& pass, const ForwardBatch& batch) {
  const auto begin = std::chrono::steady_clock::now();
  pass(batch);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

ForwardBatch chain(std::span<const BlockId> table, int context, int rows) {
  ForwardBatch batch;
  batch.begin_sequence(context, table);
  for (int row = 0; row < rows; ++row) batch.add_row(0, context + row, true);
  return batch;
}

double time_pass(const PassToTime& pass, const ForwardBatch& batch) {
  pass(batch);  // warms up: scratch grows, pages appear
  // Short passes scatter more: they are timed more often.
  constexpr std::size_t kFewest = 3;
  constexpr std::size_t kMost = 15;
  constexpr double kEnough = 5e-3;  // seconds
  std::vector<double> seconds;
  double total = 0;
  while (seconds.size() < kFewest || (total < kEnough && seconds.size() < kMost)) {
    seconds.push_back(seconds_of(pass, batch));
    total += seconds.back();
  }
  return median(seconds);
}

std::vector<BlockId> first_blocks(int num_blocks) {
  std::vector<BlockId> table(static_cast<std::size_t>(num_blocks));
  std::iota(table.begin(), table.end(), 0);
  return table;
}

int short_context(const PassLimits& limits) {
  return std::min(kShortContext, limits.max_context / 2);
}

}  // namespace

PassTimes measure_costs(const PassToTime& pass, const PassLimits& limits) {
  const std::vector<BlockId> table = first_blocks(limits.num_blocks);
  const int context = short_context(limits);
  PassTimes times;
  times.context.context = context;
  const auto measure = [&](int at, int rows) { return time_pass(pass, chain(table, at, rows)); };
  // A CPU takes eight rows at a time: the ninth, alone in its panel, costs more than those after
  // it.
  for (const int rows : {1, 2, 3, 4, 6, 8, 9, 12, 16, 17, 24, 32, 33, 48}) {
    if (rows > limits.max_rows || context + rows > limits.max_context) break;
    times.points.emplace_back(rows, measure(context, rows));
  }
  constexpr int kRows = 8;
  if (kLongContext + kRows > limits.max_context || kRows > limits.max_rows) return times;
  const double tokens = kLongContext - context;
  const double one = measure(kLongContext, 1) - measure(context, 1);
  const double all = measure(kLongContext, kRows) - measure(context, kRows);
  times.context.per_row_token = std::max(0.0, (all - one) / ((kRows - 1) * tokens));
  times.context.per_token = std::max(0.0, one / tokens - times.context.per_row_token);
  return times;
}

CostPoints measure_prompts(const PassToTime& pass, const PassLimits& limits) {
  const std::vector<BlockId> table = first_blocks(limits.num_blocks);
  CostPoints points;
  for (const int rows : {1, 64, 512}) {
    if (rows > limits.max_rows || rows > limits.max_context) break;
    ForwardBatch batch;
    batch.begin_sequence(0, table);
    for (int row = 0; row < rows; ++row) batch.add_row(0, row, row == rows - 1);
    points.emplace_back(rows, time_pass(pass, batch));
  }
  return points;
}

double measure_cold(const PassToTime& pass, const PassToTime& other, const PassLimits& limits) {
  const std::vector<BlockId> table = first_blocks(limits.num_blocks);
  const ForwardBatch batch = chain(table, short_context(limits), 1);
  std::vector<double> seconds;
  constexpr std::size_t kTimes = 7;
  while (seconds.size() < kTimes) {
    other(batch);
    seconds.push_back(seconds_of(pass, batch));
  }
  return std::max(0.0, median(seconds) - time_pass(pass, batch));
}

void fill_for_costs(Backend& backend, const KvPoolStorage& pool, const PassLimits& limits) {
  const std::vector<BlockId> table = first_blocks(limits.num_blocks);
  std::vector<kernels::KvMove> moves;
  for (int slot = 1; slot < std::min(kLongContext, limits.max_context); ++slot)
    moves.push_back({0, slot});
  pool.move(backend, table, moves, Stream{});
}

}  // namespace specdec
