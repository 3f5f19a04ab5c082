// CUDA's bfloat16 under the names that hipify.h gives it.
#pragma once

#include <hip/hip_bf16.h>
