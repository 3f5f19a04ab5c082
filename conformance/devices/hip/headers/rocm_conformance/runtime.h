// The HIP runtime that compiled host code of a release meets: launches go to the caller, who runs
// the kernel on a device of the suite. One device, the target that the caller names.
#pragma once

#include <hip/hip_runtime.h>

#include <cstring>
#include <map>
#include <string>

namespace rocm_conformance {

// name of the device function; grid and block in x, y, z; pointers to the arguments; bytes of LDS
using Launch = int (*)(const char* name, const unsigned* grid, const unsigned* block,
                       void** arguments, size_t shared);

// memory for a tensor that host code makes: its size in bytes
using Allocate = void* (*)(size_t bytes);

struct Runtime {
  std::map<const void*, std::string> names;
  Launch launch = nullptr;
  Allocate allocate = nullptr;
  std::string target;
  int lanes = 64;
  // The configuration that <<<...>>> states before it calls the kernel's host function.
  dim3 grid, block;
  size_t shared = 0;
};

inline Runtime& runtime() {
  static Runtime the;
  return the;
}

void* allocate(size_t bytes) { return runtime().allocate(bytes); }

}  // namespace rocm_conformance

extern "C" {

void rocm_conformance_begin(const char* target, int lanes, rocm_conformance::Launch launch,
                            rocm_conformance::Allocate allocate) {
  rocm_conformance::runtime().target = target;
  rocm_conformance::runtime().lanes = lanes;
  rocm_conformance::runtime().launch = launch;
  rocm_conformance::runtime().allocate = allocate;
}

void** __hipRegisterFatBinary(const void*) {
  static void* handle;
  return &handle;
}
void __hipUnregisterFatBinary(void**) {}
void __hipRegisterFunction(void**, const void* host, char*, const char* device, unsigned, void*,
                           void*, void*, void*, int*) {
  rocm_conformance::runtime().names[host] = device;
}
void __hipRegisterVar(void**, void*, char*, const char*, int, size_t, int, int) {}

hipError_t __hipPushCallConfiguration(dim3 grid, dim3 block, size_t shared, hipStream_t) {
  rocm_conformance::runtime().grid = grid;
  rocm_conformance::runtime().block = block;
  rocm_conformance::runtime().shared = shared;
  return hipSuccess;
}
hipError_t __hipPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, hipStream_t* stream) {
  *grid = rocm_conformance::runtime().grid;
  *block = rocm_conformance::runtime().block;
  *shared = rocm_conformance::runtime().shared;
  *stream = nullptr;
  return hipSuccess;
}
hipError_t hipLaunchKernel(const void* host, dim3 grid, dim3 block, void** arguments,
                           size_t shared, hipStream_t) {
  const unsigned by[3] = {grid.x, grid.y, grid.z}, of[3] = {block.x, block.y, block.z};
  const auto& the = rocm_conformance::runtime();
  return the.launch(the.names.at(host).c_str(), by, of, arguments, shared) == 0
             ? hipSuccess
             : hipErrorLaunchFailure;
}

hipError_t hipGetDevice(int* device) {
  *device = 0;
  return hipSuccess;
}
hipError_t hipGetDeviceCount(int* count) {
  *count = 1;
  return hipSuccess;
}
hipError_t hipGetDevicePropertiesR0600(hipDeviceProp_tR0600* properties, int) {
  const auto& the = rocm_conformance::runtime();
  std::memset(properties, 0, sizeof *properties);
  std::strncpy(properties->gcnArchName, the.target.c_str(), sizeof properties->gcnArchName - 1);
  properties->warpSize = the.lanes;
  properties->multiProcessorCount = 64;
  return hipSuccess;
}
hipError_t hipFuncSetAttribute(const void*, hipFuncAttribute, int) { return hipSuccess; }
const char* hipGetErrorString(hipError_t) { return "an error of the suite's HIP runtime"; }

}  // extern "C"
