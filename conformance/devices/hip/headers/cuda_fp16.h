// CUDA's binary16: HIP has the same names.
#pragma once

#include <hip/hip_fp16.h>
