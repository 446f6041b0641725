#pragma once

/// Symbols are hidden by default; SPECDEC_API marks what an embedder may call.
#if defined(_WIN32)
#define SPECDEC_API
#else
#define SPECDEC_API __attribute__((visibility("default")))
#endif
