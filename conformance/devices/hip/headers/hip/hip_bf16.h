// bfloat16 of the HIP API, as vLLM's kernels use it: written for this suite. The upper half of a
// float, rounded to nearest even; a NaN stays a NaN and becomes quiet. Arithmetic is float's,
// rounded once. Held to torch's conversions by tests/devices/hip.
// https://rocm.docs.amd.com/projects/HIP/en/latest/reference/low_fp_types.html
#pragma once

#include <hip/hip_fp16.h>

namespace rocm_conformance {

ROCM_CONFORMANCE_INLINE unsigned short bfloat16_bits(float value) {
  const unsigned bits = __builtin_bit_cast(unsigned, value);
  if (value != value) {
    return static_cast<unsigned short>((bits >> 16) | 0x0040);
  }
  const unsigned last = (bits >> 16) & 1;  // the last bit that is kept: a tie goes to even
  return static_cast<unsigned short>((bits + 0x7fff + last) >> 16);
}

ROCM_CONFORMANCE_INLINE float bfloat16_value(unsigned short bits) {
  return __builtin_bit_cast(float, static_cast<unsigned>(bits) << 16);
}

}  // namespace rocm_conformance

struct __hip_bfloat16_raw {
  unsigned short x;
};

struct __hip_bfloat16 {
  unsigned short data;

  __hip_bfloat16() = default;
  __host__ __device__ __hip_bfloat16(float value)
      : data(rocm_conformance::bfloat16_bits(value)) {}
  __host__ __device__ __hip_bfloat16(__hip_bfloat16_raw raw) : data(raw.x) {}
  __host__ __device__ operator float() const { return rocm_conformance::bfloat16_value(data); }
  __host__ __device__ operator __hip_bfloat16_raw() const { return {data}; }
};

struct __hip_bfloat162 {
  __hip_bfloat16 x, y;
};

typedef __hip_bfloat16 hip_bfloat16;

ROCM_CONFORMANCE_INLINE __hip_bfloat16 __ushort_as_bfloat16(unsigned short bits) {
  return __hip_bfloat16(__hip_bfloat16_raw{bits});
}
ROCM_CONFORMANCE_INLINE unsigned short __bfloat16_as_ushort(__hip_bfloat16 value) {
  return value.data;
}
ROCM_CONFORMANCE_INLINE __hip_bfloat16 __float2bfloat16(float value) {
  return __hip_bfloat16(value);
}
ROCM_CONFORMANCE_INLINE float __bfloat162float(__hip_bfloat16 value) { return value; }
ROCM_CONFORMANCE_INLINE __hip_bfloat162 __float22bfloat162_rn(float2 values) {
  return {__hip_bfloat16(values.x), __hip_bfloat16(values.y)};
}
ROCM_CONFORMANCE_INLINE float2 __bfloat1622float2(__hip_bfloat162 pair) {
  return make_float2(pair.x, pair.y);
}
ROCM_CONFORMANCE_INLINE __hip_bfloat162 __bfloat162bfloat162(__hip_bfloat16 value) {
  return {value, value};
}

ROCM_CONFORMANCE_INLINE __hip_bfloat16 __hadd(__hip_bfloat16 a, __hip_bfloat16 b) {
  return static_cast<float>(a) + static_cast<float>(b);
}
ROCM_CONFORMANCE_INLINE __hip_bfloat16 __hmul(__hip_bfloat16 a, __hip_bfloat16 b) {
  return static_cast<float>(a) * static_cast<float>(b);
}
ROCM_CONFORMANCE_INLINE __hip_bfloat16 __hfma(__hip_bfloat16 a, __hip_bfloat16 b,
                                              __hip_bfloat16 c) {
  return __builtin_fmaf(a, b, c);
}
ROCM_CONFORMANCE_INLINE __hip_bfloat162 __hadd2(__hip_bfloat162 a, __hip_bfloat162 b) {
  return {__hadd(a.x, b.x), __hadd(a.y, b.y)};
}
ROCM_CONFORMANCE_INLINE __hip_bfloat162 __hmul2(__hip_bfloat162 a, __hip_bfloat162 b) {
  return {__hmul(a.x, b.x), __hmul(a.y, b.y)};
}
ROCM_CONFORMANCE_INLINE __hip_bfloat162 __hfma2(__hip_bfloat162 a, __hip_bfloat162 b,
                                                __hip_bfloat162 c) {
  return {__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)};
}
