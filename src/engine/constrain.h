#pragma once

#include "engine/sequence.h"

namespace specdec {

/// Follows the request's grammar along the draft tree: drops every node that it forbids, with what
/// hangs below, and sets sequence.node_grammar for the nodes that stay. Such nodes have target
/// probability 0, so no acceptance rule would take them (draft rows are masked, so a *drawn* child
/// is never among them). Throws what GrammarMatcher throws.
void prune_by_grammar(Sequence& sequence);

}  // namespace specdec
