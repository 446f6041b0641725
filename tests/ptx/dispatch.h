// The instance of a function template for a type suffix.
#pragma once

#include <cstdint>
#include <type_traits>

#include "tests/ptx/decoder.h"
#include "tests/ptx/lanes.h"

namespace specdec::ptx {

template <class T>
struct Tag {
  using type = T;
};
template <class TagType>
using Tagged = typename TagType::type;

/// f(Tag<T>) with T the 16, 32 or 64-bit integer of `type` (.b: unsigned); null: none.
template <class F>
Handler for_integer(Type type, F&& f) {
  if (type.is_float() || type.is_predicate()) return nullptr;
  const bool is_signed = type.is_signed();
  switch (type.bits) {
    case 16:
      return is_signed ? f(Tag<std::int16_t>()) : f(Tag<std::uint16_t>());
    case 32:
      return is_signed ? f(Tag<std::int32_t>()) : f(Tag<std::uint32_t>());
    case 64:
      return is_signed ? f(Tag<std::int64_t>()) : f(Tag<std::uint64_t>());
    default:
      return nullptr;
  }
}

/// The same for .f32 and .f64.
template <class F>
Handler for_float(Type type, F&& f) {
  if (type.kind != Type::Kind::kFloat || type.packed != 1) return nullptr;
  switch (type.bits) {
    case 32:
      return f(Tag<float>());
    case 64:
      return f(Tag<double>());
    default:
      return nullptr;
  }
}

inline constexpr Type kU32{Type::Kind::kUnsigned, 32, 1};
inline constexpr Type kU64{Type::Kind::kUnsigned, 64, 1};
inline constexpr Type kB16{Type::Kind::kBits, 16, 1};
inline constexpr Type kPredicateType{Type::Kind::kPredicate, 1, 1};

/// d = op(a, b, ...): the first operand is written, the rest is read, all of the given types.
inline void emit_simple(Decoder& decoder, const Statement& statement, Handler run, Type result,
                        std::initializer_list<Type> sources) {
  if (run == nullptr) decoder.unknown(statement, "not for this type");
  if (statement.operands.size() != sources.size() + 1)
    decoder.unknown(statement, "number of operands");
  Instr instr;
  instr.run = run;
  Place* const places[] = {&instr.a, &instr.b, &instr.c};
  std::size_t i = 0;
  std::vector<Place> rest;
  for (const Type& source : sources) {
    const Place place = decoder.use(statement.operands[i + 1], source);
    if (i < 3) {
      *places[i] = place;
    } else {
      rest.push_back(place);
    }
    ++i;
  }
  instr.d = decoder.define(statement.operands[0], result);
  if (!rest.empty()) decoder.more(instr, rest, {});
  decoder.emit(instr);
}

}  // namespace specdec::ptx
