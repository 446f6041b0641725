#ifdef SPECDEC_HAS_CUDA

#include "engine/device_masks.h"

#include <cuda_runtime_api.h>
#include <doctest/doctest.h>

#include "support/engine_runs.h"

using namespace specdec;
using namespace specdec::testing;

namespace {

constexpr int kVocab = 100;  // two words of 64 bits

GrammarMask make_mask(std::uint64_t bits) {
  return std::make_shared<const std::vector<std::uint64_t>>(
      std::vector<std::uint64_t>{bits, bits + 1});
}

std::uint64_t first_word(const DeviceMasks& masks, std::int32_t number) {
  std::uint64_t word = 0;
  REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
  REQUIRE(cudaMemcpy(&word, masks.table() + number * kernels::cuda::mask_words(kVocab),
                     sizeof(word), cudaMemcpyDeviceToHost) == cudaSuccess);
  return word;
}

}  // namespace

TEST_CASE("a mask is sent once, and the one that was not used for longest makes room" *
          doctest::skip(test_device() != "cuda" || device_missing())) {
  DeviceMasks masks(kVocab, 3, 2, nullptr);
  const GrammarMask a = make_mask(10), b = make_mask(20), c = make_mask(30), d = make_mask(40);
  const std::int32_t of_a = masks.number(a);
  const std::int32_t of_b = masks.number(b);
  CHECK(of_a != of_b);
  masks.send();
  CHECK(masks.num_sent() == 2);
  CHECK(first_word(masks, of_a) == 10);
  CHECK(first_word(masks, of_b) == 20);

  const std::int32_t of_c = masks.number(c);
  CHECK(masks.number(a) == of_a);  // b has not been used for longest now
  const std::int32_t of_d = masks.number(d);
  CHECK(of_d == of_b);
  masks.send();
  CHECK(masks.num_sent() == 4);
  CHECK(first_word(masks, of_a) == 10);
  CHECK(first_word(masks, of_c) == 30);
  CHECK(first_word(masks, of_d) == 40);

  CHECK(masks.number(b) != of_d);  // sent anew
  masks.send();
  CHECK(masks.num_sent() == 5);
}

#endif
