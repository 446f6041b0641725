#include "specdec/engine.h"

#include <utility>

#include "engine/engine_impl.h"

namespace specdec {

Engine Engine::load(const Config& config) { return Engine(std::make_unique<Impl>(config)); }

Engine::Engine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Engine::Engine(Engine&&) noexcept = default;
Engine& Engine::operator=(Engine&&) noexcept = default;
Engine::~Engine() = default;

RequestId Engine::submit(Request request) { return impl_->submit(std::move(request)); }
bool Engine::cancel(RequestId id) { return impl_->queue.cancel(id); }
bool Engine::step() { return impl_->step(); }
void Engine::wait_for_work() { impl_->queue.wait_for_work(); }
void Engine::wake() { impl_->queue.wake(); }
std::vector<Output> Engine::take_outputs() { return impl_->queue.take_outputs(); }

Grammar Engine::grammar(const GrammarSource& source) { return impl_->grammars.get(source); }

void Engine::add_drafter(std::unique_ptr<Drafter> drafter) {
  impl_->drafts->add(std::move(drafter));
}
std::vector<std::string> Engine::draft_methods() const { return impl_->drafts->methods(); }

const Tokenizer& Engine::tokenizer() const noexcept { return *impl_->tokenizer; }
const Config& Engine::config() const noexcept { return impl_->config; }
EngineStats Engine::stats() const { return impl_->queue.stats(); }
int Engine::max_context() const noexcept { return impl_->max_context; }
void Engine::record_trees(bool on) { impl_->record_trees = on; }

TreeSnapshot Engine::last_tree(RequestId id) const {
  if (const Sequence* sequence = impl_->scheduler->find(id)) return sequence->snapshot;
  const auto it = impl_->finished_trees.find(id);
  return it == impl_->finished_trees.end() ? TreeSnapshot{} : it->second;
}

void Engine::clear_prefix_cache() { impl_->cache->clear_prefix_index(); }

}  // namespace specdec
