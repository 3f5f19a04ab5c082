// The 8-bit floats of the HIP API, as vLLM's kernels use them: written for this suite. Four
// encodings: E4M3 and E5M2 as the Open Compute Project has them, and AMD's FNUZ variants (no
// infinities, no negative zero, one NaN, a bias greater by one). Held to torch's conversions by
// tests/devices/hip. https://rocm.docs.amd.com/projects/HIP/en/latest/reference/low_fp_types.html
//
// Only what saturates is here: __HIP_NOSAT and stochastic rounding are not declared, so that a
// kernel that asks for them does not compile. Saturation is of finite numbers: an infinity becomes
// NaN, where the encoding has none, as in AMD's header.
#pragma once

#include <hip/hip_bf16.h>

#include <cassert>  // AMD's header brings it, and vLLM relies on that

// Which encoding a target has instructions for; others, and the host, have both in software.
#if defined(__HIP_DEVICE_COMPILE__) && defined(__gfx942__)
#define HIP_FP8_TYPE_OCP 0
#define HIP_FP8_TYPE_FNUZ 1
#define ROCM_CONFORMANCE_FP8_INSTRUCTION 1
#elif defined(__HIP_DEVICE_COMPILE__) && \
    (defined(__gfx950__) || defined(__gfx1200__) || defined(__gfx1201__))
#define HIP_FP8_TYPE_OCP 1
#define HIP_FP8_TYPE_FNUZ 0
#define ROCM_CONFORMANCE_FP8_INSTRUCTION 1
#else
#define HIP_FP8_TYPE_OCP 1
#define HIP_FP8_TYPE_FNUZ 1
#define ROCM_CONFORMANCE_FP8_INSTRUCTION 0
#endif

enum __hip_fp8_interpretation_t { __HIP_E4M3, __HIP_E5M2, __HIP_E4M3_FNUZ, __HIP_E5M2_FNUZ };
enum __hip_saturation_t { __HIP_SATFINITE = 1 };
typedef unsigned char __hip_fp8_storage_t;
typedef unsigned short __hip_fp8x2_storage_t;

namespace rocm_conformance {

ROCM_CONFORMANCE_INLINE constexpr bool is_fnuz(__hip_fp8_interpretation_t kind) {
  return kind == __HIP_E4M3_FNUZ || kind == __HIP_E5M2_FNUZ;
}
ROCM_CONFORMANCE_INLINE constexpr int mantissa_bits(__hip_fp8_interpretation_t kind) {
  return kind == __HIP_E4M3 || kind == __HIP_E4M3_FNUZ ? 3 : 2;
}
ROCM_CONFORMANCE_INLINE constexpr int exponent_bias(__hip_fp8_interpretation_t kind) {
  return (mantissa_bits(kind) == 3 ? 7 : 15) + (is_fnuz(kind) ? 1 : 0);
}
ROCM_CONFORMANCE_INLINE constexpr float largest(__hip_fp8_interpretation_t kind) {
  return mantissa_bits(kind) == 2 ? 57344.0f : kind == __HIP_E4M3 ? 448.0f : 240.0f;
}

// 2^exponent, where that is a normal float.
ROCM_CONFORMANCE_INLINE float power_of_two(int exponent) {
  return __builtin_bit_cast(float, static_cast<unsigned>(exponent + 127) << 23);
}

// The bits of what is no finite number.
ROCM_CONFORMANCE_INLINE unsigned special_bits(float value, unsigned sign,
                                              __hip_fp8_interpretation_t kind) {
  if (is_fnuz(kind)) {
    return 0x80;
  }
  return sign << 7 | (kind == __HIP_E5M2 && value == value ? 0x7cu : 0x7fu);
}

// A float as an 8-bit one: to nearest even, saturated to the largest finite number.
ROCM_CONFORMANCE_INLINE unsigned encode(float value, __hip_fp8_interpretation_t kind) {
  const unsigned bits = __builtin_bit_cast(unsigned, value), sign = bits >> 31;
  if ((bits & 0x7f800000u) == 0x7f800000u) {
    return special_bits(value, sign, kind);
  }
  const float magnitude = __builtin_fminf(__builtin_fabsf(value), largest(kind));
  const int lowest = 1 - exponent_bias(kind);
  const int exponent =
      static_cast<int>(__builtin_bit_cast(unsigned, magnitude) >> 23) - 127;
  const int scale = exponent < lowest ? lowest : exponent;
  // The number in units of its last place: at least 2^mantissa_bits, unless it is subnormal.
  const float units =
      __builtin_rintf(magnitude * power_of_two(mantissa_bits(kind) - scale));
  const int count = static_cast<int>(units), implicit = 1 << mantissa_bits(kind);
  // A count that rounding made one too large carries into the exponent.
  const int stored = count < implicit
                         ? count
                         : ((scale + exponent_bias(kind)) << mantissa_bits(kind)) + count - implicit;
  return is_fnuz(kind) && stored == 0 ? 0 : sign << 7 | static_cast<unsigned>(stored);
}

// An 8-bit float as a float, exactly.
ROCM_CONFORMANCE_INLINE float decode(unsigned bits, __hip_fp8_interpretation_t kind) {
  const int mantissa = static_cast<int>(bits & ((1u << mantissa_bits(kind)) - 1));
  const int exponent = static_cast<int>((bits & 0x7f) >> mantissa_bits(kind));
  if (is_fnuz(kind) ? bits == 0x80 : kind == __HIP_E4M3 && (bits & 0x7f) == 0x7f) {
    return __builtin_nanf("");
  }
  float magnitude = __builtin_inff();
  if (kind == __HIP_E5M2 && exponent == 31) {
    if (mantissa != 0) {
      return __builtin_nanf("");
    }
  } else {
    const int whole = exponent == 0 ? mantissa : mantissa + (1 << mantissa_bits(kind));
    const int scale = (exponent == 0 ? 1 : exponent) - exponent_bias(kind) - mantissa_bits(kind);
    magnitude = static_cast<float>(whole) * power_of_two(scale);
  }
  // The sign as a bit: clang makes a product and its rounding to 16 bits one instruction, which
  // loses that of a zero.
  return __builtin_bit_cast(float, __builtin_bit_cast(unsigned, magnitude) | (bits & 0x80) << 24);
}

#if ROCM_CONFORMANCE_FP8_INSTRUCTION
// The target's own instruction, of the encoding it has; infinities and NaN are not clamped.
ROCM_CONFORMANCE_INLINE float clamped(float value, __hip_fp8_interpretation_t kind) {
  const bool finite =
      (__builtin_bit_cast(unsigned, value) & 0x7f800000u) != 0x7f800000u;
  return finite ? __builtin_amdgcn_fmed3f(value, largest(kind), -largest(kind)) : value;
}
ROCM_CONFORMANCE_INLINE unsigned encode_pair(float one, float two,
                                             __hip_fp8_interpretation_t kind) {
  one = clamped(one, kind);
  two = clamped(two, kind);
  const int packed = mantissa_bits(kind) == 3
                         ? __builtin_amdgcn_cvt_pk_fp8_f32(one, two, 0, false)
                         : __builtin_amdgcn_cvt_pk_bf8_f32(one, two, 0, false);
  return static_cast<unsigned>(packed) & 0xffff;
}
ROCM_CONFORMANCE_INLINE bool has_instruction(__hip_fp8_interpretation_t kind) {
  return is_fnuz(kind) == (HIP_FP8_TYPE_FNUZ == 1);
}
#endif

ROCM_CONFORMANCE_INLINE __hip_fp8x2_storage_t to_fp8x2(float one, float two,
                                                       __hip_fp8_interpretation_t kind) {
#if ROCM_CONFORMANCE_FP8_INSTRUCTION
  if (has_instruction(kind)) {
    return static_cast<__hip_fp8x2_storage_t>(encode_pair(one, two, kind));
  }
#endif
  return static_cast<__hip_fp8x2_storage_t>(encode(one, kind) | encode(two, kind) << 8);
}

template <__hip_fp8_interpretation_t kind>
struct fp8 {
  __hip_fp8_storage_t __x;

  static constexpr __hip_saturation_t __default_saturation = __HIP_SATFINITE;
  static constexpr __hip_fp8_interpretation_t __default_interpret = kind;
  fp8() = default;
  __host__ __device__ explicit fp8(float value)
      : __x(static_cast<__hip_fp8_storage_t>(to_fp8x2(value, value, kind))) {}
  __host__ __device__ operator float() const { return decode(__x, kind); }
};

template <__hip_fp8_interpretation_t kind>
struct fp8x2 {
  __hip_fp8x2_storage_t __x;

  static constexpr __hip_saturation_t __default_saturation = __HIP_SATFINITE;
  static constexpr __hip_fp8_interpretation_t __default_interpret = kind;
  __host__ __device__ operator float2() const {
    return make_float2(decode(__x & 0xff, kind), decode(__x >> 8, kind));
  }
};

}  // namespace rocm_conformance

struct __hip_fp8_e4m3 : rocm_conformance::fp8<__HIP_E4M3> { using fp8::fp8; };
struct __hip_fp8_e5m2 : rocm_conformance::fp8<__HIP_E5M2> { using fp8::fp8; };
struct __hip_fp8_e4m3_fnuz : rocm_conformance::fp8<__HIP_E4M3_FNUZ> { using fp8::fp8; };
struct __hip_fp8_e5m2_fnuz : rocm_conformance::fp8<__HIP_E5M2_FNUZ> { using fp8::fp8; };
struct __hip_fp8x2_e4m3 : rocm_conformance::fp8x2<__HIP_E4M3> {};
struct __hip_fp8x2_e5m2 : rocm_conformance::fp8x2<__HIP_E5M2> {};
struct __hip_fp8x2_e4m3_fnuz : rocm_conformance::fp8x2<__HIP_E4M3_FNUZ> {};
struct __hip_fp8x2_e5m2_fnuz : rocm_conformance::fp8x2<__HIP_E5M2_FNUZ> {};

ROCM_CONFORMANCE_INLINE __hip_fp8_storage_t __hip_cvt_float_to_fp8(
    float value, __hip_saturation_t, __hip_fp8_interpretation_t kind) {
  return static_cast<__hip_fp8_storage_t>(rocm_conformance::to_fp8x2(value, value, kind));
}
ROCM_CONFORMANCE_INLINE __hip_fp8x2_storage_t __hip_cvt_float2_to_fp8x2(
    float2 values, __hip_saturation_t, __hip_fp8_interpretation_t kind) {
  return rocm_conformance::to_fp8x2(values.x, values.y, kind);
}
ROCM_CONFORMANCE_INLINE __hip_fp8_storage_t __hip_cvt_halfraw_to_fp8(
    __half_raw value, __hip_saturation_t, __hip_fp8_interpretation_t kind) {
  return static_cast<__hip_fp8_storage_t>(
      rocm_conformance::to_fp8x2(value.data, value.data, kind));
}
ROCM_CONFORMANCE_INLINE __hip_fp8x2_storage_t __hip_cvt_halfraw2_to_fp8x2(
    __half2_raw pair, __hip_saturation_t, __hip_fp8_interpretation_t kind) {
  return rocm_conformance::to_fp8x2(pair.data[0], pair.data[1], kind);
}
ROCM_CONFORMANCE_INLINE __half_raw __hip_cvt_fp8_to_halfraw(__hip_fp8_storage_t bits,
                                                            __hip_fp8_interpretation_t kind) {
  __half_raw raw;
  raw.data = static_cast<_Float16>(rocm_conformance::decode(bits, kind));
  return raw;
}
ROCM_CONFORMANCE_INLINE __half2_raw __hip_cvt_fp8x2_to_halfraw2(__hip_fp8x2_storage_t bits,
                                                                __hip_fp8_interpretation_t kind) {
  __half2_raw raw;
  raw.data = rocm_conformance::half_pair{
      static_cast<_Float16>(rocm_conformance::decode(bits & 0xff, kind)),
      static_cast<_Float16>(rocm_conformance::decode(bits >> 8, kind))};
  return raw;
}
