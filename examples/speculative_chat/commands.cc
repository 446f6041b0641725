#include "examples/speculative_chat/commands.h"

#include <array>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <ostream>

#include "examples/speculative_chat/report.h"
#include "examples/speculative_chat/tree_view.h"

namespace specdec::chat {
namespace {

using cli::Style;

struct Arguments {
  std::string_view all;     // what follows the command's name
  std::string first, rest;  // its first word, and what follows that
};

std::string_view trim(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(" \t");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t") - begin + 1);
}

void spec(const Arguments& arguments, Chat& chat, Screen& screen) {
  if (!arguments.all.empty()) chat.set_speculation(std::string(arguments.all));
  screen.out() << "draft method: " << chat.speculation() << "  (loaded:";
  for (const std::string& method : chat.engine().draft_methods()) screen.out() << ' ' << method;
  screen.out() << ")\n";
}

void set(const Arguments& arguments, Chat& chat, Screen& screen) {
  if (!arguments.all.empty()) {
    if (arguments.rest.empty())
      throw Error(ErrorCode::invalid_argument,
                  "a value is missing: /set " + arguments.first + " VALUE; /set alone shows all");
    chat.set(arguments.first, arguments.rest);
    return;
  }
  for (const auto& [name, value] : chat.settings())
    screen.out() << "  " << name << " = " << value << '\n';
}

void grammar(const Arguments& arguments, Chat& chat, Screen& screen) {
  if (arguments.all.empty())
    throw Error(ErrorCode::invalid_argument,
                "/grammar takes a file (GBNF, or a JSON Schema named .json), json, or off");
  const std::string name(arguments.all);
  if (name == "off") {
    chat.set_grammar(std::nullopt);
    screen.out() << "answers are free text\n";
    return;
  }
  const Grammar chosen = name == "json" ? Grammar::json() : read_grammar(name);
  for (const std::string& note : chosen.unenforced())
    screen.out() << screen.paint()(Style::yellow, "not enforced: " + note) << '\n';
  chat.set_grammar(chosen);
  screen.out() << "answers follow " << (name == "json" ? "JSON" : name) << '\n';
}

void regenerate(const Arguments&, Chat& chat, Screen& screen) {
  const Answer& answer = chat.regenerate(screen.streamer(chat.engine().tokenizer()));
  screen.close(answer, chat);
}

void save(const Arguments& arguments, Chat& chat, Screen& screen) {
  if (arguments.all.empty())
    throw Error(ErrorCode::invalid_argument, "a file name is missing: /save FILE");
  const std::string name(arguments.all);
  std::ofstream file(name, std::ios::binary);
  nlohmann::ordered_json messages = nlohmann::ordered_json::array();
  for (const ChatMessage& message : chat.messages()) {
    messages.push_back({{"role", message.role}, {"content", message.content}});
    if (!name.ends_with(".json"))
      file << "## " << message.role << "\n\n" << message.content << "\n\n";
  }
  if (name.ends_with(".json"))
    file << nlohmann::ordered_json{{"messages", messages}}.dump(
                2, ' ', false, nlohmann::json::error_handler_t::replace)
         << '\n';
  file.close();
  if (!file) throw Error(ErrorCode::io, "cannot write " + name);
  screen.out() << "saved " << messages.size() << " messages to " << name << '\n';
}

void clear(const Arguments&, Chat& chat, Screen& screen) {
  chat.clear();
  screen.out() << "a new conversation\n";
}

const Answer& last_answer(Chat& chat) {
  if (!chat.last_answer())
    throw Error(ErrorCode::invalid_argument, "there is no answer yet: ask something first");
  return *chat.last_answer();
}

void tree(const Arguments& arguments, Chat& chat, Screen& screen) {
  const std::vector<TreeSnapshot>& trees = last_answer(chat).trees;
  std::size_t step = trees.size();
  if (!arguments.all.empty()) {
    char* end = nullptr;
    const long wanted = std::strtol(arguments.first.c_str(), &end, 10);
    if (*end != '\0' || wanted < 1 || wanted > static_cast<long>(trees.size()))
      throw Error(ErrorCode::invalid_argument,
                  "/tree takes the number of a step of the last "
                  "answer, 1 to " +
                      std::to_string(trees.size()));
    step = static_cast<std::size_t>(wanted);
  } else {
    // The last one with a draft: an answer's last steps may have had none.
    while (step > 1 && trees[step - 1].tokens.size() < 2) --step;
  }
  if (step == 0)
    throw Error(ErrorCode::invalid_argument, "the last answer has no step with a tree");
  const TreeSnapshot& shown = trees[step - 1];
  std::size_t accepted = 0;
  for (const int node : shown.accepted_path) accepted += node != 0;
  screen.out() << draw_tree(shown, chat.engine().tokenizer(), screen.paint())
               << screen.paint()(Style::dim,
                                 "step " + std::to_string(step) + " of " +
                                     std::to_string(trees.size()) + ": " +
                                     std::to_string(shown.tokens.size() - 1) + " drafted, " +
                                     std::to_string(accepted) + " accepted (✔)" +
                                     (shown.bonus_token >= 0 ? ", one bonus token (★)" : "") +
                                     "; /tree N shows step N")
               << '\n';
}

void accept(const Arguments& arguments, Chat& chat, Screen& screen) {
  if (arguments.first == "on" || arguments.first == "off") {
    screen.set_marking(arguments.first == "on");
    screen.out() << "answers are " << (arguments.first == "on" ? "" : "not ") << "marked\n";
    return;
  }
  const Answer& answer = last_answer(chat);
  std::size_t drafted = 0;
  for (const OutputToken& token : answer.tokens) drafted += token.drafted;
  const bool colour = screen.paint().colour();
  const std::string marked =
      mark_accepted(answer.tokens, chat.engine().tokenizer(), screen.paint());
  screen.out() << WordWrap().feed(marked, cli::terminal_width()) << '\n'
               << screen.paint()(Style::green,
                                 colour ? "accepted draft tokens" : "[accepted draft tokens]")
               << ": " << drafted << "  " << screen.paint()(Style::yellow, "the target's own")
               << ": " << answer.tokens.size() - drafted
               << "  (/accept on colours while answers come)\n";
}

void compare(const Arguments& arguments, Chat& chat, Screen& screen) {
  screen.out() << screen.paint()(Style::dim,
                                 "running the prompt without, then with speculation; "
                                 "the prefix cache is cold for both")
               << '\n'
               << std::flush;
  const Comparison result = chat.compare(std::string(arguments.all));
  if (result.plain.finish_reason == FinishReason::cancelled ||
      result.speculative.finish_reason == FinishReason::cancelled)
    screen.out() << "stopped\n";
  else
    screen.out() << comparison_table(result, screen.paint());
}

void help(const Arguments&, Chat&, Screen& screen) { screen.out() << command_help(); }

struct Command {
  std::string_view name;
  void (*run)(const Arguments&, Chat&, Screen&);
};

constexpr std::array<Command, 10> kCommands = {{{"/spec", spec},
                                                {"/set", set},
                                                {"/grammar", grammar},
                                                {"/regen", regenerate},
                                                {"/save", save},
                                                {"/clear", clear},
                                                {"/tree", tree},
                                                {"/accept", accept},
                                                {"/compare", compare},
                                                {"/help", help}}};

}  // namespace

std::function<void(const Output&)> Screen::streamer(const Tokenizer& tokenizer) {
  wrap_.reset();
  return [this, &tokenizer](const Output& output) {
    const std::string text =
        marking_ ? mark_accepted(output.tokens, tokenizer, paint_) : cli::printable(output.text);
    out_ << wrap_.feed(text, cli::terminal_width()) << std::flush;
  };
}

void Screen::close(const Answer& answer, Chat& chat) {
  out_ << '\n';
  const std::string note = ending_note(answer, chat.engine(), chat.max_tokens());
  if (!note.empty())
    out_ << paint_(answer.finish_reason == FinishReason::error ? Style::red : Style::yellow, note)
         << '\n';
  wrap_.reset();
  const std::string line =
      wrap_.feed(closing_line(answer, chat.plain_rate()), cli::terminal_width());
  out_ << paint_(Style::dim, line) << "\n\n" << std::flush;
}

bool run_command(std::string_view line, Chat& chat, Screen& screen) {
  line = trim(line);
  const std::size_t space = line.find_first_of(" \t");
  const std::string_view name = line.substr(0, space);
  if (name == "/bye" || name == "/exit" || name == "/quit") return false;
  Arguments arguments;
  if (space != std::string_view::npos) arguments.all = trim(line.substr(space));
  const std::size_t second = arguments.all.find_first_of(" \t");
  arguments.first = std::string(arguments.all.substr(0, second));
  if (second != std::string_view::npos)
    arguments.rest = std::string(trim(arguments.all.substr(second)));
  try {
    for (const Command& command : kCommands) {
      if (command.name != name) continue;
      command.run(arguments, chat, screen);
      return true;
    }
    throw Error(ErrorCode::invalid_argument,
                "no command " + cli::quoted(name) + "; /help lists them");
  } catch (const std::exception& error) {
    screen.out() << screen.paint()(Style::red, error.what()) << '\n';
  }
  return true;
}

std::string_view command_help() noexcept {
  return R"(  /spec [on|off|METHOD]  show or change how drafts are made
  /set [KEY VALUE]       show or change the sampling settings, e.g. /set temperature 0.7
  /grammar FILE|json|off answers follow a grammar: GBNF, a JSON Schema (FILE.json), any JSON
  /regen                 answer the last prompt again
  /compare [PROMPT]      the prompt with and without speculation: times, and are the tokens equal?
  /tree [STEP]           draw a draft tree of the last answer and its accepted path
  /accept [on|off]       show which tokens of the last answer were drafted; on: of every answer
  /save FILE             write the conversation (FILE.json: as JSON)
  /clear                 start a new conversation
  /help                  this list
  /bye                   leave; Ctrl-D does the same
  """                    begins and ends a prompt of several lines
Ctrl-C stops an answer, or drops the line that is being written.
)";
}

}  // namespace specdec::chat
