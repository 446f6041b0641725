// What work does when it runs.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include <cxxabi.h>

#include "tests/ptx/runtime.h"

namespace specdec::ptx {
namespace {

using Conditions = std::map<std::uint64_t, Condition>;

[[noreturn]] void fail_address(const char* what) {
  throw Fault(Fault::Kind::kIllegalAddress, std::string(what) + " reaches memory that was freed");
}

cudaError_t code_of(Fault::Kind kind) {
  switch (kind) {
    case Fault::Kind::kIllegalAddress:
      return cudaErrorIllegalAddress;
    case Fault::Kind::kMisalignedAddress:
      return cudaErrorMisalignedAddress;
    case Fault::Kind::kTrap:
    case Fault::Kind::kDeadlock:
    case Fault::Kind::kUndefined:
      break;
  }
  return cudaErrorLaunchFailure;
}

/// SPECDEC_PTX_PROFILE: each kernel's launches and time, printed when the process ends.
class Profile {
 public:
  static Profile* get() {
    static Profile* const profile = std::getenv("SPECDEC_PTX_PROFILE") ? new Profile : nullptr;
    return profile;
  }
  void add(const std::string& kernel, double seconds) {
    if (of_kernel_.empty()) std::atexit([] { get()->print(); });
    auto& [launches, time] = of_kernel_[kernel];
    ++launches;
    time += seconds;
  }

 private:
  void print() const {
    std::vector<std::pair<double, std::string>> lines;
    for (const auto& [kernel, sums] : of_kernel_) {
      char* const plain = abi::__cxa_demangle(kernel.c_str(), nullptr, nullptr, nullptr);
      lines.emplace_back(sums.second, std::to_string(sums.first) + "  " +
                                          (plain != nullptr ? plain : kernel.c_str()));
      std::free(plain);
    }
    std::sort(lines.rbegin(), lines.rend());
    std::fprintf(stderr, "PTX machine: seconds, launches, kernel\n");
    for (const auto& [seconds, line] : lines)
      std::fprintf(stderr, "%10.3f  %s\n", seconds, line.c_str());
  }

  std::map<std::string, std::pair<std::uint64_t, double>> of_kernel_;
};

/// Runs one piece of work; `conditions` are those of the graph around it, null outside of graphs.
class Execution {
 public:
  Execution(Runtime& runtime, Conditions* conditions)
      : runtime_(runtime), conditions_(conditions) {}

  void operator()(const KernelLaunch& launch) {
    const SetConditional set = [this](std::uint64_t handle, unsigned value) {
      condition(handle).value = value;
    };
    const auto begin = std::chrono::steady_clock::now();
    run(*launch.function->binary->module, *launch.function->kernel, launch.shape, launch.params,
        runtime_.memory, conditions_ != nullptr ? set : SetConditional());
    if (Profile* const profile = Profile::get()) {
      const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begin;
      profile->add(launch.function->name, taken.count());
    }
  }

  void operator()(const Copy& copy) {
    if ((copy.to_ours && !runtime_.memory.contains(copy.to, copy.bytes)) ||
        (copy.from_ours && !runtime_.memory.contains(copy.from, copy.bytes)))
      fail_address("a copy");
    std::memmove(copy.to, copy.is_held ? copy.held.data() : copy.from, copy.bytes);
    if (copy.to_ours) runtime_.memory.mark_written(copy.to, copy.bytes);
  }

  void operator()(const Fill& fill) {
    if (!runtime_.memory.contains(fill.to, fill.bytes)) fail_address("a fill");
    runtime_.memory.fill(fill.to, fill.value, fill.bytes);
    runtime_.memory.mark_written(fill.to, fill.bytes);
  }

  void operator()(const Stamp& stamp) {
    stamp.event->time = std::chrono::steady_clock::now();
    if (stamp.record == stamp.event->records) stamp.event->pending = nullptr;
  }

  void operator()(const GraphRun& graph) {
    Conditions& conditions = *graph.graph->conditions;
    for (auto& [handle, each] : conditions)
      if (each.assigned_at_launch) each.value = each.at_launch;
    Execution(runtime_, &conditions).run_all(*graph.graph);
  }

  void operator()(const Conditional& node) {
    const Condition& when = condition(node.handle);
    if (node.type == cudaGraphCondTypeWhile) {
      for (std::uint64_t turn = 0; when.value != 0; ++turn) {
        if (turn == kMostTurns)
          throw Fault(Fault::Kind::kDeadlock,
                      "a WHILE node that goes on after " + std::to_string(kMostTurns) + " turns");
        run_all(*node.bodies[0]);
      }
      return;
    }
    // IF: the first body if the value is not 0, else the second where there is one.
    const std::size_t body = when.value != 0 ? 0 : 1;
    if (body < node.bodies.size()) run_all(*node.bodies[body]);
  }

 private:
  void run_all(const Graph& graph) {
    for (const Work& work : graph.nodes) std::visit(*this, work);
  }

  Condition& condition(std::uint64_t handle) {
    const auto found = conditions_->find(handle);
    if (found == conditions_->end())
      throw Fault(Fault::Kind::kUndefined, "a kernel set a condition that is none of its graph's");
    return found->second;
  }

  Runtime& runtime_;
  Conditions* conditions_;
};

}  // namespace

void Runtime::execute(const Work& work) {
  try {
    std::visit(Execution(*this, nullptr), work);
  } catch (const Fault& fault) {
    complain(fault.what());
    lost = code_of(fault.kind);
  }
}

}  // namespace specdec::ptx
