// Part of torch's C++ API: see torch/all.h.
#pragma once

#include <torch/all.h>
