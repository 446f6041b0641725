#include "engine/model/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <functional>
#include <system_error>
#include <utility>

#include "specdec/error.h"

namespace specdec {
namespace {

/// Linux maps up to 64 KiB around a fault (fault_around_bytes), so reading one tensor brings back
/// the edge of the neighbour that was released before it. Releasing the whole window costs the
/// neighbour one minor fault and keeps a released file out of the resident set.
constexpr std::uintptr_t kFaultAroundBytes = 64 * 1024;

class FileDescriptor {
 public:
  explicit FileDescriptor(int fd) : fd_(fd) {}
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  ~FileDescriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const noexcept { return fd_; }

 private:
  int fd_;
};

[[noreturn]] void throw_io(const std::string& name, const std::string& what, int error) {
  throw Error(ErrorCode::io, name + ": " + what + ": " + std::generic_category().message(error));
}

}  // namespace

std::shared_ptr<const MappedFile> MappedFile::open(const std::filesystem::path& path) {
  std::shared_ptr<MappedFile> file(new MappedFile);
  file->name_ = path.string();
  // O_NONBLOCK: a FIFO named by mistake must not hang the loader; it has no effect on a file.
  const FileDescriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (fd.get() < 0) throw_io(file->name_, "cannot open the file", errno);
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) throw_io(file->name_, "cannot stat the file", errno);
  if (!S_ISREG(info.st_mode)) throw Error(ErrorCode::io, file->name_ + ": is no regular file");
  const auto size = static_cast<std::size_t>(info.st_size);
  if (size == 0) return file;
  void* mapping = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd.get(), 0);
  if (mapping == MAP_FAILED) throw_io(file->name_, "cannot map the file", errno);
  file->mapping_ = mapping;
  file->bytes_ = {static_cast<const std::byte*>(mapping), size};
  return file;
}

std::shared_ptr<const MappedFile> MappedFile::from_bytes(std::vector<std::byte> bytes,
                                                         std::string name) {
  std::shared_ptr<MappedFile> file(new MappedFile);
  file->name_ = std::move(name);
  file->owned_ = std::move(bytes);
  file->bytes_ = file->owned_;
  return file;
}

MappedFile::~MappedFile() {
  if (mapping_ != nullptr) ::munmap(mapping_, bytes_.size());
}

bool MappedFile::contains(const std::byte* data) const noexcept {
  const std::less<const std::byte*> before;
  return !before(data, bytes_.data()) && before(data, bytes_.data() + bytes_.size());
}

void MappedFile::release(std::span<const std::byte> part) const noexcept {
  if (mapping_ == nullptr || part.empty()) return;
  const auto mapped = reinterpret_cast<std::uintptr_t>(mapping_);
  const auto begin = reinterpret_cast<std::uintptr_t>(part.data());
  const auto first = std::max(mapped, begin & ~(kFaultAroundBytes - 1));
  const auto last = std::min(mapped + bytes_.size(), (begin + part.size() + kFaultAroundBytes - 1) &
                                                         ~(kFaultAroundBytes - 1));
  ::madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
}

}  // namespace specdec
