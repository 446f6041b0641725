#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/model/mapped_file.h"

namespace specdec::fuzz {

/// A file in a heap block of its exact size, so that AddressSanitizer sees the first byte past it.
inline std::shared_ptr<const MappedFile> file_of(std::string_view bytes, const char* name) {
  const auto* begin = reinterpret_cast<const std::byte*>(bytes.data());
  return MappedFile::from_bytes({begin, begin + bytes.size()}, name);
}

inline std::string_view text_of(const std::uint8_t* data, std::size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

}  // namespace specdec::fuzz
