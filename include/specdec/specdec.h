#pragma once

// Everything an embedder needs: Config, Engine, Request, Output.
#include "specdec/config.h"
#include "specdec/drafter.h"
#include "specdec/engine.h"
#include "specdec/error.h"
#include "specdec/grammar.h"
#include "specdec/request.h"
#include "specdec/sampling_options.h"
#include "specdec/stats.h"
#include "specdec/tokenizer.h"
#include "specdec/types.h"
#include "specdec/version.h"
