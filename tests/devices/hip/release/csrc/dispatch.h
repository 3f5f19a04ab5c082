#pragma once

template <class T> struct Kernel { using type = T; };
template <> struct Kernel<c10::Half> { using type = _Float16; };

#define DISPATCH(TYPE, ...)                                           \
  AT_DISPATCH_SWITCH(TYPE, "reshape_and_cache", CASE(Half, __VA_ARGS__) CASE(Float, __VA_ARGS__))
#define CASE(TYPE, ...)                                               \
  AT_DISPATCH_CASE(at::ScalarType::TYPE, [&] {                        \
    using kernel_t = typename Kernel<scalar_t>::type;                 \
    __VA_ARGS__();                                                    \
  })
