// Graphs: conditional nodes by hand, everything else by capture.
#include "tests/ptx/runtime.h"

namespace specdec::ptx {
namespace {

std::shared_ptr<Graph> copy_of(const Graph& graph,
                               std::shared_ptr<std::map<std::uint64_t, Condition>> conditions) {
  auto made = std::make_shared<Graph>();
  made->nodes = graph.nodes;
  made->conditions = std::move(conditions);
  for (Work& work : made->nodes)
    if (auto* const node = std::get_if<Conditional>(&work))
      for (std::shared_ptr<Graph>& body : node->bodies) body = copy_of(*body, made->conditions);
  return made;
}

/// `wanted`, if it is `in` or the body of a node in it; null: it is not.
CUgraph_st* find_graph(CUgraph_st& in, const CUgraph_st* wanted) {
  if (&in == wanted) return &in;
  for (const auto& node : in.nodes)
    for (const auto& body : node->bodies)
      if (CUgraph_st* const found = find_graph(*body, wanted)) return found;
  return nullptr;
}

cudaError_t add_conditional(CUgraph_st& to, cudaConditionalNodeParams& params,
                            cudaGraphNode_t* node) {
  const auto condition = to.graph->conditions->find(params.handle);
  if (condition == to.graph->conditions->end() || condition->second.has_node)
    return cudaErrorInvalidValue;
  const bool is_while = params.type == cudaGraphCondTypeWhile;
  if (!is_while && params.type != cudaGraphCondTypeIf) return cudaErrorNotSupported;
  if (params.size < 1 || params.size > (is_while ? 1u : 2u)) return cudaErrorInvalidValue;
  condition->second.has_node = true;
  Conditional work{params.handle, params.type, {}};
  auto made = std::make_unique<CUgraphNode_st>();
  for (unsigned i = 0; i < params.size; ++i) {
    auto body = std::make_unique<CUgraph_st>();
    body->graph = std::make_shared<Graph>();
    body->graph->conditions = to.graph->conditions;
    work.bodies.push_back(body->graph);
    made->body_handles.push_back(body.get());
    made->bodies.push_back(std::move(body));
  }
  params.phGraph_out = made->body_handles.data();
  *node = made.get();
  to.nodes.push_back(std::move(made));
  to.graph->nodes.emplace_back(std::move(work));
  return cudaSuccess;
}

cudaError_t add_node(cudaGraphNode_t* node, cudaGraph_t graph, const cudaGraphNode_t* dependencies,
                     std::size_t num_dependencies, cudaGraphNodeParams* params) {
  return call([&](Runtime& runtime) {
    CUgraph_st* const to = runtime.find_graph(graph);
    if (node == nullptr || to == nullptr || params == nullptr ||
        (num_dependencies > 0 && dependencies == nullptr))
      return cudaErrorInvalidValue;
    if (params->type != cudaGraphNodeTypeConditional) return cudaErrorNotSupported;
    return add_conditional(*to, params->conditional, node);
  });
}

}  // namespace

std::unique_ptr<CUgraph_st> new_graph() {
  auto made = std::make_unique<CUgraph_st>();
  made->graph = std::make_shared<Graph>();
  made->graph->conditions = std::make_shared<std::map<std::uint64_t, Condition>>();
  return made;
}

CUgraph_st* Runtime::find_graph(const CUgraph_st* wanted) {
  for (const auto& [graph, owned] : graphs)
    if (CUgraph_st* const found = ptx::find_graph(*graph, wanted)) return found;
  return nullptr;
}

}  // namespace specdec::ptx

using namespace specdec::ptx;

extern "C" {

cudaError_t CUDARTAPI cudaGraphCreate(cudaGraph_t* graph, unsigned int flags) {
  return call([&](Runtime& runtime) {
    if (graph == nullptr || flags != 0) return cudaErrorInvalidValue;
    std::unique_ptr<CUgraph_st> made = new_graph();
    *graph = made.get();
    runtime.graphs[made.get()] = std::move(made);
    return cudaSuccess;
  });
}

cudaError_t CUDARTAPI cudaGraphDestroy(cudaGraph_t graph) {
  return call([&](Runtime& runtime) {
    return runtime.graphs.erase(graph) != 0 ? cudaSuccess : cudaErrorInvalidValue;
  });
}

cudaError_t CUDARTAPI cudaGraphConditionalHandleCreate(cudaGraphConditionalHandle* handle,
                                                       cudaGraph_t graph, unsigned int at_launch,
                                                       unsigned int flags) {
  return call([&](Runtime& runtime) {
    CUgraph_st* const in = runtime.find_graph(graph);
    if (handle == nullptr || in == nullptr || (flags & ~unsigned{cudaGraphCondAssignDefault}) != 0)
      return cudaErrorInvalidValue;
    static std::uint64_t last = 0;
    *handle = ++last;
    (*in->graph->conditions)[last] = {.value = at_launch,
                                      .at_launch = at_launch,
                                      .assigned_at_launch = flags == cudaGraphCondAssignDefault};
    return cudaSuccess;
  });
}

#if CUDART_VERSION >= 13000
cudaError_t CUDARTAPI cudaGraphAddNode(cudaGraphNode_t* node, cudaGraph_t graph,
                                       const cudaGraphNode_t* dependencies,
                                       const cudaGraphEdgeData* /*edges*/, size_t num_dependencies,
                                       cudaGraphNodeParams* params) {
  return add_node(node, graph, dependencies, num_dependencies, params);
}
#else
cudaError_t CUDARTAPI cudaGraphAddNode(cudaGraphNode_t* node, cudaGraph_t graph,
                                       const cudaGraphNode_t* dependencies, size_t num_dependencies,
                                       cudaGraphNodeParams* params) {
  return add_node(node, graph, dependencies, num_dependencies, params);
}
#endif

cudaError_t CUDARTAPI cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph,
                                           unsigned long long flags) {
  return call([&](Runtime& runtime) {
    const auto found = runtime.graphs.find(graph);
    if (executable == nullptr || found == runtime.graphs.end()) return cudaErrorInvalidValue;
    if (flags != 0) return cudaErrorNotSupported;
    const Graph& from = *found->second->graph;
    for (const auto& [handle, condition] : *from.conditions)
      if (!condition.has_node) return cudaErrorInvalidValue;
    auto made = std::make_unique<CUgraphExec_st>();
    made->graph =
        copy_of(from, std::make_shared<std::map<std::uint64_t, Condition>>(*from.conditions));
    *executable = made.get();
    runtime.executables[made.get()] = std::move(made);
    return cudaSuccess;
  });
}

cudaError_t CUDARTAPI cudaGraphExecDestroy(cudaGraphExec_t executable) {
  return call([&](Runtime& runtime) {
    return runtime.executables.erase(executable) != 0 ? cudaSuccess : cudaErrorInvalidValue;
  });
}

cudaError_t CUDARTAPI cudaGraphUpload(cudaGraphExec_t executable, cudaStream_t stream) {
  return call([&](Runtime& runtime) {
    if (runtime.executables.count(executable) == 0) return cudaErrorInvalidValue;
    return runtime.is_stream(stream) ? cudaSuccess : cudaErrorInvalidResourceHandle;
  });
}

cudaError_t CUDARTAPI cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  return call([&](Runtime& runtime) {
    if (runtime.executables.count(executable) == 0) return cudaErrorInvalidValue;
    if (!runtime.is_stream(stream)) return cudaErrorInvalidResourceHandle;
    if (stream != nullptr && stream->capture != nullptr) return cudaErrorNotSupported;
    return runtime.enqueue(stream, GraphRun{executable->graph});
  });
}

}  // extern "C"
