#include "engine/cost_measurement.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <numeric>

namespace specdec {

CostCurve measure_costs(const std::function<void(const ForwardBatch&)>& pass, int max_rows,
                        int num_blocks, int block_size) {
  using SteadyClock = std::chrono::steady_clock;
  std::vector<BlockId> table(static_cast<std::size_t>(num_blocks));
  std::iota(table.begin(), table.end(), 0);
  const int capacity = num_blocks * block_size;
  const int context = std::min(128, capacity / 2);
  std::vector<std::pair<int, double>> measured;
  for (const int rows : {1, 2, 3, 4, 6, 8, 12, 16, 24, 32}) {
    if (rows > max_rows || context + rows > capacity) break;
    ForwardBatch batch;
    batch.begin_sequence(context, table);
    for (int row = 0; row < rows; ++row) batch.add_row(0, context + row, true);
    pass(batch);  // warms up: scratch grows, pages appear
    std::array<double, 3> seconds;
    for (double& second : seconds) {
      const auto begin = SteadyClock::now();
      pass(batch);
      second = std::chrono::duration<double>(SteadyClock::now() - begin).count();
    }
    std::sort(seconds.begin(), seconds.end());
    measured.emplace_back(rows, seconds[1]);
  }
  return CostCurve(std::move(measured));
}

}  // namespace specdec
