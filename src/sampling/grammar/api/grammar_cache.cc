#include <list>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>

#include "specdec/grammar.h"

namespace specdec {

struct GrammarCache::Impl {
  struct Entry {
    std::string key;
    Grammar grammar;
  };

  const std::size_t max_bytes;
  const std::size_t max_entries;
  mutable std::mutex mutex;  // over everything below
  std::list<Entry> entries;  // most recently used first
  std::unordered_map<std::string_view, std::list<Entry>::iterator> index;  // keys in the entries

  const Grammar* find(std::string_view key) {
    const auto found = index.find(key);
    if (found == index.end()) return nullptr;
    if (found->second->grammar.memory_bytes() > max_bytes / 4) {
      const auto entry = found->second;
      index.erase(found);
      entries.erase(entry);
      return nullptr;
    }
    entries.splice(entries.begin(), entries, found->second);
    return &found->second->grammar;
  }

  // Grammars grow as they are used, so all are asked again. The newest always stays.
  void evict() {
    std::size_t bytes = 0, kept = 0;
    for (const Entry& entry : entries) {
      bytes += entry.grammar.memory_bytes() + entry.key.size();
      if (kept > 0 && (bytes > max_bytes || kept == max_entries)) break;
      ++kept;
    }
    while (entries.size() > kept) {
      index.erase(entries.back().key);
      entries.pop_back();
    }
  }
};

GrammarCache::GrammarCache(std::size_t max_bytes, std::size_t max_entries)
    : impl_(new Impl{max_bytes, max_entries, {}, {}, {}}) {}

GrammarCache::~GrammarCache() = default;

Grammar GrammarCache::get(std::string_view key, const std::function<Grammar()>& compile) {
  {
    const std::lock_guard lock(impl_->mutex);
    if (const Grammar* known = impl_->find(key)) return *known;
  }
  Grammar made = compile();
  const std::lock_guard lock(impl_->mutex);
  if (const Grammar* known = impl_->find(key)) return *known;
  impl_->entries.push_front({std::string(key), made});
  impl_->index.emplace(impl_->entries.front().key, impl_->entries.begin());
  impl_->evict();
  return made;
}

Grammar GrammarCache::get(const GrammarSource& source) {
  const JsonOptions& options = source.options;
  if (options.load_schema) return source.compile();
  std::string key;
  for (const int part : {static_cast<int>(source.kind), static_cast<int>(options.whitespace),
                         int{options.schema_order}, int{options.assert_formats}})
    key += static_cast<char>('0' + part);
  return get(key + source.text, [&] { return source.compile(); });
}

std::size_t GrammarCache::size() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->entries.size();
}

}  // namespace specdec
