#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "sampling/grammar/byte_set.h"
#include "sampling/grammar/flat_table.h"

namespace specdec::grammar {

/// A regular expression in a RegexPool. Equal languages often, but not always, have equal refs.
struct RegexRef {
  std::uint32_t id = 0;
  auto operator<=>(const RegexRef&) const = default;
};

/// Hash-consed regular expressions over bytes, with intersection, complement and counted repeats,
/// matched by derivatives (Brzozowski 1964; Owens, Reppy, Turon 2009). A repeat is one node with
/// two counters, whatever its bounds: its derivative counts down.
///
/// Expressions are brought to a normal form as they are made, so that a derivative has few forms:
/// concatenation leans right, unions and intersections are flat and sorted, byte classes merge.
/// An expression without intersection and complement is empty only if it *is* never().
///
/// Not thread-safe. Throws Error(invalid_argument) when the pool has grown past its limit.
class RegexPool {
 public:
  /// `max_bytes`: what the pool may take in memory.
  explicit RegexPool(std::size_t max_bytes = std::size_t{64} << 20);

  RegexRef never() const noexcept { return {0}; }      ///< matches nothing
  RegexRef empty() const noexcept { return {1}; }      ///< matches the empty string
  RegexRef anything() const noexcept { return {2}; }   ///< matches every byte string
  RegexRef byte(unsigned char value);
  RegexRef byte_class(const ByteSet& set);
  RegexRef literal(std::string_view bytes);
  RegexRef concat(RegexRef first, RegexRef rest);
  RegexRef concat(std::span<const RegexRef> parts);
  RegexRef any_of(std::span<const RegexRef> options);
  RegexRef any_of(RegexRef a, RegexRef b);
  /// One of the strings; a prefix tree, so that its derivatives are cheap for thousands of them.
  RegexRef any_literal(std::span<const std::string_view> strings);
  RegexRef all_of(std::span<const RegexRef> parts);
  RegexRef all_of(RegexRef a, RegexRef b);
  RegexRef complement(RegexRef body);
  /// `body` from `min` to `max` times; without `max`, any number from `min` on.
  RegexRef repeat(RegexRef body, std::uint32_t min, std::optional<std::uint32_t> max);
  RegexRef optional(RegexRef body) { return repeat(body, 0, 1); }
  RegexRef star(RegexRef body) { return repeat(body, 0, std::nullopt); }

  /// What must follow `byte` for a match of `regex`.
  RegexRef derivative(RegexRef regex, unsigned char byte);
  /// Does it match the empty string?
  bool nullable(RegexRef regex) const noexcept { return nodes_[regex.id].nullable; }
  /// Does it match nothing at all? No value when `fuel` derivatives did not decide it. Answers are
  /// remembered.
  std::optional<bool> is_never(RegexRef regex, std::uint64_t fuel = 200'000);
  bool matches(RegexRef regex, std::string_view bytes);

  /// Every byte class in it, for byte_classes().
  /// Bytes that no expression made so far tells apart have the same class. [256]
  std::array<std::uint8_t, 256> byte_classes() const;
  /// A hash of the structure that does not depend on the pool it lives in.
  std::uint64_t structural_hash(RegexRef regex) const noexcept { return nodes_[regex.id].hash; }

  std::size_t size() const noexcept { return nodes_.size(); }
  std::size_t memory_bytes() const noexcept;

 private:
  enum class Kind : std::uint8_t { never, empty, bytes, concat, any_of, all_of, complement, repeat };
  static constexpr std::uint32_t kNoMax = 0xFFFFFFFF;

  struct Node {
    Kind kind = Kind::never;
    bool nullable = false;
    bool plain = true;         // neither intersection nor complement in it
    std::uint16_t depth = 0;   // of the recursion that a derivative needs
    std::uint32_t first = 0;   // concat: head; bytes: set; repeat, complement: body; else: in lists_
    std::uint32_t second = 0;  // concat: rest; any_of, all_of: number of parts; repeat: min
    std::uint32_t max = 0;     // repeat: kNoMax without a bound
    std::uint64_t hash = 0;
  };
  enum class Emptiness : std::uint8_t { unknown, inhabited, never };

  RegexRef intern(Node node, std::span<const std::uint32_t> parts = {});
  bool same(const Node& a, const Node& b, std::span<const std::uint32_t> parts) const noexcept;
  std::span<const std::uint32_t> parts_of(const Node& node) const noexcept {
    return {lists_.data() + node.first, node.second};
  }
  RegexRef combine(Kind kind, std::vector<std::uint32_t>& parts);
  void merge_counters(std::vector<std::uint32_t>& parts);
  RegexRef derive(std::uint32_t id, unsigned char byte);
  bool can_begin(std::uint32_t id, unsigned char byte) const noexcept;

  std::size_t max_bytes_;
  std::vector<Node> nodes_;
  std::vector<std::uint32_t> lists_;
  std::vector<ByteSet> sets_;
  std::vector<Emptiness> emptiness_;  // [nodes_], grown on demand
  FlatTable table_;                   // hash -> node
};

}  // namespace specdec::grammar
