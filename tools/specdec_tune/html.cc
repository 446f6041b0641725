// The report as one page: inline SVG, no script, nothing from a network.

#include <algorithm>
#include <cstdio>
#include <string>

#include "tools/specdec_tune/report.h"

namespace specdec::tune {
namespace {

constexpr const char* kColours[] = {"#2563eb", "#dc2626", "#059669", "#d97706",
                                    "#7c3aed", "#0891b2", "#be185d", "#4d7c0f"};

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '&':
        out += "&amp;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string fixed(double value, int digits) {
  char text[32];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  return text;
}

/// Lines over whole numbers, each in its own colour; both axes begin at 0.
class Plot {
 public:
  Plot(std::string x_label, std::string y_label)
      : x_label_(std::move(x_label)), y_label_(std::move(y_label)) {}

  void add(const std::string& name, std::vector<std::pair<int, double>> points, double level = 0) {
    for (const auto& [x, y] : points) {
      most_x_ = std::max(most_x_, x);
      most_y_ = std::max(most_y_, y);
    }
    most_y_ = std::max(most_y_, level);
    series_.push_back({name, std::move(points), level});
  }
  void mark(double y) { marked_ = y; }

  std::string svg() const {
    std::string out = "<svg viewBox=\"0 0 " + std::to_string(kWidth + 260) + " " +
                      std::to_string(kHeight + 60) + "\" role=\"img\">\n";
    const double step = most_y_ > 4 ? 1 : most_y_ > 1.2 ? 0.25 : 0.2;
    for (double y = 0; y <= most_y_ * 1.05; y += step)
      out += line(kLeft, at_y(y), kLeft + kWidth, at_y(y), "#ddd", "") +
             text(kLeft - 6, at_y(y) + 4, "end", fixed(y, 2));
    if (marked_ > 0) out += line(kLeft, at_y(marked_), kLeft + kWidth, at_y(marked_), "#333", "");
    for (int x = 1; x <= most_x_; ++x)
      out += text(at_x(x), kTop + kHeight + 16, "middle", std::to_string(x));
    out += text(kLeft + kWidth / 2, kTop + kHeight + 34, "middle", x_label_) +
           text(kLeft, kTop - 8, "start", y_label_);
    for (std::size_t i = 0; i < series_.size(); ++i) out += drawn(series_[i], i);
    return out + "</svg>\n";
  }

 private:
  struct Series {
    std::string name;
    std::vector<std::pair<int, double>> points;
    double level;  // a dashed line right across; 0: none
  };
  static constexpr double kLeft = 50;
  static constexpr double kTop = 22;
  static constexpr int kWidth = 480;
  static constexpr int kHeight = 240;

  double at_x(int x) const { return kLeft + kWidth * x / (most_x_ + 0.5); }
  double at_y(double y) const { return kTop + kHeight * (1 - y / (most_y_ * 1.05)); }

  static std::string line(double x1, double y1, double x2, double y2, const char* colour,
                          const char* dashes) {
    return "<line x1=\"" + fixed(x1, 1) + "\" y1=\"" + fixed(y1, 1) + "\" x2=\"" + fixed(x2, 1) +
           "\" y2=\"" + fixed(y2, 1) + "\" stroke=\"" + colour + "\" stroke-dasharray=\"" + dashes +
           "\"/>\n";
  }
  static std::string text(double x, double y, const char* anchor, const std::string& what) {
    return "<text x=\"" + fixed(x, 1) + "\" y=\"" + fixed(y, 1) + "\" text-anchor=\"" + anchor +
           "\">" + escaped(what) + "</text>\n";
  }
  std::string drawn(const Series& series, std::size_t index) const {
    const char* const colour = kColours[index % std::size(kColours)];
    std::string path;
    std::string dots;
    for (const auto& [x, y] : series.points) {
      path += fixed(at_x(x), 1) + "," + fixed(at_y(y), 1) + " ";
      dots += "<circle cx=\"" + fixed(at_x(x), 1) + "\" cy=\"" + fixed(at_y(y), 1) +
              "\" r=\"3\" fill=\"" + colour + "\"><title>" + std::to_string(x) + ": " +
              fixed(y, 3) + "</title></circle>\n";
    }
    std::string out = "<polyline points=\"" + path + "\" fill=\"none\" stroke=\"" + colour +
                      "\" stroke-width=\"2\"/>\n" + dots;
    if (series.level > 0)
      out += line(kLeft, at_y(series.level), kLeft + kWidth, at_y(series.level), colour, "6 4");
    const double y = kTop + 10 + 18 * static_cast<double>(index);
    return out + line(kLeft + kWidth + 14, y, kLeft + kWidth + 36, y, colour, "") +
           text(kLeft + kWidth + 42, y + 4, "start", series.name);
  }

  std::string x_label_;
  std::string y_label_;
  std::vector<Series> series_;
  int most_x_ = 1;
  double most_y_ = 0.1;
  double marked_ = 0;
};

std::string speed_plots(const SearchResult& result) {
  std::string out;
  for (std::size_t at = 0; at < result.trials.front().batches.size(); ++at) {
    Plot plot("longest draft (dashed: the best adaptive one)", "speed-up over plain decoding");
    plot.mark(1);
    for (const Curve& curve : curves(result, at))
      plot.add(curve.method, curve.points, curve.adaptive);
    out += "<h2>Speed-up over length, batch " +
           std::to_string(result.trials.front().batches[at].batch) + "</h2>\n" + plot.svg();
  }
  return out;
}

std::string acceptance_plot(const SearchResult& result) {
  Plot plot("depth", "share of drafts accepted down to it");
  for (std::size_t i = 0; i < std::min<std::size_t>(6, result.trials.size()); ++i) {
    const Trial& trial = result.trials[i];
    std::vector<std::pair<int, double>> points;
    for (std::size_t depth = 0; depth < trial.accepted_at_depth.size(); ++depth)
      points.emplace_back(static_cast<int>(depth) + 1,
                          static_cast<double>(trial.accepted_at_depth[depth]) /
                              static_cast<double>(std::max<std::int64_t>(1, trial.drafts)));
    plot.add(trial.setting.label(), std::move(points));
  }
  return "<h2>Acceptance by depth</h2>\n" + plot.svg();
}

std::string cost_plot(const SearchResult& result, const Context& context) {
  Plot plot("rows of a pass", "milliseconds");
  const auto scaled = [](std::vector<std::pair<int, double>> points) {
    for (auto& [rows, seconds] : points) seconds *= 1e3;
    return points;
  };
  bool any = false;
  for (std::size_t i = 0; i < result.costs.size(); ++i) {
    if (result.costs[i].verify.empty()) continue;
    if (!any) plot.add("target", scaled(result.costs[i].verify));
    any = true;
    if (!result.costs[i].draft.empty()) {
      const std::string& model = context.models[i];
      plot.add(model.substr(model.find_last_of('/') + 1), scaled(result.costs[i].draft));
    }
  }
  return any ? "<h2>Costs</h2>\n" + plot.svg() : "";
}

std::string table(const SearchResult& result) {
  std::string out = "<h2>Settings</h2>\n<table><tr><th>setting</th>";
  for (const Trial::AtBatch& at : result.trials.front().batches)
    out += "<th>batch " + std::to_string(at.batch) + "</th>";
  out += "<th>tokens a step</th><th>prompts</th><th>same tokens as plain</th></tr>\n";
  for (const Trial& trial : result.trials) {
    out += "<tr><td>" + escaped(trial.setting.label()) + "</td>";
    for (const Trial::AtBatch& at : trial.batches)
      out += "<td>" + fixed(at.speedup(), 2) + "x</td>";
    out += "<td>" + fixed(trial.tokens_per_step(), 2) + "</td><td>" +
           std::to_string(trial.num_prompts) + "</td><td>" + std::to_string(trial.num_identical) +
           " of " + std::to_string(trial.num_answers) + "</td></tr>\n";
  }
  return out + "</table>\n";
}

}  // namespace

std::string to_html(const SearchResult& result, const Context& context) {
  std::string out =
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
      "<title>specdec-tune</title>\n<style>\n"
      "body { font: 15px/1.45 system-ui, sans-serif; max-width: 880px; margin: 2em auto; padding: "
      "0 1em; }\n"
      "svg { max-width: 100%; } svg text { font-size: 12px; }\n"
      "table { border-collapse: collapse; } th, td { padding: 2px 10px; text-align: right; }\n"
      "th:first-child, td:first-child { text-align: left; } tr:nth-child(even) { background: "
      "#f3f4f6; }\n</style></head><body>\n";
  const Trial* const best = result.best();
  out += "<h1>How to draft</h1>\n<p>Measured on " + escaped(context.date) + " with " +
         escaped(context.prompts) + ", answers of at most " + std::to_string(context.max_tokens) +
         " tokens, temperature " + fixed(static_cast<double>(context.temperature), 2) +
         (result.stopped ? "; stopped early" : "") + ".</p>\n<p><strong>" +
         (best == nullptr ? std::string("Nothing was faster than plain decoding.")
                          : escaped(best->setting.label()) + ": " + fixed(best->speedup(), 2) +
                                " times as fast as plain decoding.") +
         "</strong></p>\n";
  if (!result.trials.empty())
    out +=
        speed_plots(result) + acceptance_plot(result) + cost_plot(result, context) + table(result);
  return out + "</body></html>\n";
}

}  // namespace specdec::tune
