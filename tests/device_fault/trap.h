#pragma once

namespace specdec::testing {

/// Starts a kernel that traps, on a stream of its own: from then on every call on this process's
/// GPU fails.
void break_gpu();

}  // namespace specdec::testing
