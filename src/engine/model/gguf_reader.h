#pragma once

#include <cstring>
#include <string>
#include <string_view>

#include "engine/model/gguf.h"
#include "specdec/error.h"

namespace specdec {

/// A cursor over a GGUF header that cannot leave the file. `context` names what is being read, for
/// messages.
class GgufReader {
 public:
  GgufReader(std::span<const std::byte> bytes, const std::string& file)
      : bytes_(bytes), file_(file) {}

  std::size_t position() const noexcept { return position_; }
  std::size_t remaining() const noexcept { return bytes_.size() - position_; }
  void set_context(std::string context) { context_ = std::move(context); }

  template <typename T>
  T scalar(const char* what) {
    T value;
    std::memcpy(&value, take(sizeof(T), what).data(), sizeof(T));
    return value;
  }

  std::string_view string(const char* what, std::uint64_t longest = UINT64_MAX) {
    const auto length = scalar<std::uint64_t>(what);
    if (length > longest) {
      fail(std::string(what) + " is " + std::to_string(length) + " bytes long, at most " +
           std::to_string(longest) + " are allowed");
    }
    const auto text = take(length, what);
    return {reinterpret_cast<const char*>(text.data()), text.size()};
  }

  std::span<const std::byte> take(std::uint64_t size, const char* what) {
    if (size > remaining()) {
      fail("the file ends inside " + std::string(what) + " (" + std::to_string(size) +
           " bytes wanted, " + std::to_string(remaining()) + " left); download it again");
    }
    const auto part = bytes_.subspan(position_, static_cast<std::size_t>(size));
    position_ += part.size();
    return part;
  }

  [[noreturn]] void fail(const std::string& what) const {
    throw Error(ErrorCode::invalid_model, file_ + ": " + context_ + ": " + what);
  }

 private:
  std::span<const std::byte> bytes_;
  const std::string& file_;
  std::string context_;
  std::size_t position_ = 0;
};

}  // namespace specdec
