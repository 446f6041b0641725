#include "kernels/cuda/product_wide.cuh"

namespace specdec::kernels::cuda {

template cudaError_t launch_product<DataType::q4_1>(const ProductArgs&, int, int, int, std::size_t,
                                                    const Launch&);
template cudaError_t launch_wide_product<DataType::q4_1>(const ProductArgs&, const Launch&);

}  // namespace specdec::kernels::cuda
