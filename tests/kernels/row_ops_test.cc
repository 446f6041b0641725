#include "kernels/cpu/row_ops.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "kernel_fixtures.h"

using namespace specdec::kernels;
using test::Random;

namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

}  // namespace

TEST_CASE("argmax: ties go to the lowest index and a NaN never wins") {
  CHECK(argmax(std::vector<float>{}) == -1);
  CHECK(argmax(std::vector<float>{NAN, NAN}) == -1);
  CHECK(argmax(std::vector<float>{NAN, -kInf}) == 1);
  CHECK(argmax(std::vector<float>{-kInf, -kInf}) == 0);
  CHECK(argmax(std::vector<float>{1, kInf, kInf}) == 1);
  CHECK(argmax(std::vector<float>{-0.0f, 0.0f}) == 0);
  Random random(3);
  for (int n = 1; n < 200; ++n) {
    std::vector<float> row(n);
    for (float& v : row) v = random.below(8) == 0 ? NAN : static_cast<float>(random.below(12));
    int expected = -1;
    for (int i = 0; i < n; ++i) {
      if (!std::isnan(row[i]) && (expected < 0 || row[i] > row[expected])) expected = i;
    }
    CHECK(argmax(row) == expected);
    CHECK(max_value(row) == (expected < 0 ? -kInf : row[expected]));
  }
}

TEST_CASE("log_sum_exp agrees with double precision") {
  CHECK(log_sum_exp(std::vector<float>{}) == -kInf);
  CHECK(log_sum_exp(std::vector<float>{-kInf, -kInf}) == -kInf);
  CHECK(log_sum_exp(std::vector<float>{-kInf, 2.0f}) == 2.0f);
  Random random(4);
  for (const int n : {1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 1000, 49152}) {
    std::vector<float> row(n);
    for (float& v : row) v = random.normal() * 8.0f + 500.0f;
    double top = -1e30;
    for (const float v : row) top = std::fmax(top, v);
    double sum = 0;
    for (const float v : row) sum += std::exp(v - top);
    CHECK(static_cast<double>(log_sum_exp(row)) ==
          doctest::Approx(top + std::log(sum)).epsilon(2e-7));
  }
}

TEST_CASE("exp_minus: four units in the last place, monotone at the ends, in place") {
  Random random(5);
  std::vector<float> row;
  for (int i = 0; i < 20003; ++i) row.push_back(random.uniform(-87.0f, 88.0f));
  std::vector<float> out(row.size());
  exp_minus(row, 0.0f, out);
  double worst = 0;
  for (std::size_t i = 0; i < row.size(); ++i) {
    const double exact = std::exp(static_cast<double>(row[i]));
    worst = std::fmax(worst, std::fabs(out[i] / exact - 1.0));
  }
  CHECK(worst < 4 * 0x1p-23);
  std::vector<float> ends = {-kInf, -200.0f, 0.0f, 100.0f, kInf, NAN, 3.0f};
  exp_minus(ends, 0.0f, ends);
  CHECK(ends[0] == 0.0f);
  CHECK(ends[1] == 0.0f);
  CHECK(ends[2] == 1.0f);
  CHECK(ends[3] == kInf);
  CHECK(ends[4] == kInf);
  CHECK(std::isnan(ends[5]));
  std::vector<float> shifted = {5.0f, 4.0f};
  exp_minus(shifted, 5.0f, shifted);
  CHECK(shifted[0] == 1.0f);
  CHECK(shifted[1] == doctest::Approx(std::exp(-1.0)));
}

TEST_CASE("a value's exp does not depend on where it stands in the row") {
  std::vector<float> row(67, -1.37f);
  std::vector<float> out(row.size());
  exp_minus(row, 0.25f, out);
  for (const float v : out) CHECK(v == out[0]);
}
