// The 16-bit floats of the HIP API, as vLLM's kernels use them: written for this suite from the
// API's documentation, because AMD's own header comes with ROCm alone. IEEE binary16, rounded to
// nearest even; a pair's operations are those of its halves. Everything here is held to torch's
// conversions by tests/devices/hip.
// https://rocm.docs.amd.com/projects/HIP/en/latest/reference/low_fp_types.html
#pragma once

#include <hip/hip_runtime.h>

#define ROCM_CONFORMANCE_INLINE static __host__ __device__ inline __attribute__((always_inline))

namespace rocm_conformance {
typedef _Float16 half_pair __attribute__((ext_vector_type(2)));
}

// The bits of a half, which may also be read and written as a number.
struct __half_raw {
  union {
    _Float16 data;
    unsigned short x;
  };
};

struct __half2_raw {
  union {
    rocm_conformance::half_pair data;
    struct {
      __half_raw x, y;
    };
  };
};

struct __half {
  _Float16 data;

  __half() = default;
  __host__ __device__ __half(float value) : data(static_cast<_Float16>(value)) {}
  __host__ __device__ __half(_Float16 value) : data(value) {}
  __host__ __device__ __half(__half_raw raw) : data(raw.data) {}
  __host__ __device__ operator float() const { return data; }
  __host__ __device__ operator __half_raw() const {
    __half_raw raw;
    raw.data = data;
    return raw;
  }
};

struct __half2 {
  rocm_conformance::half_pair data;

  __half2() = default;
  __host__ __device__ __half2(rocm_conformance::half_pair pair) : data(pair) {}
  __host__ __device__ __half2(__half2_raw raw) : data(raw.data) {}
};

typedef __half half;
typedef __half2 half2;

ROCM_CONFORMANCE_INLINE __half __float2half(float value) { return __half(value); }
ROCM_CONFORMANCE_INLINE __half __float2half_rn(float value) { return __half(value); }
ROCM_CONFORMANCE_INLINE float __half2float(__half value) { return value.data; }
ROCM_CONFORMANCE_INLINE __half2 __float22half2_rn(float2 values) {
  return rocm_conformance::half_pair{static_cast<_Float16>(values.x),
                                     static_cast<_Float16>(values.y)};
}
ROCM_CONFORMANCE_INLINE float2 __half22float2(__half2 pair) {
  return make_float2(pair.data[0], pair.data[1]);
}

// The bits of a half, and the half of some bits.
ROCM_CONFORMANCE_INLINE __half __ushort_as_half(unsigned short bits) {
  return __builtin_bit_cast(_Float16, bits);
}
ROCM_CONFORMANCE_INLINE unsigned short __half_as_ushort(__half value) {
  return __builtin_bit_cast(unsigned short, value.data);
}

// One rounding each: the operations are those of binary16, not of its values as floats.
ROCM_CONFORMANCE_INLINE __half __hadd(__half a, __half b) {
  return static_cast<_Float16>(a.data + b.data);
}
ROCM_CONFORMANCE_INLINE __half __hmul(__half a, __half b) {
  return static_cast<_Float16>(a.data * b.data);
}
ROCM_CONFORMANCE_INLINE __half2 __hadd2(__half2 a, __half2 b) { return a.data + b.data; }
ROCM_CONFORMANCE_INLINE __half2 __hmul2(__half2 a, __half2 b) { return a.data * b.data; }
ROCM_CONFORMANCE_INLINE __half2 __hfma2(__half2 a, __half2 b, __half2 c) {
  return __builtin_elementwise_fma(a.data, b.data, c.data);
}
ROCM_CONFORMANCE_INLINE __half2 operator+(__half2 a, __half2 b) { return a.data + b.data; }
