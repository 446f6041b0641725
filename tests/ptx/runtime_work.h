// What a stream is asked to do and a graph is made of.
#pragma once

#include <cuda_runtime_api.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <variant>
#include <vector>

#include "tests/ptx/machine.h"

namespace specdec::ptx {

struct KernelLaunch {
  CUkern_st* function = nullptr;
  LaunchShape shape;
  std::vector<std::byte> params;
};

/// A copy. Where a side is memory of ours, that it still is so is checked when the copy runs.
struct Copy {
  void* to = nullptr;
  const void* from = nullptr;
  std::size_t bytes = 0;
  bool to_ours = false, from_ours = false;
  std::vector<std::byte> held;  // of late copies from pageable memory: what it was at the call
  bool is_held = false;
};

struct Fill {
  void* to = nullptr;
  int value = 0;
  std::size_t bytes = 0;
};

struct EventState {
  bool recorded = false;
  std::chrono::steady_clock::time_point time;
  cudaStream_t pending = nullptr;  // where its last record has not run yet
  std::size_t records = 0;         // of which late ones count only the last
};
struct Stamp {
  std::shared_ptr<EventState> event;
  std::size_t record = 0;
};

struct Graph;

/// A WHILE, IF or SWITCH node.
struct Conditional {
  std::uint64_t handle = 0;
  cudaGraphConditionalNodeType type = cudaGraphCondTypeIf;
  std::vector<std::shared_ptr<Graph>> bodies;
};

struct GraphRun {
  std::shared_ptr<const Graph> graph;
};

using Work = std::variant<KernelLaunch, Copy, Fill, Stamp, Conditional, GraphRun>;

/// A condition's value, which kernels set.
struct Condition {
  unsigned value = 0, at_launch = 0;
  bool assigned_at_launch = false, has_node = false;
};

/// Work in the order in which it was added, which keeps every dependency: nodes depend on earlier
/// ones only.
struct Graph {
  std::vector<Work> nodes;
  std::shared_ptr<std::map<std::uint64_t, Condition>> conditions;  // shared with bodies
};

}  // namespace specdec::ptx

struct CUgraphNode_st {
  std::vector<std::unique_ptr<struct CUgraph_st>> bodies;
  std::vector<struct CUgraph_st*> body_handles;  // what cudaConditionalNodeParams::phGraph_out is
};
struct CUgraph_st {
  std::shared_ptr<specdec::ptx::Graph> graph;
  std::vector<std::unique_ptr<CUgraphNode_st>> nodes;
};
struct CUgraphExec_st {
  std::shared_ptr<const specdec::ptx::Graph> graph;
};
