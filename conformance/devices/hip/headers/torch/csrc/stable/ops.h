// Part of torch's stable C++ API: see torch/csrc/stable/tensor.h.
#pragma once

#include <torch/csrc/stable/tensor.h>
