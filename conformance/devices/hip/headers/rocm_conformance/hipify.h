// CUDA's names under HIP. vLLM's build renames them in copies of its sources (torch's hipify); here
// the preprocessor does, so that the sources stay as they were released.
#pragma once

#define CUdeviceptr hipDeviceptr_t
#define cudaDeviceProp hipDeviceProp_t
#define cudaError_t hipError_t
#define cudaFuncAttributeMaxDynamicSharedMemorySize hipFuncAttributeMaxDynamicSharedMemorySize
#define cudaFuncSetAttribute hipFuncSetAttribute
#define cudaGetDevice hipGetDevice
#define cudaGetDeviceCount hipGetDeviceCount
#define cudaGetDeviceProperties hipGetDeviceProperties
#define cudaGetErrorString hipGetErrorString
#define cudaGetLastError hipGetLastError
#define cudaMemcpyAsync hipMemcpyAsync
#define cudaMemcpyBatchAsync hipMemcpyBatchAsync
#define cudaMemcpyDefault hipMemcpyDefault
#define cudaMemcpyDeviceToDevice hipMemcpyDeviceToDevice
#define cudaMemcpyDeviceToHost hipMemcpyDeviceToHost
#define cudaMemcpyHostToDevice hipMemcpyHostToDevice
#define cudaMemcpyKind hipMemcpyKind
#define cudaMemoryTypeHost hipMemoryTypeHost
#define cudaPointerAttributes hipPointerAttribute_t
#define cudaPointerGetAttributes hipPointerGetAttributes
#define cudaStream_t hipStream_t
#define cudaSuccess hipSuccess
#define __nv_bfloat16 __hip_bfloat16
#define __nv_bfloat162 __hip_bfloat162
