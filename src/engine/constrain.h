#pragma once

#include "engine/sequence.h"
#include "specdec/tokenizer.h"

namespace specdec {

/// Follows the request's grammar along the draft tree: drops every node that it forbids, with what
/// hangs below, and sets sequence.node_grammar for the nodes that stay. Such nodes have target
/// probability 0, so no acceptance rule would take them (draft rows are masked, so a *drawn* child
/// is never among them). Throws what GrammarMatcher throws.
void prune_by_grammar(Sequence& sequence);

/// Sets sequence.forced to the tokens of the text that must come next, tokenised as the model
/// would, up to what the step may draft; empty where that is not worth a draft of its own. They are
/// drafts like others: the model may spell the text with other tokens.
void draft_forced_text(Sequence& sequence, const Tokenizer& tokenizer);

}  // namespace specdec
