#include "engine/cost_measurement.h"

#include <algorithm>
#include <chrono>
#include <numeric>

#include "sampling/mutation.h"

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

/// The median time of each. They take turns: a machine that is busy for a while spoils a sample of
/// each, not all of one.
std::vector<double> time_passes(const PassToTime& pass, std::span<const ForwardBatch> batches) {
  const auto run_all = [&](std::vector<std::vector<double>>* seconds) {
    double total = 0;
    for (std::size_t i = 0; i < batches.size(); ++i) {
      const double taken = seconds_of(pass, batches[i]);
      if (seconds != nullptr) (*seconds)[i].push_back(taken);
      total += taken;
    }
    return total;
  };
  // Scratch grows and pages appear in the first pass; but weights that a shared cache has given to
  // others come back over many, and until then narrow passes take up to twice as long.
  constexpr double kWarm = 40e-3;  // seconds
  for (double total = 0; total < kWarm;) total += run_all(nullptr);
  // Short passes scatter more: they are timed more often.
  constexpr std::size_t kFewest = 3;
  constexpr std::size_t kMost = 15;
  const double enough = 5e-3 * static_cast<double>(batches.size());
  std::vector<std::vector<double>> seconds(batches.size());
  double total = 0;
  for (std::size_t round = 0; round < kFewest || (total < enough && round < kMost); ++round)
    total += run_all(&seconds);
  std::vector<double> medians;
  for (std::vector<double>& samples : seconds) medians.push_back(median(samples));
  return medians;
}

double time_pass(const PassToTime& pass, const ForwardBatch& batch) {
  return time_passes(pass, {&batch, 1}).front();
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
  // Those of single sequences beside each other, without wide ones between: see time_passes().
  // A CPU takes eight rows at a time: the ninth, alone in its panel, costs more than those after
  // it.
  for (const std::vector<int>& widths :
       {std::vector{1, 2, 3, 4, 6, 8}, std::vector{9, 12, 16, 17, 24, 32, 33, 48}}) {
    std::vector<ForwardBatch> batches;
    for (const int rows : widths)
      if (rows <= limits.max_rows && context + rows <= limits.max_context)
        batches.push_back(chain(table, context, rows));
    if (batches.empty()) break;
    const std::vector<double> seconds = time_passes(pass, batches);
    for (std::size_t i = 0; i < batches.size(); ++i)
      times.points.emplace_back(batches[i].num_rows(), seconds[i]);
  }
  const auto measure = [&](int at, int rows) { return time_pass(pass, chain(table, at, rows)); };
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
  // An EAGLE head has no entry at position 0: a row there would attend to nothing, and its NaN
  // would stay in a slot that is never written again.
  const int first = mutant_active("costs_from_position_0") ? 0 : 1;
  for (const int rows : {1, 64, 512}) {
    if (rows > limits.max_rows || first + rows > limits.max_context) break;
    ForwardBatch batch;
    batch.begin_sequence(first, table);
    for (int row = 0; row < rows; ++row) batch.add_row(0, first + row, row == rows - 1);
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
