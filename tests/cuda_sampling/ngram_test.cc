#include "kernels/cuda/draft/ngram.h"

#include <doctest/doctest.h>

#include <random>

#include "batch.h"
#include "device_array.h"
#include "draft/ngram_drafter.h"

using namespace specdec;
using namespace specdec::cuda_test;
using namespace specdec::kernels::cuda;

TEST_CASE("prompt lookup finds what the host's finds") {
  std::mt19937_64 random(2);
  int found = 0;
  for (int round = 0; round < 60; ++round) {
    CAPTURE(round);
    constexpr int kStride = 3000;
    constexpr int kRows = 9;
    const int sequences = 1 + round % 7;
    const int alphabet = 2 + round % 11;
    const int min_match = 1 + round % 3;
    const int max_match = min_match + round % 4;
    std::vector<std::int32_t> history(static_cast<std::size_t>(sequences * kStride), -1);
    std::vector<SequenceState> states;
    std::vector<std::int32_t> most;
    for (int i = 0; i < sequences; ++i) {
      const int length = 1 + static_cast<int>(random() % (i % 2 == 0 ? 12 : kStride));
      states.push_back({length, 0});
      most.push_back(static_cast<int>(random() % 12) - 1);
      for (int j = 0; j < length; ++j)
        history[static_cast<std::size_t>(i * kStride + j)] =
            static_cast<std::int32_t>(random() % static_cast<unsigned>(alphabet));
    }
    const DeviceArray<std::int32_t> device_history(history), device_most(most);
    const DeviceArray<SequenceState> device_states(states);
    const auto rows = static_cast<std::size_t>(sequences * kRows);
    DeviceArray<std::int32_t> first_rows(static_cast<std::size_t>(sequences)),
        sizes(static_cast<std::size_t>(sequences)), sequence_of_row(rows), tokens(rows),
        parents(rows), depths(rows);
    REQUIRE(propose_ngram({.trees = {.num_sequences = sequences,
                                     .rows_per_sequence = kRows,
                                     .first_rows = first_rows.get(),
                                     .sizes = sizes.get(),
                                     .sequence_of_row = sequence_of_row.get(),
                                     .tokens = tokens.get(),
                                     .parents = parents.get(),
                                     .depths = depths.get()},
                           .sequences = device_states.get(),
                           .history = device_history.get(),
                           .history_stride = kStride,
                           .min_match = min_match,
                           .max_match = max_match,
                           .max_tokens = device_most.get()},
                          test_launch()) == cudaSuccess);
    const auto got_sizes = sizes.read(), got_tokens = tokens.read(),
               got_rows = sequence_of_row.read(), got_parents = parents.read(),
               got_depths = depths.read();
    for (int i = 0; i < sequences; ++i) {
      CAPTURE(i);
      const auto at = static_cast<std::size_t>(i);
      const auto context =
          std::span(history).subspan(at * kStride, static_cast<std::size_t>(states[at].length));
      if (most[at] < 0) {
        CHECK(got_sizes[at] == 0);
        continue;
      }
      const auto draft = lookup_ngram(context, min_match, max_match, std::min(most[at], kRows - 1));
      found += draft.empty() ? 0 : 1;
      REQUIRE(got_sizes[at] == 1 + static_cast<int>(draft.size()));
      for (int node = 0; node < kRows; ++node) {
        const auto row = at * kRows + static_cast<std::size_t>(node);
        CHECK(got_rows[row] == (node < got_sizes[at] ? i : -1));
        if (node >= got_sizes[at]) continue;
        CHECK(got_parents[row] == node - 1);
        CHECK(got_depths[row] == node);
        CHECK(got_tokens[row] ==
              (node == 0 ? context.back() : draft[static_cast<std::size_t>(node) - 1]));
      }
    }
  }
  CHECK(found > 60);
}
