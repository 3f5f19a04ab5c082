// torch's C++ API, as far as host code of attention kernels asks for it.
#pragma once

#include <rocm_conformance/tensor.h>

namespace c10::cuda {
struct OptionalCUDAGuard {
  template <class T> explicit OptionalCUDAGuard(T&&) {}
};
using CUDAGuard = OptionalCUDAGuard;
}  // namespace c10::cuda

namespace at::cuda {
using c10::cuda::OptionalCUDAGuard;
struct CUDAStream {
  operator hipStream_t() const { return nullptr; }
  hipStream_t stream() const { return nullptr; }
};
inline CUDAStream getCurrentCUDAStream(int = 0) { return {}; }
inline hipDeviceProp_t* getCurrentDeviceProperties() {
  static hipDeviceProp_t properties;
  (void)hipGetDeviceProperties(&properties, 0);
  return &properties;
}
}  // namespace at::cuda

#define TORCH_CHECK ROCM_CONFORMANCE_CHECK
#define TORCH_CHECK_NOT_IMPLEMENTED ROCM_CONFORMANCE_CHECK
#define TORCH_INTERNAL_ASSERT ROCM_CONFORMANCE_CHECK
#define AT_ERROR(...) ::rocm_conformance::fail(__VA_ARGS__)
#define AT_CUDA_CHECK(call) ((void)(call))
#define C10_CUDA_CHECK(call) ((void)(call))
#define C10_CUDA_KERNEL_LAUNCH_CHECK() ((void)0)
#define AT_DISPATCH_SWITCH ROCM_CONFORMANCE_SWITCH
#define AT_DISPATCH_CASE(TYPE, ...) ROCM_CONFORMANCE_CASE(TYPE, scalar_t, __VA_ARGS__)
#define AT_PRIVATE_CASE_TYPE_USING_HINT ROCM_CONFORMANCE_CASE
