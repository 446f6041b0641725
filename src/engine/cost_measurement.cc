#include "engine/cost_measurement.h"

#include <algorithm>
#include <chrono>
#include <numeric>

namespace specdec {

CostPoints measure_costs(const std::function<void(const ForwardBatch&)>& pass, int max_rows,
                         int num_blocks, int block_size) {
  using SteadyClock = std::chrono::steady_clock;
  std::vector<BlockId> table(static_cast<std::size_t>(num_blocks));
  std::iota(table.begin(), table.end(), 0);
  const int capacity = num_blocks * block_size;
  const int context = std::min(128, capacity / 2);
  CostPoints measured;
  for (const int rows : {1, 2, 3, 4, 6, 8, 12, 16, 24, 32}) {
    if (rows > max_rows || context + rows > capacity) break;
    ForwardBatch batch;
    batch.begin_sequence(context, table);
    for (int row = 0; row < rows; ++row) batch.add_row(0, context + row, true);
    pass(batch);  // warms up: scratch grows, pages appear
    // Short passes scatter more: they are timed more often.
    constexpr std::size_t kFewest = 3;
    constexpr std::size_t kMost = 15;
    constexpr double kEnough = 5e-3;  // seconds
    std::vector<double> seconds;
    double total = 0;
    while (seconds.size() < kFewest || (total < kEnough && seconds.size() < kMost)) {
      const auto begin = SteadyClock::now();
      pass(batch);
      seconds.push_back(std::chrono::duration<double>(SteadyClock::now() - begin).count());
      total += seconds.back();
    }
    const auto middle = seconds.begin() + static_cast<std::ptrdiff_t>(seconds.size() / 2);
    std::nth_element(seconds.begin(), middle, seconds.end());
    measured.emplace_back(rows, *middle);
  }
  return measured;
}

}  // namespace specdec
