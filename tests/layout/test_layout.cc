#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

// The include rule of docs/design.md: which folder may know which.

namespace {

namespace fs = std::filesystem;

struct Include {
  std::string file;
  std::string name;  // between the quotes or brackets
  bool quoted = false;
};

std::vector<Include> includes_of(const std::string& folder) {
  std::vector<Include> found;
  for (const auto& entry :
       fs::recursive_directory_iterator(fs::path(SPECDEC_SOURCE_DIR) / folder)) {
    const std::string extension = entry.path().extension().string();
    if (extension != ".h" && extension != ".cc" && extension != ".cu" && extension != ".cuh")
      continue;
    std::ifstream file(entry.path());
    for (std::string line; std::getline(file, line);) {
      if (line.rfind("#include", 0) != 0) continue;
      const std::size_t begin = line.find_first_of("\"<");
      const std::size_t end = line.find_first_of("\">", begin + 1);
      REQUIRE(end != std::string::npos);
      found.push_back(
          {entry.path().string(), line.substr(begin + 1, end - begin - 1), line[begin] == '"'});
    }
  }
  REQUIRE(found.size() > 5);
  return found;
}

bool starts_with(const std::string& text, const std::string& prefix) {
  return text.rfind(prefix, 0) == 0;
}

}  // namespace

TEST_CASE("kernels know nothing of the engine") {
  for (const Include& include : includes_of("kernels")) {
    CAPTURE(include.file);
    CAPTURE(include.name);
    const bool allowed = !include.quoted || starts_with(include.name, "kernels/");
    CHECK(allowed);
    CHECK(!starts_with(include.name, "specdec/"));
  }
}

TEST_CASE("drafting, verification and sampling know values, never the engine") {
  for (const char* folder : {"src/draft", "src/verify", "src/sampling"})
    for (const Include& include : includes_of(folder)) {
      CAPTURE(include.file);
      CAPTURE(include.name);
      CHECK(!starts_with(include.name, "engine/"));
      CHECK(!starts_with(include.name, "spdlog"));
    }
}

TEST_CASE("public headers need the standard library alone") {
  for (const Include& include : includes_of("include/specdec")) {
    CAPTURE(include.file);
    CAPTURE(include.name);
    const bool own = include.quoted && starts_with(include.name, "specdec/");
    const bool standard = !include.quoted && include.name.find('/') == std::string::npos &&
                          include.name.find('.') == std::string::npos;
    const bool allowed = own || standard;
    CHECK(allowed);
  }
}
