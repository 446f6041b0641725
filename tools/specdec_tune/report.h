#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "tools/cli/terminal.h"
#include "tools/specdec_tune/config_editor.h"
#include "tools/specdec_tune/search.h"

namespace specdec::tune {

/// What a search was about, for the reports.
struct Context {
  std::string prompts;              ///< file
  std::vector<std::string> models;  ///< as given to search()
  int max_tokens = 0;
  float temperature = 0;
  std::string date;  ///< ISO 8601
};

/// Speed-up over length of one method at one batch size: a line in the plots.
struct Curve {
  std::string method;                               ///< Setting::drafter()
  std::vector<std::pair<int, double>> points = {};  ///< fixed chains by length
  double adaptive = 0;                              ///< the best adaptive one's; 0: none
};
/// The curves of the trials at their `batch`-th batch size, best first.
std::vector<Curve> curves(const SearchResult& result, std::size_t batch);

/// The settings that lasted longest, as a table; costs above it.
std::string table_text(const SearchResult& result, const Context& context, int most_rows,
                       const cli::Painter& paint);
/// The curves, drawn with characters, `width` columns wide.
std::string plot_text(const std::vector<Curve>& curves, int width, const cli::Painter& paint);
nlohmann::ordered_json to_json(const SearchResult& result, const Context& context);
/// One page that needs nothing from anywhere.
std::string to_html(const SearchResult& result, const Context& context);

/// What `best` (null: plain decoding) is in a configuration file, with comments that say what was
/// measured.
std::vector<Assignment> assignments(const Trial* best, const SearchResult& result,
                                    const Context& context);

}  // namespace specdec::tune
