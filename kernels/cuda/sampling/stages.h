#pragma once

#include "kernels/cuda/launch.h"
#include "kernels/cuda/sampling/accept.h"
#include "kernels/cuda/sampling/params.h"

/// The kernels behind sample_and_accept(), in the order in which they run.
namespace specdec::kernels::cuda {

/// Edits, chunk maxima and the best of every row.
cudaError_t launch_scan(const SampleRowsParams& params, const SamplingNeeds& needs,
                        const Launch& to);
/// Masses of nucleus rows by the first digit of their key.
cudaError_t launch_digits(const SampleRowsParams& params, const Launch& to);
/// The survivors of top-k, top-p and min-p, and the token where one block can hold them.
cudaError_t launch_select(const SampleRowsParams& params, const Launch& to);
/// The k best score + noise by slice, of rows with more survivors.
cudaError_t launch_dense(const SampleRowsParams& params, int k, const Launch& to);
/// The tokens that no kernel before has settled (of dense rows; of all rows in a greedy batch), and
/// the walk.
cudaError_t launch_walk(const SampleRowsParams& params, const SamplingNeeds& needs,
                        const AcceptedPaths& paths, const Launch& to);

}  // namespace specdec::kernels::cuda
