#pragma once

#include <cstdint>

namespace specdec {

/// An index into a model's vocabulary.
using TokenId = std::int32_t;

/// Names one request for the lifetime of its engine; never reused, never 0.
using RequestId = std::uint64_t;

}  // namespace specdec
