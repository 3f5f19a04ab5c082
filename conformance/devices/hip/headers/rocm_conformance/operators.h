// Calls a host function of a release with arguments described by the caller, whatever its
// parameters are: tensors, optional tensors, numbers and strings.
#pragma once

#include <rocm_conformance/tensor.h>

#include <cstring>
#include <tuple>
#include <utility>

namespace rocm_conformance {

// One argument: what is set depends on the parameter. An absent tensor is null.
struct Value {
  const at::TensorView* tensor;
  int64_t integer;
  double real;
  const char* text;
};

// Where a converted argument lives during the call.
template <class T> struct Holder {
  T value;
  explicit Holder(const Value& given) {
    if constexpr (std::is_floating_point_v<T>) {
      value = static_cast<T>(given.real);
    } else {
      value = static_cast<T>(given.integer);
    }
  }
};
template <> struct Holder<at::Tensor> {
  at::Tensor value;
  explicit Holder(const Value& given) {
    if (given.tensor == nullptr) {
      fail("a tensor is missing that the operator needs");
    }
    value = at::Tensor(*given.tensor);
  }
};
template <> struct Holder<std::optional<at::Tensor>> {
  std::optional<at::Tensor> value;
  explicit Holder(const Value& given) {
    if (given.tensor != nullptr) {
      value = at::Tensor(*given.tensor);
    }
  }
};
template <> struct Holder<std::string> {
  std::string value;
  explicit Holder(const Value& given) : value(given.text == nullptr ? "" : given.text) {}
};

template <class... Parameters, size_t... Places>
void call(void (*function)(Parameters...), const Value* values, std::index_sequence<Places...>) {
  std::tuple<Holder<std::remove_cv_t<std::remove_reference_t<Parameters>>>...> holders(
      values[Places]...);
  function(std::get<Places>(holders).value...);
}

// 0, or 1 with the words of the host code's check in ``message``.
template <class... Parameters>
int invoke(void (*function)(Parameters...), const Value* values, int count, char* message,
           size_t room) {
  try {
    if (count != static_cast<int>(sizeof...(Parameters))) {
      fail("the operator takes ", sizeof...(Parameters), " arguments and was given ", count);
    }
    call(function, values, std::index_sequence_for<Parameters...>{});
    return 0;
  } catch (const std::exception& error) {
    std::strncpy(message, error.what(), room - 1);
    message[room - 1] = 0;
    return 1;
  }
}

}  // namespace rocm_conformance
