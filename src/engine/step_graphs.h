#pragma once

#include "engine/backend/backend.h"
#include "engine/draft_stage.h"
#include "engine/model/transformer.h"
#include "specdec/config.h"

namespace specdec {

#ifdef SPECDEC_HAS_CUDA
/// Lets passes of the target, and of a draft model that the host drives, run as graphs where the
/// backend is a GPU and the configuration does not forbid it; the usual ones are captured at once.
/// When the models are there, before anything is timed. Throws Error(out_of_memory, device).
void add_step_graphs(const Config& config, Backend& backend, Transformer& target,
                     DraftStage& drafts, int max_context);
#endif

}  // namespace specdec
