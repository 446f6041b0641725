#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "specdec/config.h"

namespace specdec {

/// Where a key's value lies in a Config; the alternative is the key's type.
using FieldRef =
    std::variant<std::string*, int*, float*, bool*, std::optional<std::uint64_t>*,
                 std::vector<std::string>*, std::vector<TokenId>*,
                 std::unordered_map<TokenId, float>*, std::vector<std::pair<int, int>>*>;

/// One row of the table that parsing, environment, flags, checks and printing all read. A new key
/// is a new row and nothing else.
struct ConfigKey {
  enum class Kind : std::uint8_t {
    plain,
    path,    ///< a relative path in a file means: relative to that file
    method,  ///< a name, or a list of one (lists of several drafters are not there yet)
  };

  std::string_view name;  ///< dotted
  FieldRef (*field)(Config&);
  std::string_view doc;  ///< one line
  /// Numbers, or the numbers of a list: inclusive bounds.
  double low = 0;
  double high = 0;
  std::string_view choices = {};  ///< "a|b|c"; empty = any
  Kind kind = Kind::plain;

  /// "sampling" of "sampling.seed"
  std::string_view section() const { return name.substr(0, name.rfind('.')); }
  /// "seed" of "sampling.seed"
  std::string_view leaf() const { return name.substr(name.rfind('.') + 1); }
};

/// In the order of Config::keys(): sections stand together.
std::span<const ConfigKey> config_keys();
const ConfigKey* find_config_key(std::string_view name);
/// Whether some key is named `name` + ".something".
bool is_config_section(std::string_view name);
/// The known key or section most like `name`, by edit distance; a key that is only in the wrong
/// section comes first.
std::string_view nearest_config_name(std::string_view name);

/// Levenshtein distance in bytes.
std::size_t edit_distance(std::string_view a, std::string_view b);

/// "a whole number from 1 to 64": what a message says after "expected".
std::string expectation(const ConfigKey& key);
/// "is 99" when `value` is not one that `key` takes; empty when it is.
template <class T>
std::string value_problem(const ConfigKey& key, const T& value);

/// `text` in double quotes, TOML escapes, at most `limit` bytes of it: safe on a terminal.
std::string quote(std::string_view text, std::size_t limit = 60);
bool is_valid_utf8(std::string_view text);

/// SPECDEC_SAMPLING_SEED for sampling.seed
std::string environment_name(std::string_view key);

}  // namespace specdec
