// Every function of the suite's 16- and 8-bit types, over arrays: on the host, and as kernels.
#include <hip/hip_bfloat16.h>
#include <hip/hip_fp8.h>

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned u32;

template <class T, class F> __host__ __device__ T bits(F value) {
  static_assert(sizeof(T) == sizeof(F));
  return __builtin_bit_cast(T, value);
}
__host__ __device__ __half half_of(u32 x) { return bits<__half>(static_cast<u16>(x)); }
__host__ __device__ __half2 pair_of(u32 x) { return bits<__half2>(x); }
__host__ __device__ __hip_bfloat16 bf16_of(u32 x) {
  return __ushort_as_bfloat16(static_cast<u16>(x));
}
__host__ __device__ __hip_bfloat162 bf16_pair_of(u32 x) { return bits<__hip_bfloat162>(x); }
__host__ __device__ __half_raw raw_of(u16 x) { return bits<__half_raw>(x); }
__host__ __device__ float2 twice(float x) { return make_float2(x, -x); }

// name, type of x, type of the result, the result's bits
#define OF_HALF(ONE)                                                                     \
  ONE(float2half, float, u16, bits<u16>(__float2half(x)))                                \
  ONE(float2half_rn, float, u16, bits<u16>(__float2half_rn(x)))                          \
  ONE(half2float, u16, float, __half2float(half_of(x)))                                  \
  ONE(half_of_bits, u16, float, __half2float(__ushort_as_half(x)))                       \
  ONE(bits_of_half, float, u16, __half_as_ushort(__float2half(x)))                       \
  ONE(float22half2, float, u32, bits<u32>(__float22half2_rn(twice(x))))                  \
  ONE(half22float2, u16, float, __half22float2(pair_of(x | 0x3c000000u)).x)              \
  ONE(half22float2_high, u16, float, __half22float2(pair_of(static_cast<u32>(x) << 16)).y) \
  ONE(hadd, u32, u16, bits<u16>(__hadd(half_of(x), half_of(x >> 16))))                   \
  ONE(hmul, u32, u16, bits<u16>(__hmul(half_of(x), half_of(x >> 16))))                   \
  ONE(hadd2, u32, u32, bits<u32>(__hadd2(pair_of(x), pair_of(x >> 16 | x << 16))))       \
  ONE(plus2, u32, u32, bits<u32>(pair_of(x) + pair_of(x >> 16 | x << 16)))               \
  ONE(hmul2, u32, u32, bits<u32>(__hmul2(pair_of(x), pair_of(x >> 16 | x << 16))))       \
  ONE(hfma2, u32, u32, bits<u32>(__hfma2(pair_of(x), pair_of(x >> 16 | x << 16), pair_of(x))))

#define OF_BFLOAT16(ONE)                                                                 \
  ONE(float2bf16, float, u16, __bfloat16_as_ushort(__float2bfloat16(x)))                 \
  ONE(bf162float, u16, float, __bfloat162float(bf16_of(x)))                              \
  ONE(float22bf162, float, u32, bits<u32>(__float22bfloat162_rn(twice(x))))              \
  ONE(bf1622float2, u16, float, __bfloat1622float2(bf16_pair_of(x)).x)                   \
  ONE(bf1622float2_high, u16, float, __bfloat1622float2(__bfloat162bfloat162(bf16_of(x))).y) \
  ONE(bf16_hadd, u32, u16, __bfloat16_as_ushort(__hadd(bf16_of(x), bf16_of(x >> 16))))   \
  ONE(bf16_hmul, u32, u16, __bfloat16_as_ushort(__hmul(bf16_of(x), bf16_of(x >> 16))))   \
  ONE(bf16_hfma, u32, u16,                                                               \
      __bfloat16_as_ushort(__hfma(bf16_of(x), bf16_of(x >> 16), bf16_of(x))))            \
  ONE(bf16_hadd2, u32, u32, bits<u32>(__hadd2(bf16_pair_of(x), bf16_pair_of(x >> 16 | x << 16)))) \
  ONE(bf16_hmul2, u32, u32, bits<u32>(__hmul2(bf16_pair_of(x), bf16_pair_of(x >> 16 | x << 16)))) \
  ONE(bf16_hfma2, u32, u32,                                                              \
      bits<u32>(__hfma2(bf16_pair_of(x), bf16_pair_of(x >> 16 | x << 16), bf16_pair_of(x))))

#define OF_FP8(ONE, type, pair, kind)                                                    \
  ONE(type##_of_float, float, u8, __hip_cvt_float_to_fp8(x, __HIP_SATFINITE, kind))      \
  ONE(type##_constructed, float, u8, __hip_fp8_##type(x).__x)                            \
  ONE(type##_of_float2, float, u16, __hip_cvt_float2_to_fp8x2(twice(x), __HIP_SATFINITE, kind)) \
  ONE(type##_of_half, u16, u8, __hip_cvt_halfraw_to_fp8(raw_of(x), __HIP_SATFINITE, kind)) \
  ONE(type##_of_half2, u32, u16,                                                         \
      __hip_cvt_halfraw2_to_fp8x2(bits<__half2_raw>(x), __HIP_SATFINITE, kind))          \
  ONE(type##_to_half, u8, u16, bits<u16>(__hip_cvt_fp8_to_halfraw(x, kind)))             \
  ONE(type##_to_half2, u16, u32, bits<u32>(__hip_cvt_fp8x2_to_halfraw2(x, kind)))        \
  ONE(type##_to_float, u8, float, static_cast<float>(bits<__hip_fp8_##type>(x)))         \
  ONE(type##_to_float2, u16, float, static_cast<float2>(bits<pair>(x)).x)                \
  ONE(type##_to_float2_high, u16, float, static_cast<float2>(bits<pair>(x)).y)

#define EACH(ONE)                                                     \
  OF_HALF(ONE)                                                        \
  OF_BFLOAT16(ONE)                                                    \
  OF_FP8(ONE, e4m3, __hip_fp8x2_e4m3, __HIP_E4M3)                     \
  OF_FP8(ONE, e5m2, __hip_fp8x2_e5m2, __HIP_E5M2)                     \
  OF_FP8(ONE, e4m3_fnuz, __hip_fp8x2_e4m3_fnuz, __HIP_E4M3_FNUZ)      \
  OF_FP8(ONE, e5m2_fnuz, __hip_fp8x2_e5m2_fnuz, __HIP_E5M2_FNUZ)

#define HOST(name, in, out, expression)                              \
  extern "C" void host_##name(const in* given, out* made, int n) {   \
    for (int i = 0; i < n; i++) {                                    \
      const in x = given[i];                                         \
      made[i] = expression;                                          \
    }                                                                \
  }
EACH(HOST)

#define DEVICE(name, in, out, expression)                                          \
  extern "C" __global__ void device_##name(const in* given, out* made, int n) {    \
    const int i = blockIdx.x * blockDim.x + threadIdx.x;                           \
    if (i < n) {                                                                   \
      const in x = given[i];                                                       \
      made[i] = expression;                                                        \
    }                                                                              \
  }
EACH(DEVICE)
