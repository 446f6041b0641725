#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace specdec {

/// A file's bytes, read-only: memory-mapped, or held in memory. Safe to read from any thread. A
/// file that another process shortens while it is mapped faults, as with every mapping; replace
/// model files by renaming.
class MappedFile {
 public:
  /// Throws Error(io) when the file cannot be opened, is no regular file or cannot be mapped.
  static std::shared_ptr<const MappedFile> open(const std::filesystem::path& path);
  /// Bytes that are no file (tests, fuzzing); `name` stands for the file in messages.
  static std::shared_ptr<const MappedFile> from_bytes(std::vector<std::byte> bytes,
                                                      std::string name);

  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  std::span<const std::byte> bytes() const noexcept { return bytes_; }
  const std::string& name() const noexcept { return name_; }
  bool contains(const std::byte* data) const noexcept;
  /// Drops the resident pages around `part`, which lies in this file; they come back when read.
  void release(std::span<const std::byte> part) const noexcept;

 private:
  MappedFile() = default;

  std::string name_;
  std::span<const std::byte> bytes_;
  std::vector<std::byte> owned_;
  void* mapping_ = nullptr;
};

}  // namespace specdec
