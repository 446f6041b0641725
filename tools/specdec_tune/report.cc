#include "tools/specdec_tune/report.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

namespace specdec::tune {
namespace {

using cli::Style;

template <class... Values>
std::string format(const char* pattern, Values... values) {
  char text[256];
  std::snprintf(text, sizeof text, pattern, values...);
  return text;
}

/// The measured widths of a curve that say most.
std::string cost_line(const char* what, const std::vector<std::pair<int, double>>& costs) {
  std::string line = what;
  for (const auto& [rows, seconds] : costs)
    if (rows == 1 || rows == 2 || rows == 4 || rows == 8 || rows == 16 || rows == 32)
      line += format("  %d: %.2f", rows, 1e3 * seconds);
  return line + " ms\n";
}

std::string acceptance_text(const Trial& trial, std::size_t most) {
  std::string text;
  for (std::size_t depth = 0; depth < std::min(most, trial.accepted_at_depth.size()); ++depth)
    text += format(depth == 0 ? "%.2f" : " %.2f",
                   static_cast<double>(trial.accepted_at_depth[depth]) /
                       static_cast<double>(std::max<std::int64_t>(1, trial.drafts)));
  return text;
}

std::string padded(std::string text, std::size_t width) {
  if (text.size() < width) text.resize(width, ' ');
  return text;
}

}  // namespace

std::vector<Curve> curves(const SearchResult& result, std::size_t batch) {
  std::vector<Curve> found;
  for (const Trial& trial : result.trials) {
    const Setting& setting = trial.setting;
    if (setting.verify != "coupled") continue;
    const std::string drafter = setting.drafter();
    auto curve = std::ranges::find(found, drafter, &Curve::method);
    if (curve == found.end()) curve = found.insert(found.end(), {.method = drafter});
    const double speedup = trial.batches[batch].speedup();
    if (setting.mode == "adaptive")
      curve->adaptive = std::max(curve->adaptive, speedup);
    else if (setting.topk == 1)
      curve->points.emplace_back(setting.length, speedup);
  }
  for (Curve& curve : found) std::ranges::sort(curve.points);
  return found;
}

std::string table_text(const SearchResult& result, const Context& context, int most_rows,
                       const cli::Painter& paint) {
  std::string text;
  for (std::size_t i = 0; i < result.costs.size(); ++i) {
    if (result.costs[i].verify.empty()) continue;
    text += cost_line("a pass of the target, by rows:      ", result.costs[i].verify);
    if (!result.costs[i].draft.empty()) {
      text += cost_line("a pass of the draft model, by rows: ", result.costs[i].draft);
      if (context.models.size() > 1) text += "  (" + context.models[i] + ")\n";
    }
  }
  std::size_t width = 8;
  const auto rows = std::min(static_cast<std::size_t>(most_rows), result.trials.size());
  for (std::size_t i = 0; i < rows; ++i)
    width = std::max(width, result.trials[i].setting.label().size());
  std::string head = padded("setting", width);
  const std::size_t num_batches = result.trials.empty() ? 0 : result.trials[0].batches.size();
  for (std::size_t at = 0; at < num_batches; ++at)
    head += format(" %7s", ("b=" + std::to_string(result.trials[0].batches[at].batch)).c_str());
  if (num_batches > 1) head += format(" %7s", "mean");
  text += paint(Style::bold, head + " tok/step  prompts  accepted at 1, 2, ...") + "\n";
  for (std::size_t i = 0; i < rows; ++i) {
    const Trial& trial = result.trials[i];
    std::string row = padded(trial.setting.label(), width);
    for (const Trial::AtBatch& at : trial.batches) row += format(" %6.2fx", at.speedup());
    if (num_batches > 1) row += format(" %6.2fx", trial.speedup());
    row += format(" %8.2f %8zu  ", trial.tokens_per_step(), trial.num_prompts) +
           acceptance_text(trial, 6);
    text += (i == 0 && trial.speedup() > 1 ? paint(Style::green, row) : row) + "\n";
  }
  if (rows < result.trials.size())
    text += paint(Style::dim, "and " + std::to_string(result.trials.size() - rows) +
                                  " that were slower; --json and --html have all\n");
  return text;
}

std::string plot_text(const std::vector<Curve>& curves, int width, const cli::Painter& paint) {
  constexpr int kHeight = 12;
  constexpr Style kColours[] = {Style::green, Style::cyan, Style::yellow, Style::red};
  double low = 1;
  double high = 1;
  int longest = 1;
  for (const Curve& curve : curves) {
    for (const auto& [length, speedup] : curve.points) {
      low = std::min(low, speedup);
      high = std::max(high, speedup);
      longest = std::max(longest, length);
    }
    if (curve.adaptive <= 0) continue;
    low = std::min(low, curve.adaptive);
    high = std::max(high, curve.adaptive);
  }
  if (high - low < 0.01) high = low + 0.01;
  const int columns = std::clamp(width - 10, 20, 72);
  const auto row_of = [&](double speedup) {
    return static_cast<int>(std::lround((high - speedup) / (high - low) * (kHeight - 1)));
  };
  // [kHeight][columns], and a letter's curve for its colour.
  std::vector<std::string> canvas(kHeight, std::string(static_cast<std::size_t>(columns), ' '));
  canvas[static_cast<std::size_t>(row_of(1))].assign(static_cast<std::size_t>(columns), '-');
  const auto put = [&](int column, double speedup, char mark) {
    canvas[static_cast<std::size_t>(row_of(speedup))]
          [static_cast<std::size_t>(std::min(column, columns - 1))] = mark;
  };
  for (std::size_t i = curves.size(); i-- > 0;) {  // the best on top
    const char letter = static_cast<char>('a' + i % 26);
    for (const auto& [length, speedup] : curves[i].points)
      put(length * (columns - 6) / (longest + 1), speedup, letter);
    if (curves[i].adaptive > 0)
      put(columns - 3, curves[i].adaptive, static_cast<char>('A' + i % 26));
  }
  std::string text = "speed-up over the draft's length (right: adaptive)\n";
  for (int row = 0; row < kHeight; ++row) {
    text += format("%6.2fx |", high - (high - low) * row / (kHeight - 1));
    for (const char c : canvas[static_cast<std::size_t>(row)]) {
      const bool letter = std::isalpha(static_cast<unsigned char>(c)) != 0;
      const auto index = static_cast<std::size_t>(letter ? std::tolower(c) - 'a' : 0);
      text += letter ? paint(kColours[index % 4], std::string(1, c)) : std::string(1, c);
    }
    text += '\n';
  }
  std::string axis(static_cast<std::size_t>(columns), ' ');
  for (int length = 1; length <= longest; ++length) {
    const std::string label = std::to_string(length);
    const int column = length * (columns - 6) / (longest + 1);
    axis.replace(static_cast<std::size_t>(column), label.size(), label);
  }
  axis.replace(static_cast<std::size_t>(columns - 3), 1, "*");
  text += std::string(9, ' ') + axis + "\n";
  for (std::size_t i = 0; i < curves.size(); ++i)
    text += "  " + paint(kColours[i % 26 % 4], std::string(1, static_cast<char>('a' + i % 26))) +
            " " + curves[i].method + (i % 3 == 2 || i + 1 == curves.size() ? "\n" : "");
  return text;
}

nlohmann::ordered_json to_json(const SearchResult& result, const Context& context) {
  using nlohmann::ordered_json;
  ordered_json trials = ordered_json::array();
  for (const Trial& trial : result.trials) {
    ordered_json batches = ordered_json::array();
    for (const Trial::AtBatch& at : trial.batches)
      batches.push_back({{"batch", at.batch},
                         {"speedup", at.speedup()},
                         {"seconds", at.seconds},
                         {"plain_seconds", at.plain_seconds},
                         {"tokens", at.tokens}});
    const Setting& setting = trial.setting;
    trials.push_back({{"setting", setting.label()},
                      {"method", setting.method},
                      {"draft_model", setting.draft_model},
                      {"exit_layer", setting.exit_layer},
                      {"mode", setting.mode},
                      {"num_speculative_tokens", setting.length},
                      {"topk", setting.topk},
                      {"num_draft_tokens", setting.nodes},
                      {"verify", setting.verify},
                      {"speedup", trial.speedup()},
                      {"batches", batches},
                      {"rounds", trial.rounds},
                      {"num_prompts", trial.num_prompts},
                      {"num_answers", trial.num_answers},
                      {"num_identical", trial.num_identical},
                      {"tokens_per_step", trial.tokens_per_step()},
                      {"num_drafts", trial.drafts},
                      {"accepted_at_depth", trial.accepted_at_depth}});
  }
  ordered_json costs = ordered_json::array();
  for (std::size_t i = 0; i < result.costs.size(); ++i)
    costs.push_back({{"draft_model", i < context.models.size() ? context.models[i] : ""},
                     {"verify", result.costs[i].verify},
                     {"draft", result.costs[i].draft}});
  const Trial* const best = result.best();
  return {{"best", best == nullptr ? "none" : best->setting.label()},
          {"stopped", result.stopped},
          {"ran_out_of_prompts", result.ran_out},
          {"prompts", context.prompts},
          {"max_tokens", context.max_tokens},
          {"temperature", context.temperature},
          {"date", context.date},
          {"costs", costs},
          {"trials", trials}};
}

std::vector<Assignment> assignments(const Trial* best, const SearchResult& result,
                                    const Context& context) {
  const std::string what =
      context.date + ", " +
      (context.temperature > 0 ? format("temperature %g", static_cast<double>(context.temperature))
                               : std::string("greedy")) +
      ", answers of " + std::to_string(context.max_tokens) + " tokens";
  if (best == nullptr)
    return {{"draft.method", "\"none\"", what + ": nothing was faster than plain decoding"}};
  const Setting& setting = best->setting;
  std::string speeds;
  for (const Trial::AtBatch& at : best->batches)
    speeds +=
        (speeds.empty() ? "" : ", ") + format("%.2fx plain at batch %d", at.speedup(), at.batch);
  std::vector<Assignment> list = {
      {"draft.method", toml_string(setting.method),
       what + ", " + std::to_string(best->num_prompts) + " prompts: " + speeds}};
  if (drafts_with_model(setting.method) && !setting.draft_model.empty())
    list.push_back({"draft.model", toml_string(setting.draft_model), ""});
  if (drafts_with_model(setting.method) && setting.exit_layer > 0)
    list.push_back({"draft.early_exit.exit_layer", std::to_string(setting.exit_layer), ""});
  std::string others;  // the best of each other mode and method, to compare with
  for (const Trial& trial : result.trials)
    if (trial.rounds == best->rounds && &trial != best)
      others +=
          (others.empty() ? "" : "; ") + trial.setting.label() + format(" %.2fx", trial.speedup());
  list.push_back({"draft.length.mode", toml_string(setting.mode),
                  others.empty() ? "" : "the runners-up: " + others});
  list.push_back({"draft.length.num_speculative_tokens", std::to_string(setting.length),
                  format("%.2f tokens a step; drafts accepted down to depth 1, 2, ...: ",
                         best->tokens_per_step()) +
                      acceptance_text(*best, 8)});
  list.push_back({"draft.tree.topk", std::to_string(setting.topk), ""});
  if (setting.topk > 1)
    list.push_back({"draft.tree.num_draft_tokens", std::to_string(setting.nodes), ""});
  list.push_back({"verify.method", toml_string(setting.verify), ""});
  return list;
}

}  // namespace specdec::tune
