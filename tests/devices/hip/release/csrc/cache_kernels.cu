// A release in miniature: one operator whose host code chooses among kernels as vLLM's does.
#include <torch/all.h>
#include <ATen/cuda/CUDAContext.h>

#include "dispatch.h"

struct Shape {
  int rows, columns;
  float factor;
};

// out = in * factor + bias, columns reversed through LDS; a workgroup of x by y lanes takes a row.
template <typename T, int PAD>
__global__ void reversed_kernel(T* out, const T* in, Shape shape, const float* bias) {
  extern __shared__ float held[];
  const int column = threadIdx.y * blockDim.x + threadIdx.x;
  const int at = (blockIdx.y * gridDim.x + blockIdx.x) * shape.columns;
  if (column < shape.columns) {
    held[column + PAD] = static_cast<float>(in[at + column]);
  }
  __syncthreads();
  if (column < shape.columns) {
    const float value = held[shape.columns - 1 - column + PAD] * shape.factor;
    out[at + column] = static_cast<T>(value + (bias == nullptr ? 0.0f : bias[column]));
  }
}

// Not a kernel of the operator: another host function, with the same one.
void other(torch::Tensor& out) {
  reversed_kernel<double, 7><<<1, 64>>>(out.data_ptr<double>(), nullptr, Shape{}, nullptr);
}

void reshape_and_cache(torch::Tensor& out, torch::Tensor& in, const std::string& kind,
                       double factor, int64_t across,
                       const std::optional<torch::Tensor>& bias) {
  TORCH_CHECK(in.is_contiguous(), "rows must follow one another, strides are ", in.stride(0))
  const int columns = in.size(-1), rows = in.numel() / columns;
  const float* bias_ptr = bias ? bias.value().data_ptr<float>() : nullptr;
  const Shape shape{rows, columns, static_cast<float>(factor)};
  const dim3 grid(across, rows / across), block(columns / 3, 3);
  if (kind == "padded") {
    DISPATCH(in.scalar_type(), [&] {
      reversed_kernel<kernel_t, 4><<<grid, block, (columns + 4) * sizeof(float)>>>(
          out.data_ptr<kernel_t>(), in.data_ptr<kernel_t>(), shape, bias_ptr);
    });
  } else {
    DISPATCH(in.scalar_type(), [&] {
      reversed_kernel<kernel_t, 0><<<grid, block, columns * sizeof(float)>>>(
          out.data_ptr<kernel_t>(), in.data_ptr<kernel_t>(), shape, bias_ptr);
    });
  }
}
