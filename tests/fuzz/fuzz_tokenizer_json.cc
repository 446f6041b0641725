// tokenizer.json: read from a folder in memory, built, and used.
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "engine/text/tokenizer_data.h"
#include "fuzz_input.h"
#include "specdec/error.h"

using namespace specdec;
namespace fs = std::filesystem;

namespace {

class Folder {
 public:
  Folder() {
    const fs::path memory = fs::exists("/dev/shm") ? "/dev/shm" : fs::temp_directory_path();
    path = memory / ("specdec_fuzz_" + std::to_string(::getpid()));
    fs::create_directories(path);
  }
  ~Folder() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
  fs::path path;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Folder folder;
  const std::string_view text = fuzz::text_of(data, size);
  std::ofstream(folder.path / "tokenizer.json", std::ios::binary | std::ios::trunc)
      .write(text.data(), static_cast<std::streamsize>(text.size()));
  try {
    const auto tokenizer = make_bpe_tokenizer(read_tokenizer_json(folder.path));
    tokenizer->decode(tokenizer->encode("Hello <|im_start|> 12 \xff world"), true);
  } catch (const Error&) {
  }
  return 0;
}
