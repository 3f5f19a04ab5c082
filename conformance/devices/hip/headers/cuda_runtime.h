// CUDA's runtime under the names that hipify.h gives it.
#pragma once

#include <hip/hip_runtime.h>
