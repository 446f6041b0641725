#include "kernels/cuda/product.cuh"

namespace specdec::kernels::cuda {

/// One kernel for few tokens and many: these are there for range and accuracy, not for speed.
template cudaError_t launch_product<DataType::f32>(const ProductArgs&, int, int, int, std::size_t,
                                                   const Launch&);
template cudaError_t launch_product<DataType::f32, FloatWeights<SplitFloat>>(const ProductArgs&,
                                                                             int, int, int,
                                                                             std::size_t,
                                                                             const Launch&);

}  // namespace specdec::kernels::cuda
