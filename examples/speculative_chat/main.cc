// A chat in the terminal, and the same for scripts.

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <exception>
#include <iostream>
#include <iterator>
#include <optional>
#include <string>
#include <vector>

#include "examples/speculative_chat/chat.h"
#include "examples/speculative_chat/commands.h"
#include "examples/speculative_chat/line_editor.h"
#include "examples/speculative_chat/report.h"
#include "specdec/specdec.h"
#include "tools/cli/config_flags.h"
#include "tools/cli/terminal.h"

namespace {

using specdec::chat::Answer;
using specdec::chat::Chat;
using specdec::chat::LineEditor;
using specdec::chat::Screen;
using specdec::cli::InterruptGuard;
using specdec::cli::Painter;
using specdec::cli::Style;

constexpr const char* kProgram = "speculative_chat";
constexpr int kInterruptedExit = 130;  // 128 + SIGINT, as shells have it

struct Options {
  std::vector<std::string> prompts;
  std::string system_prompt;
  std::string grammar;
  std::string json_schema;
  bool json = false;
  bool print_config = false;
};

specdec::Engine load(const specdec::Config& config, bool show_progress, const Painter& paint) {
  if (!show_progress) return specdec::Engine::load(config);
  std::cerr << paint(Style::dim, "loading " + config.target.model + " ...") << std::flush;
  const auto start = std::chrono::steady_clock::now();
  try {
    specdec::Engine engine = specdec::Engine::load(config);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    char time[32];
    std::snprintf(time, sizeof time, " %.2f s", seconds.count());
    std::cerr << paint(Style::dim, time) << '\n';
    return engine;
  } catch (...) {
    std::cerr << '\n';
    throw;
  }
}

// Every prompt is a turn of one conversation.
int run_script(Chat& chat, const Options& options) {
  const InterruptGuard guard;
  for (const std::string& prompt : options.prompts) {
    const Answer& answer = chat.ask(prompt, [&](const specdec::Output& output) {
      if (!options.json) std::cout << output.text << std::flush;
    });
    if (options.json)
      std::cout << to_json(answer) << std::endl;
    else
      std::cout << std::endl;
    if (specdec::cli::is_terminal(STDERR_FILENO) && !options.json)
      std::cerr << closing_line(answer, chat.plain_rate()) << '\n';
    if (!std::cout) throw specdec::Error(specdec::ErrorCode::io, "cannot write the answer");
    if (answer.error) throw *answer.error;
    if (answer.finish_reason == specdec::FinishReason::cancelled) return kInterruptedExit;
  }
  return 0;
}

// Reads on until a line that ends with """.
bool read_block(LineEditor& editor, std::string& text) {
  std::string line;
  text.erase(0, 3);
  while (!text.ends_with("\"\"\"")) {
    if (editor.read("... ", line) != LineEditor::Result::line) return false;
    text += (text.empty() ? "" : "\n") + line;
  }
  text.resize(text.size() - 3);
  return true;
}

int run_terminal(Chat& chat, const Painter& paint) {
  Screen screen(std::cout, paint);
  LineEditor editor;
  std::cout << paint(Style::bold, "specdec " SPECDEC_VERSION) << " · draft method "
            << chat.speculation() << " · /help lists the commands, /bye leaves\n\n";
  // libedit takes what stands between \1 and \1 for colour, without width.
  const std::string prompt = paint.colour() ? "\1\x1b[1;36m\1>>> \1\x1b[0m\1" : ">>> ";
  std::string line;
  bool interrupted_before = false;
  const InterruptGuard guard;
  while (true) {
    // Ctrl-C pressed between two prompts comes as a signal and takes what was typed ahead with it.
    const LineEditor::Result result =
        InterruptGuard::take() ? LineEditor::Result::interrupted : editor.read(prompt, line);
    if (result == LineEditor::Result::end) {
      std::cout << '\n';
      return 0;
    }
    if (result == LineEditor::Result::interrupted) {
      if (interrupted_before) return 0;
      interrupted_before = true;
      std::cout << paint(Style::dim, "Ctrl-C again, Ctrl-D or /bye leaves") << '\n';
      continue;
    }
    interrupted_before = false;
    if (line.find_first_not_of(" \t") == std::string::npos) continue;
    editor.remember(line);
    if (line.starts_with('/')) {
      if (!run_command(line, chat, screen)) return 0;
      continue;
    }
    if (line.starts_with("\"\"\"") && !read_block(editor, line)) continue;
    try {
      const Answer& answer = chat.ask(line, screen.streamer(chat.engine().tokenizer()));
      screen.close(answer, chat);
    } catch (const specdec::Error& error) {
      std::cout << paint(Style::red, error.what()) << '\n';
      // Most often the conversation has outgrown the context.
      if (error.code() == specdec::ErrorCode::invalid_argument && !chat.empty())
        std::cout << "/clear starts a new conversation\n";
    }
  }
}

int run(Options& options, const specdec::cli::ConfigFlags& flags) {
  const specdec::Config config = flags.load();
  if (options.print_config) {
    std::cout << config.to_toml();
    return 0;
  }
  config.validate();
  const bool interactive = options.prompts.empty() && specdec::cli::is_terminal(STDIN_FILENO) &&
                           specdec::cli::is_terminal(STDOUT_FILENO) && !options.json;
  if (options.prompts.empty() && !interactive) {
    // The whole of standard input is one prompt, so that documents can be piped in.
    std::string text{std::istreambuf_iterator<char>(std::cin), {}};
    while (text.ends_with('\n') || text.ends_with('\r')) text.pop_back();
    if (text.find_first_not_of(" \t\r\n") == std::string::npos) {
      specdec::cli::print_error(kProgram,
                                "no prompt: give --prompt TEXT, or text on standard input");
      return 2;
    }
    options.prompts.push_back(std::move(text));
  }
  const Painter paint(interactive && specdec::cli::wants_colour(STDOUT_FILENO));
  specdec::Engine engine = load(config, interactive, paint);
  Chat chat(engine, config, options.system_prompt);
  if (!options.grammar.empty()) chat.set_grammar(specdec::chat::read_grammar(options.grammar));
  if (!options.json_schema.empty())
    chat.set_grammar(specdec::chat::read_json_schema(options.json_schema));
  if (!interactive) return run_script(chat, options);
  engine.record_trees(true);
  chat.measure_plain_rate();
  return run_terminal(chat, paint);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Chats with a model in the terminal, with speculative decoding.", kProgram);
  app.set_version_flag("--version", SPECDEC_VERSION);
  Options options;
  app.add_option("--prompt", options.prompts,
                 "Answer this and end; repeat it for further turns of the same conversation. "
                 "Without it, standard input that is no terminal is one prompt")
      ->type_name("TEXT")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  app.add_option("--system", options.system_prompt, "The conversation's system turn")
      ->type_name("TEXT");
  auto* grammar = app.add_option("--grammar", options.grammar,
                                 "Answers follow this grammar: GBNF, or a JSON Schema if the "
                                 "file's name ends in .json")
                      ->type_name("FILE");
  app.add_option("--json-schema", options.json_schema,
                 "Answers are JSON that this JSON Schema accepts")
      ->type_name("FILE")
      ->excludes(grammar);
  app.add_flag("--json", options.json,
               "One line of JSON per answer: text, tokens, finish_reason, stats");
  app.add_flag("--print-config", options.print_config,
               "Print every key, its value and where that came from, and end");
  specdec::cli::ConfigFlags flags;
  flags.add_to(app);
  if (const std::optional<int> code = specdec::cli::parse_arguments(app, argc, argv)) return *code;
  try {
    return run(options, flags);
  } catch (const std::exception& error) {
    specdec::cli::print_error(kProgram, error.what());
    return specdec::cli::exit_code(error);
  }
}
