// specdec-tune: setting keys in a text that somebody wrote by hand.

#include "tools/specdec_tune/config_editor.h"

#include <doctest/doctest.h>

#include <toml++/toml.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "specdec/error.h"

namespace {

using specdec::Error;
using specdec::tune::Assignment;
using specdec::tune::edit_config;

std::string edit(const std::string& text, const std::vector<Assignment>& assignments) {
  return edit_config(text, assignments, "a.toml");
}

/// `text` without its lines that begin with `mark`.
std::string without_lines(const std::string& text, const std::string& mark) {
  std::string rest;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size() - 1) + 1;
    if (text.compare(at, mark.size(), mark) != 0) rest += text.substr(at, end - at);
    at = end;
  }
  return rest;
}

}  // namespace

TEST_CASE("a value changes in place, and nothing else does") {
  CHECK(edit("# mine\n[draft]\nmethod = \"none\"  # why\n\n[sampling]\nseed = 7\n",
             {{"draft.method", "\"suffix\"", ""}}) ==
        "# mine\n[draft]\nmethod = \"suffix\"  # why\n\n[sampling]\nseed = 7\n");
  CHECK(edit("[draft.length]\r\nmode='fixed'\r\n", {{"draft.length.mode", "\"adaptive\"", ""}}) ==
        "[draft.length]\r\nmode=\"adaptive\"\r\n");
  CHECK(edit("[draft]\nmethod = [ # two\n  \"suffix\",\n  \"eagle3\",\n]\nmodel = \"m\"",
             {{"draft.method", "\"none\"", ""}}) == "[draft]\nmethod = \"none\"\nmodel = \"m\"");
}

TEST_CASE("columns are counted in characters, not bytes") {
  CHECK(edit("[target]\nmodel = \"größe/ünï✔.gguf\"\n[draft] # ü\n\"method\"  =  \"ü\" # ü\n",
             {{"draft.method", "\"none\"", ""}}) ==
        "[target]\nmodel = \"größe/ünï✔.gguf\"\n[draft] # ü\n\"method\"  =  \"none\" # ü\n");
  CHECK(edit("draft = { model = \"ü\", length = { mode = \"fixed\" } } # ü\n",
             {{"draft.length.mode", "\"schedule\"", "lost here"}}) ==
        "draft = { model = \"ü\", length = { mode = \"schedule\" } } # ü\n");
}

TEST_CASE("what looks like a key, a section or a comment inside a text is none") {
  const std::string text =
      "[sampling]\nstop = [\"\"\"\n[draft.length]\nmode = \"fixed\"\n# tuned: x\"\"\"]\n"
      "seed = 1\n[ draft . \"length\" ]\nmode = 'adaptive'\n";
  const std::string changed = edit(text, {{"draft.length.mode", "\"fixed\"", ""}});
  CHECK(changed.ends_with("[ draft . \"length\" ]\nmode = \"fixed\"\n"));
  CHECK(changed.starts_with(text.substr(0, text.find("[ draft"))));
  CHECK(edit("[sampling]\nstop = \"\"\"\n# tuned: x\"\"\"\nseed = 1\n",
             {{"sampling.seed", "2", "new"}}) ==
        "[sampling]\nstop = \"\"\"\n# tuned: x\"\"\"\n# tuned: new\nseed = 2\n");
}

TEST_CASE("a missing key joins its section") {
  CHECK(edit("[draft.length]\n  mode = \"fixed\"  # why\n\n[sampling]\nseed = 7\n",
             {{"draft.length.num_speculative_tokens", "8", ""}}) ==
        "[draft.length]\n  mode = \"fixed\"  # why\n  num_speculative_tokens = 8\n\n"
        "[sampling]\nseed = 7\n");
  CHECK(edit("[draft.length] # empty\n[sampling]\n", {{"draft.length.mode", "\"fixed\"", "t"}}) ==
        "[draft.length] # empty\n# tuned: t\nmode = \"fixed\"\n[sampling]\n");
  CHECK(edit("[draft]\nlength.mode = \"fixed\"",
             {{"draft.length.num_speculative_tokens", "8", ""}}) ==
        "[draft]\nlength.mode = \"fixed\"\nlength.num_speculative_tokens = 8\n");
  CHECK(edit("draft = {}\n", {{"draft.method", "\"ngram\"", ""}}) ==
        "draft = { method = \"ngram\"}\n");
  CHECK(edit("draft = { model = \"m\" }\n", {{"draft.length.mode", "\"fixed\"", ""}}) ==
        "draft = { model = \"m\", length.mode = \"fixed\" }\n");
}

TEST_CASE("a missing section comes after its relatives, or at the end") {
  CHECK(edit("[draft]\nmethod = \"none\"\n\n[sampling]\nseed = 7\n",
             {{"draft.length.mode", "\"fixed\"", "t"}}) ==
        "[draft]\nmethod = \"none\"\n\n[draft.length]\n# tuned: t\nmode = \"fixed\"\n\n"
        "[sampling]\nseed = 7\n");
  CHECK(edit("", {{"draft.method", "\"none\"", ""}}) == "[draft]\nmethod = \"none\"\n");
  CHECK(edit("[sampling]\nseed = 7", {{"draft.method", "\"none\"", ""}}) ==
        "[sampling]\nseed = 7\n\n[draft]\nmethod = \"none\"\n");
}

TEST_CASE("an earlier run's comments make way, the user's stay") {
  const std::string once =
      edit("[draft]\n# mine\nmethod = \"none\"\n", {{"draft.method", "\"ngram\"", "1.2x"}});
  CHECK(once == "[draft]\n# mine\n# tuned: 1.2x\nmethod = \"ngram\"\n");
  CHECK(edit(once, {{"draft.method", "\"suffix\"", "1.4x"}}) ==
        "[draft]\n# mine\n# tuned: 1.4x\nmethod = \"suffix\"\n");
}

TEST_CASE("however a file is written, the edited one says what it said and the new values") {
  const std::vector<Assignment> assignments = {{"draft.method", "\"suffix+eagle3\"", "a"},
                                               {"draft.length.mode", "\"adaptive\"", "b"},
                                               {"draft.length.num_speculative_tokens", "8", ""},
                                               {"draft.tree.topk", "2", "c"},
                                               {"verify.method", "\"coupled\"", ""}};
  const std::vector<std::string> files = {
      "",
      "\n\n",
      "# nothing\n",
      "draft.method = \"none\"\n[sampling]\nseed = 1\n",
      "draft.length.mode = \"fixed\"\n[sampling]\nseed = 1\n",
      "draft = { method = \"none\", length = { mode = \"fixed\" } }\n",
      "draft.length = { mode = \"fixed\" }\nverify.method = 'block'\n",
      "draft = {}\nverify = {   }\n",
      "[draft.length]\nschedule = [[1, 5],\n [8, 3], # eight\n]\n[draft]\nmodel = \"m\"\n",
      "[draft.tree]\n[draft.length]\n[verify]\n",
      "[sampling]\nstop = '''\n[draft]\nmethod = 1\n'''\n[draft]\n\"model\" = 'x'",
      "[draft]\r\nmodel = \"m\" # c\r\n\r\n[draft.suffix]\r\ncache_mb = 1\r\n",
      "\"draft\".'method' = \"none\"\n\"draft\".length.\"mode\" = 'fixed'\n",
      "[draft]\nlength.mode = \"fixed\" # l\ntree = { topk = 1 }\n[verify]\nmethod = \"block\"",
      "    [ draft ]\n\tmethod=\"none\"\n",
      "draft.suffix.cache_mb = 3\n[draft.ngram]\nprompt_lookup_min = 2\n",
  };
  for (const std::string& text : files) {
    CAPTURE(text);
    toml::table wanted = toml::parse(text);
    const auto table = [](toml::table& from, const char* name) -> toml::table& {
      if (!from.contains(name)) from.insert(name, toml::table{});
      return *from[name].as_table();
    };
    toml::table& draft = table(wanted, "draft");
    draft.insert_or_assign("method", "suffix+eagle3");
    table(draft, "length").insert_or_assign("mode", "adaptive");
    table(draft, "length").insert_or_assign("num_speculative_tokens", 8);
    table(draft, "tree").insert_or_assign("topk", 2);
    table(wanted, "verify").insert_or_assign("method", "coupled");
    std::string edited;
    REQUIRE_NOTHROW(edited = edit(text, assignments));
    CAPTURE(edited);
    CHECK(toml::parse(edited) == wanted);
    // Once more: stable.
    CHECK(edit(edited, assignments) == edited);
    if (text.find('\r') != std::string::npos) {
      CHECK(std::count(edited.begin(), edited.end(), '\r') ==
            std::count(edited.begin(), edited.end(), '\n'));
    }
    // Every comment of the user's is still there.
    for (const char* comment : {"# nothing", "# eight", "# l", "# c"})
      CHECK((text.find(comment) == std::string::npos) ==
            (without_lines(edited, "# tuned:").find(comment) == std::string::npos));
  }
}

TEST_CASE("what cannot be edited is an error that says what to do") {
  CHECK_THROWS_WITH_AS(edit("[draft\n", {{"draft.method", "1", ""}}),
                       doctest::Contains("a.toml:1: not valid TOML"), Error);
  CHECK_THROWS_WITH_AS(edit("draft = 3\n", {{"draft.method", "\"none\"", ""}}),
                       doctest::Contains("draft.method cannot be set"), Error);
}

TEST_CASE("strings are quoted so that TOML reads them back") {
  const std::string nasty = "a\"b\\c\n\t\x7f ü \x01";
  const toml::table back = toml::parse("v = " + specdec::tune::toml_string(nasty));
  CHECK(back["v"].value<std::string>() == nasty);
}

TEST_CASE("a file is replaced whole, through a link, and keeps its mode") {
  namespace fs = std::filesystem;
  const fs::path folder = fs::temp_directory_path() / "specdec-editor-test";
  fs::remove_all(folder);
  fs::create_directory(folder);
  const fs::path file = folder / "real.toml";
  std::ofstream(file) << "old";
  fs::permissions(file, fs::perms::owner_read | fs::perms::owner_write);
  fs::create_symlink(file, folder / "link.toml");
  specdec::tune::replace_file((folder / "link.toml").string(), "new");
  std::ifstream input(file);
  CHECK(std::string(std::istreambuf_iterator<char>(input), {}) == "new");
  CHECK(fs::is_symlink(folder / "link.toml"));
  CHECK(fs::status(file).permissions() == (fs::perms::owner_read | fs::perms::owner_write));
  CHECK_THROWS_AS(specdec::tune::replace_file((folder / "no/such.toml").string(), "x"), Error);
  fs::remove_all(folder);
}
