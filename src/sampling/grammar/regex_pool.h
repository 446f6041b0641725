#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "sampling/grammar/byte_set.h"
#include "sampling/grammar/flat_table.h"
#include "sampling/grammar/interner.h"

namespace specdec::grammar {

/// A regular expression in a RegexPool. Equal refs match the same strings; unequal ones may.
struct RegexRef {
  std::uint32_t id = 0;
  auto operator<=>(const RegexRef&) const = default;
};

/// Hash-consed regular expressions over bytes, with intersection, complement and counted repeats,
/// matched by derivatives (Brzozowski 1964; Owens, Reppy, Turon 2009). A repeat is one node with
/// two counters, whatever its bounds: its derivative counts down.
///
/// Expressions are brought to a normal form as they are made, so that derivatives have few forms:
/// concatenation leans right, unions and intersections are flat and sorted, byte classes merge. An
/// expression without intersection and complement matches nothing only if it *is* never().
///
/// Not thread-safe. Everything that makes expressions throws Error(invalid_argument) once the pool
/// outgrows its limit or an expression nests too deeply.
class RegexPool {
 public:
  /// `max_bytes`: the memory that the pool may take.
  explicit RegexPool(std::size_t max_bytes = std::size_t{64} << 20);

  RegexRef never() const noexcept { return {0}; }     ///< matches nothing
  RegexRef empty() const noexcept { return {1}; }     ///< matches the empty string alone
  RegexRef anything() const noexcept { return {3}; }  ///< matches every byte string
  RegexRef byte(unsigned char value) {
    if (bytes_[value] == kNever) bytes_[value] = byte_class(ByteSet::range(value, value)).id;
    return {bytes_[value]};
  }
  RegexRef byte_class(const ByteSet& set);
  RegexRef literal(std::string_view bytes);
  RegexRef concat(RegexRef first, RegexRef rest);
  RegexRef concat(std::span<const RegexRef> parts);
  RegexRef concat(std::initializer_list<RegexRef> parts) {
    return concat(std::span(parts.begin(), parts.size()));
  }
  RegexRef any_of(std::span<const RegexRef> options);
  RegexRef any_of(std::initializer_list<RegexRef> options) {
    return any_of(std::span(options.begin(), options.size()));
  }
  RegexRef any_of(RegexRef a, RegexRef b) { return any_of({a, b}); }
  /// One of the strings, as a prefix tree: its derivatives stay cheap for thousands of them.
  RegexRef any_literal(std::span<const std::string_view> strings);
  RegexRef all_of(std::span<const RegexRef> parts);
  RegexRef all_of(std::initializer_list<RegexRef> parts) {
    return all_of(std::span(parts.begin(), parts.size()));
  }
  RegexRef all_of(RegexRef a, RegexRef b) { return all_of({a, b}); }
  /// Every byte string that `body` does not match.
  RegexRef complement(RegexRef body);
  /// `body` from `min` to `max` times; without `max`, any number from `min` on.
  RegexRef repeat(RegexRef body, std::uint32_t min, std::optional<std::uint32_t> max);
  /// Decimal digits, points among them ignored, that continue a number which leaves `residue` so
  /// far into one divisible by `modulus` (below 2^31). The empty continuation counts.
  RegexRef modulo(std::uint32_t modulus, std::uint32_t residue);
  RegexRef optional(RegexRef body) { return repeat(body, 0, 1); }
  RegexRef star(RegexRef body) { return repeat(body, 0, std::nullopt); }

  /// What must follow `byte` in a match of `regex`.
  RegexRef derivative(RegexRef regex, unsigned char byte);
  /// What cannot be told from the expression by a text of at most kNearBytes bytes: such texts
  /// begin a match of both or of neither, and match both or neither. Counters whose bounds are far
  /// are let go, so that the states inside a long string are few.
  static constexpr std::uint32_t kNearBytes = 24;
  RegexRef near(RegexRef regex) { return {nodes_[regex.id].far ? near(regex.id).id : regex.id}; }
  /// Does it match the empty string?
  bool nullable(RegexRef regex) const noexcept { return nodes_[regex.id].nullable; }
  /// b{m,M} t, taken apart. Also where b{m,} has to differ from finitely many strings: then all but
  /// finitely many of its matches stay.
  struct Repeat {
    RegexRef body;
    std::optional<std::uint32_t> max;
    RegexRef rest;
  };
  /// No value when the expression does not begin with a repeat, or with anything that is not plain
  /// behind it.
  std::optional<Repeat> leading_repeat(RegexRef regex) const;
  /// Whether `holds(regex)`, or that of a part where the expression is a union.
  template <class Holds>
  bool any_option(RegexRef regex, Holds holds) const {
    const Node node = nodes_[regex.id];
    if (node.kind != Kind::any_of) return holds(regex);
    for (std::uint32_t i = 0; i < node.second; ++i)  // holds() may make expressions
      if (holds(RegexRef{lists_[node.first + i]})) return true;
    return false;
  }
  /// The bytes of a byte class; no value for other expressions.
  std::optional<ByteSet> byte_set(RegexRef regex) const {
    const Node& node = nodes_[regex.id];
    return node.kind == Kind::bytes ? std::optional(sets_[node.first]) : std::nullopt;
  }
  /// Takes the text that every match begins with, as far as it is written as one, off the front.
  std::string take_literal(RegexRef& regex) const;
  /// Bytes that a match may begin with; some of them may turn out not to, through intersections.
  ByteSet first_bytes(RegexRef regex) const;
  /// Does it match nothing at all? No value when `fuel` derivatives did not decide it. Answers are
  /// remembered.
  std::optional<bool> is_never(RegexRef regex, std::uint64_t fuel = 200'000);
  bool matches(RegexRef regex, std::string_view bytes);

  /// Bytes that no expression of the pool tells apart share a class; classes are numbered from 0.
  const std::array<std::uint8_t, 256>& byte_classes() const noexcept { return classes_; }
  int num_byte_classes() const noexcept { return num_classes_; }
  /// A byte of each class. [num_byte_classes()]
  std::span<const unsigned char> class_representatives() const noexcept {
    return {representatives_.data(), static_cast<std::size_t>(num_classes_)};
  }
  /// A hash of the structure, the same in every pool.
  std::uint64_t structural_hash(RegexRef regex) const noexcept { return nodes_[regex.id].hash; }
  /// Takes `steps` from the budget in force, for work of another kind.
  void charge(std::uint64_t steps);
  /// While one lives, derivatives may take `fuel` steps together; past that they throw
  /// Error(invalid_argument). Inside another one it changes nothing.
  class Budget {
   public:
    Budget(RegexPool& pool, std::uint64_t fuel) : pool_(pool), outer_(pool.step_end_) {
      if (outer_ == kNoEnd) pool.step_end_ = pool.steps_ + fuel;
    }
    ~Budget() { pool_.step_end_ = outer_; }
    Budget(const Budget&) = delete;
    Budget& operator=(const Budget&) = delete;

   private:
    RegexPool& pool_;
    std::uint64_t outer_;
  };

  std::size_t size() const noexcept { return nodes_.size(); }
  std::size_t memory_bytes() const noexcept;

 private:
  enum class Kind : std::uint8_t {
    never,
    empty,
    bytes,
    concat,
    any_of,
    all_of,
    complement,
    repeat,
    modulo
  };
  enum class Emptiness : std::uint8_t { unknown, inhabited, never };
  static constexpr std::uint32_t kNever = 0, kEmpty = 1, kAnyByte = 2, kAnything = 3;
  static constexpr std::uint32_t kNoMax = 0xFFFFFFFF;
  static constexpr std::uint32_t kNoMatch = 0xFFFFFFFF;
  static constexpr std::uint64_t kNoEnd = ~std::uint64_t{0};
  static constexpr int kMaxDepth = 2000;

  struct Node {
    std::uint64_t hash = 0;
    std::uint32_t first = 0;  // concat: head; bytes: set; repeat, complement: body; else: in lists_
    std::uint32_t second =
        0;  // concat: rest; any_of, all_of: number of parts; repeat: min; modulo: residue
    std::uint32_t max = 0;          // repeat: kNoMax without a bound; modulo: the modulus
    std::uint32_t match_bytes = 0;  // where it is plain: no more are needed for a match
    Kind kind = Kind::never;
    bool nullable : 1 = false;
    bool plain : 1 = true;    // neither intersection nor complement in it
    bool finite : 1 = true;   // matches finitely many strings; false where that is not obvious
    bool far : 1 = false;     // a counter in it, outside complements, has a bound past kNearBytes
    std::uint16_t depth = 0;  // of the recursion that its derivative takes
  };

  std::uint32_t intern(Node node, std::span<const std::uint32_t> parts = {});
  static bool has_far_bound(const Node& node) noexcept {
    return node.second > kNearBytes + 1 || (node.max != kNoMax && node.max > kNearBytes);
  }
  std::uint32_t match_bytes_of(const Node& node) const noexcept;
  std::uint32_t make_concat(std::uint32_t first, std::uint32_t rest);
  std::uint32_t make_repeat(std::uint32_t body, std::uint32_t min, std::uint32_t max);
  std::uint32_t make_complement(std::uint32_t body);
  // Both take their parts from the stack, from `base` on.
  std::uint32_t make_any_of(std::size_t base);
  std::uint32_t make_all_of(std::size_t base);
  void push_flat(Kind kind, std::uint32_t id);
  void sort_unique(std::size_t base);
  void merge_counters(std::size_t base);
  std::uint32_t derive(std::uint32_t id, unsigned char byte);
  /// The repeat that says how `head` goes on; kNever without one.
  std::uint32_t repeat_of(std::uint32_t head) const noexcept;
  Emptiness known_emptiness(std::uint32_t id) const noexcept;
  void remember(std::uint32_t id, Emptiness emptiness, std::uint32_t match_bytes = kNoMatch);
  /// Bytes of some match of an inhabited expression; kNoMatch if none is known.
  std::uint32_t known_match(std::uint32_t id) const noexcept;
  std::uint32_t raise_ceilings(std::uint32_t id, std::uint32_t& lowest);
  std::uint32_t raise_ceiling(std::uint32_t part, std::uint32_t& lowest);
  /// An expression without its far bounds, and the lowest ceiling that was taken off.
  struct Near {
    std::uint32_t id = kNever;
    std::uint32_t lowest = kNoMax;
  };
  Near near(std::uint32_t id);
  Near without_ceilings(std::uint32_t id);
  template <class Change>
  Near rebuild(std::uint32_t id, bool floors, Change change);
  std::uint32_t longest_match(std::uint32_t root);
  Emptiness search(std::uint32_t root, bool depth_first, std::uint64_t fuel);
  bool cannot_begin(std::uint32_t id, unsigned char byte) const noexcept;
  void refine_classes(const ByteSet& set);
  std::span<const std::uint32_t> parts_of(const Node& node) const noexcept {
    return {lists_.data() + node.first, node.second};
  }

  std::size_t max_bytes_;
  std::vector<Node> nodes_;
  std::vector<std::uint32_t> lists_;  // the parts of unions and intersections
  std::vector<ByteSet> sets_;
  std::vector<Emptiness> emptiness_;    // [nodes_], grown on demand
  std::vector<std::uint32_t> matches_;  // [nodes_], grown on demand: bytes of a match
  FlatTable table_;
  FlatTable set_table_;
  PairTable near_table_;  // (expression, which of the two) -> in near_
  std::vector<Near> near_;
  PairTable longest_;                 // (expression, 0) -> longest_match()
  PairTable star_steps_;              // (unbounded repeat, byte) -> derivative
  std::vector<std::uint32_t> stack_;  // parts of expressions being made
  std::array<std::uint8_t, 256> classes_{};
  std::array<unsigned char, 256> representatives_{};
  std::array<ByteSet, 256> members_{ByteSet::all()};  // of each class
  std::array<std::uint32_t, 256> bytes_{};  // expressions of single bytes; kNever: not made yet
  int num_classes_ = 1;
  bool modulo_classes_ = false;      // digits and the point have classes of their own
  std::uint64_t steps_ = 0;          // derivatives taken so far
  std::uint64_t step_end_ = kNoEnd;  // where the budget in force ends
};

}  // namespace specdec::grammar
