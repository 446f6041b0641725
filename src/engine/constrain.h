#pragma once

#include "engine/sequence.h"
#include "specdec/tokenizer.h"

namespace specdec {

/// Follows the request's grammar along the draft tree: drops every node that it forbids, with what
/// hangs below, and sets sequence.node_grammar for the nodes that stay. Such nodes have target
/// probability 0, so no acceptance rule would take them (draft rows are masked, so a *drawn* child
/// is never among them). Throws what GrammarMatcher throws.
void prune_by_grammar(Sequence& sequence);

/// Goes on from each leaf of a tree that prune_by_grammar() has seen with the text that must follow
/// it, as far as the step's nodes and depth go, the likeliest leaves first. A draft that was drawn
/// at random takes no strangers. Throws what GrammarMatcher throws; the tree is then valid.
void extend_by_grammar(Sequence& sequence, const Tokenizer& tokenizer);

/// Sets sequence.forced to the tokens of the text that must come next, tokenised as the model
/// would, up to what the step may draft; empty where that is not worth a draft of its own. They are
/// drafts like others: the model may spell the text with other tokens.
void draft_forced_text(Sequence& sequence, const Tokenizer& tokenizer);

}  // namespace specdec
