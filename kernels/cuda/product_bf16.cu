#include "kernels/cuda/product.cuh"

namespace specdec::kernels::cuda {

template cudaError_t launch_product<DataType::bf16>(const ProductArgs&, int, int, int, std::size_t,
                                                    const Launch&);

}  // namespace specdec::kernels::cuda
