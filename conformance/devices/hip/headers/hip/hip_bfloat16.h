// The older name of bfloat16's header.
#pragma once

#include <hip/hip_bf16.h>
