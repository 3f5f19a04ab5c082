// What host code of the kernels reads of a tensor, and the checks it makes: torch's names, written
// for this suite. A tensor is described by the caller; nothing is allocated, nothing is computed.
#pragma once

#include <hip/hip_runtime.h>

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <memory>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace c10 {

// The numbers are this suite's: conformance/devices/hip/host.py has the same.
enum class ScalarType : int {
  Byte, Char, Short, Int, Long, Half, Float, Double, BFloat16, Float8_e4m3fn, Float8_e4m3fnuz,
  Float8_e5m2, Float8_e5m2fnuz, Bool, UInt16, UInt32, UInt64
};

// Types that only name an element's size to host code.
struct Half { uint16_t x; };
struct BFloat16 { uint16_t x; };
struct from_bits_t {};
template <int> struct Float8 {
  uint8_t x;
  Float8() = default;
  __host__ __device__ explicit Float8(float);  // declared: no kernel here converts by it
  constexpr __host__ __device__ Float8(uint8_t bits, from_bits_t) : x(bits) {}
  static constexpr __host__ __device__ from_bits_t from_bits() { return {}; }
};
using Float8_e4m3fn = Float8<0>;
using Float8_e4m3fnuz = Float8<1>;

template <class T> using optional = std::optional<T>;
using std::nullopt;

template <ScalarType> struct CppType;
template <> struct CppType<ScalarType::Byte> { using type = uint8_t; };
template <> struct CppType<ScalarType::Char> { using type = int8_t; };
template <> struct CppType<ScalarType::Short> { using type = int16_t; };
template <> struct CppType<ScalarType::Int> { using type = int32_t; };
template <> struct CppType<ScalarType::Long> { using type = int64_t; };
template <> struct CppType<ScalarType::Half> { using type = Half; };
template <> struct CppType<ScalarType::Float> { using type = float; };
template <> struct CppType<ScalarType::Double> { using type = double; };
template <> struct CppType<ScalarType::BFloat16> { using type = BFloat16; };
template <> struct CppType<ScalarType::Float8_e4m3fn> { using type = Float8_e4m3fn; };
template <> struct CppType<ScalarType::Float8_e4m3fnuz> { using type = Float8_e4m3fnuz; };
template <> struct CppType<ScalarType::UInt16> { using type = uint16_t; };
template <> struct CppType<ScalarType::UInt32> { using type = uint32_t; };
template <> struct CppType<ScalarType::UInt64> { using type = uint64_t; };

inline std::ostream& operator<<(std::ostream& out, ScalarType type) {
  return out << "ScalarType " << static_cast<int>(type);
}

struct Device {
  int index() const { return 0; }
  bool is_cuda() const { return true; }
  bool is_cpu() const { return false; }
  bool operator==(const Device&) const { return true; }
  bool operator!=(const Device&) const { return false; }
  operator int() const { return 0; }
};

}  // namespace c10

namespace at {

using c10::BFloat16;
using c10::Device;
using c10::Half;
using c10::ScalarType;
constexpr ScalarType kByte = ScalarType::Byte, kUInt8 = ScalarType::Byte,
                     kInt8 = ScalarType::Char, kInt = ScalarType::Int, kInt32 = ScalarType::Int,
                     kLong = ScalarType::Long, kInt64 = ScalarType::Long,
                     kHalf = ScalarType::Half, kFloat16 = ScalarType::Half,
                     kFloat = ScalarType::Float, kFloat32 = ScalarType::Float,
                     kBFloat16 = ScalarType::BFloat16,
                     kFloat8_e4m3fn = ScalarType::Float8_e4m3fn,
                     kFloat8_e4m3fnuz = ScalarType::Float8_e4m3fnuz;

// The lengths or the strides of a tensor.
class IntArrayRef {
 public:
  IntArrayRef(const int64_t* numbers, int64_t count) : numbers_(numbers), count_(count) {}
  int64_t operator[](int64_t place) const { return numbers_[place]; }
  size_t size() const { return static_cast<size_t>(count_); }
  const int64_t* begin() const { return numbers_; }
  const int64_t* end() const { return numbers_ + count_; }
  bool operator==(const IntArrayRef& other) const {
    return std::equal(begin(), end(), other.begin(), other.end());
  }
  bool operator!=(const IntArrayRef& other) const { return !(*this == other); }
  bool equals(const IntArrayRef& other) const { return *this == other; }

 private:
  const int64_t* numbers_;
  int64_t count_;
};

// The caller's description of a tensor: strides in elements.
struct TensorView {
  void* data;
  int64_t dimensions;
  int64_t sizes[8];
  int64_t strides[8];
  int32_t type;
  int32_t element_size;
};

// What a new tensor is to be.
struct TensorOptions {
  ScalarType type;
  TensorOptions dtype(ScalarType other) const { return {other}; }
  Device device() const { return {}; }
};

class Tensor {
 public:
  Tensor() = default;
  explicit Tensor(const TensorView& view) : view_(view) {}

  int64_t dim() const { return view_.dimensions; }
  int64_t size(int64_t place) const { return view_.sizes[wrapped(place)]; }
  int64_t stride(int64_t place) const { return view_.strides[wrapped(place)]; }
  IntArrayRef sizes() const { return {view_.sizes, view_.dimensions}; }
  IntArrayRef strides() const { return {view_.strides, view_.dimensions}; }
  int64_t numel() const {
    int64_t count = 1;
    for (int64_t place = 0; place < view_.dimensions; place++) {
      count *= view_.sizes[place];
    }
    return count;
  }
  int64_t element_size() const { return view_.element_size; }
  int64_t itemsize() const { return view_.element_size; }
  ScalarType dtype() const { return static_cast<ScalarType>(view_.type); }
  ScalarType scalar_type() const { return dtype(); }
  TensorOptions options() const { return {dtype()}; }
  Device device() const { return {}; }
  int get_device() const { return 0; }
  int get_device_index() const { return 0; }
  bool is_cuda() const { return true; }
  bool is_contiguous() const {
    int64_t step = 1;
    for (int64_t place = view_.dimensions - 1; place >= 0; place--) {
      if (view_.sizes[place] != 1 && view_.strides[place] != step) {
        return false;
      }
      step *= view_.sizes[place];
    }
    return true;
  }
  // One entry of the first dimension.
  Tensor operator[](int64_t place) const {
    TensorView view = view_;
    view.data = static_cast<char*>(view.data) + place * view.strides[0] * view.element_size;
    view.dimensions--;
    std::copy(view_.sizes + 1, view_.sizes + 8, view.sizes);
    std::copy(view_.strides + 1, view_.strides + 8, view.strides);
    return Tensor(view);
  }
  // The dimensions from ``first`` to ``last`` as one: those of a cache follow one another.
  Tensor flatten(int64_t first, int64_t last) const {
    TensorView view = view_;
    first = wrapped(first);
    last = wrapped(last);
    for (int64_t place = first; place < last; place++) {
      if (view_.strides[place] != view_.strides[place + 1] * view_.sizes[place + 1]) {
        throw std::runtime_error("a tensor is flattened that is not contiguous there");
      }
      view.sizes[first] *= view_.sizes[place + 1];
    }
    view.strides[first] = view_.strides[last];
    std::copy(view_.sizes + last + 1, view_.sizes + 8, view.sizes + first + 1);
    std::copy(view_.strides + last + 1, view_.strides + 8, view.strides + first + 1);
    view.dimensions -= last - first;
    return Tensor(view);
  }
  template <class T> T item() const { return *static_cast<const T*>(view_.data); }
  bool has_value() const { return view_.data != nullptr; }
  bool defined() const { return view_.data != nullptr; }
  void* data_ptr() const { return view_.data; }
  template <class T> T* data_ptr() const { return static_cast<T*>(view_.data); }
  const void* const_data_ptr() const { return view_.data; }
  template <class T> const T* const_data_ptr() const { return static_cast<const T*>(view_.data); }
  void* mutable_data_ptr() const { return view_.data; }
  template <class T> T* mutable_data_ptr() const { return static_cast<T*>(view_.data); }

 private:
  int64_t wrapped(int64_t place) const { return place < 0 ? place + view_.dimensions : place; }

  TensorView view_{};
};

}  // namespace at

namespace rocm_conformance {

// Memory of the caller's, which kernels may read and write from then on; it is never given back.
void* allocate(size_t bytes);

// A check of the host code that failed: its words.
struct CheckFailed : std::runtime_error {
  using std::runtime_error::runtime_error;
};

template <class... Parts> [[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  throw CheckFailed(text.str());
}

}  // namespace rocm_conformance

namespace at {

// A new tensor with one dimension, of what host code keeps between two of its kernels.
inline Tensor empty(std::initializer_list<int64_t> sizes, const TensorOptions& options) {
  if (sizes.size() != 1 || options.type != kFloat) {
    ::rocm_conformance::fail("a tensor is made that has several dimensions, or other elements than float");
  }
  const int64_t count = *sizes.begin();
  const int size = sizeof(float);
  void* data = ::rocm_conformance::allocate(static_cast<size_t>(count) * size);
  return Tensor(TensorView{data, 1, {count}, {1}, static_cast<int32_t>(options.type), size});
}

}  // namespace at

namespace torch {

using at::ScalarType;
using at::Tensor;
using c10::Device;
using at::kBFloat16;
using at::kByte;
using at::kFloat;
using at::kFloat16;
using at::kFloat32;
using at::kFloat8_e4m3fn;
using at::kFloat8_e4m3fnuz;
using at::kHalf;
using at::kInt;
using at::kInt32;
using at::kInt64;
using at::kInt8;
using at::kLong;
using at::kUInt8;

}  // namespace torch

inline const at::Tensor& device_of(const at::Tensor& tensor) { return tensor; }

// A statement of its own, because some of vLLM's checks have no semicolon.
#define ROCM_CONFORMANCE_CHECK(condition, ...)                 \
  {                                                            \
    if (!(condition)) {                                        \
      ::rocm_conformance::fail("" __VA_OPT__(, ) __VA_ARGS__); \
    }                                                          \
  }

// A switch over element types; of no interest to device code, whose kernels are named one by one.
#if defined(__HIP_DEVICE_COMPILE__)
#define ROCM_CONFORMANCE_SWITCH(TYPE, NAME, ...) ((void)0)
#else
#define ROCM_CONFORMANCE_SWITCH(TYPE, NAME, ...)                                  \
  [&] {                                                                           \
    switch (TYPE) {                                                               \
      __VA_ARGS__                                                                 \
      default:                                                                    \
        ::rocm_conformance::fail(NAME, " is not implemented for ", TYPE);         \
    }                                                                             \
  }()
#endif
#define ROCM_CONFORMANCE_CASE(TYPE, ALIAS, ...)          \
  case TYPE: {                                           \
    using ALIAS = typename ::c10::CppType<TYPE>::type;   \
    __VA_ARGS__();                                       \
    break;                                               \
  }
