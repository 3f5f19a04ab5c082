// torch's stable C++ API, in which vLLM writes its host code from 0.20 on, as far as that of
// attention kernels asks for it.
#pragma once

#include <torch/all.h>

namespace torch::stable {
using at::Tensor;
using c10::Device;
inline Tensor flatten(const Tensor& tensor, int64_t first, int64_t last) {
  return tensor.flatten(first, last);
}
namespace accelerator {
struct DeviceGuard {
  explicit DeviceGuard(int) {}
};
}  // namespace accelerator
}  // namespace torch::stable

namespace torch::headeronly {
using c10::BFloat16;
using c10::Float8_e4m3fn;
using c10::Float8_e4m3fnuz;
using c10::Half;
using c10::ScalarType;
}  // namespace torch::headeronly

inline int aoti_torch_get_current_cuda_stream(int, void** stream) {
  *stream = nullptr;
  return 0;
}

#define STD_TORCH_CHECK ROCM_CONFORMANCE_CHECK
#define TORCH_ERROR_CODE_CHECK(call) ROCM_CONFORMANCE_CHECK((call) == 0, #call " failed")
#define THO_DISPATCH_SWITCH ROCM_CONFORMANCE_SWITCH
#define THO_DISPATCH_CASE(TYPE, ...) ROCM_CONFORMANCE_CASE(TYPE, scalar_t, __VA_ARGS__)
#define THO_PRIVATE_CASE_TYPE_USING_HINT ROCM_CONFORMANCE_CASE
#define THO_PRIVATE_CASE_TYPE_USING_HINT_TMPL(PRELUDE, TYPE, ALIAS, ...) \
  ROCM_CONFORMANCE_CASE(TYPE, ALIAS, __VA_ARGS__)
