#pragma once

#include <random>
#include <string>

namespace specdec::testing {

/// A random regular expression in the usual syntax, over a few characters.
std::string random_regex(std::mt19937_64& random, int depth = 3);
/// A random GBNF grammar: a few rules that use each other, recursion included. It may match
/// nothing.
std::string random_gbnf(std::mt19937_64& random);

}  // namespace specdec::testing
