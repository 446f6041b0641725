// A drafter of one's own: it knows a text, and when the output's last tokens occur there, it
// proposes what follows in the text. Good for answers that quote: templates, licences, code bases.
//
//   custom_drafter specdec.toml PHRASES.txt "Repeat the text: ..."

#include <specdec/specdec.h>

#include <algorithm>
#include <exception>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace {

class CorpusDrafter final : public specdec::Drafter {
 public:
  explicit CorpusDrafter(std::vector<specdec::TokenId> corpus) : corpus_(std::move(corpus)) {}

  std::string_view name() const noexcept override { return "corpus"; }

  void propose(std::span<const specdec::DraftContext> contexts,
               std::span<specdec::DraftProposal> proposals) override {
    for (std::size_t i = 0; i < contexts.size(); ++i) draft(contexts[i], proposals[i]);
  }

 private:
  static constexpr std::size_t kShortestMatch = 2;
  static constexpr std::size_t kLongestMatch = 6;

  void draft(const specdec::DraftContext& context, specdec::DraftProposal& proposal) const {
    for (std::size_t length = kLongestMatch; length >= kShortestMatch; --length) {
      if (context.tokens.size() < length) continue;
      const auto suffix = context.tokens.last(length);
      auto next = std::search(corpus_.begin(), corpus_.end(), suffix.begin(), suffix.end());
      if (next == corpus_.end()) continue;
      next += static_cast<std::ptrdiff_t>(length);
      for (int depth = 0; depth < context.max_depth && next != corpus_.end(); ++depth, ++next)
        proposal.append(*next);
      return;
    }
  }

  std::vector<specdec::TokenId> corpus_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: custom_drafter CONFIG.toml PHRASES.txt PROMPT\n";
    return 2;
  }
  try {
    std::ifstream file(argv[2], std::ios::binary);
    if (!file) {
      std::cerr << "custom_drafter: cannot read " << argv[2] << '\n';
      return 1;
    }
    const std::string text{std::istreambuf_iterator<char>(file), {}};

    auto engine = specdec::Engine::load(specdec::Config::from_file(argv[1]));
    engine.add_drafter(std::make_unique<CorpusDrafter>(engine.tokenizer().encode(text)));
    specdec::Request request{.messages = {{"user", argv[3]}}};
    request.speculation.method = "corpus";
    request.speculation.num_speculative_tokens = 8;
    engine.submit(std::move(request));

    while (engine.step()) {
      for (const specdec::Output& out : engine.take_outputs()) {
        std::cout << out.text << std::flush;
        if (!out.finished()) continue;
        if (out.error) throw *out.error;
        const specdec::SpeculationStats& drafts = out.stats.speculation;
        std::cout << "\n\n"
                  << out.stats.num_output_tokens << " tokens in " << drafts.num_spec_steps
                  << " steps; of " << drafts.spec_decode_num_draft_tokens << " draft tokens "
                  << drafts.spec_decode_num_accepted_tokens << " were accepted\n";
      }
    }
  } catch (const std::exception& error) {
    std::cerr << "custom_drafter: " << error.what() << '\n';
    return 1;
  }
}
