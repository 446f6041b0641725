#include "kernels/cuda/product.cuh"

namespace specdec::kernels::cuda {

/// Multiplies in TF32. One kernel for few tokens and many: it is there for its range, not for
/// speed.
template cudaError_t launch_product<DataType::f32>(const ProductArgs&, int, int, int, std::size_t,
                                                   const Launch&);

}  // namespace specdec::kernels::cuda
