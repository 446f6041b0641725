#pragma once

#include <functional>
#include <string>

namespace specdec::grammar_tool {

/// How a piece of work in a process of its own ended.
struct IsolatedRun {
  enum class End { finished, timed_out, crashed };
  End end = End::finished;
  std::string output;  ///< what the work returned, if it finished
};

/// Runs `work` in a child process, so that a crash or an endless loop is a result and not the end
/// of the program. `work` calls the function that it is given where a new step begins; a step may
/// take `step_limit_s` seconds of processor time.
IsolatedRun run_isolated(const std::function<std::string(const std::function<void()>&)>& work,
                         double step_limit_s);

}  // namespace specdec::grammar_tool
