#include "cuda/array.h"
#ifdef RANDLA_EMULATED
#include "emulated/bind.h"
#endif

namespace randla::cuda {
namespace {

// Set once, by the Python module that knows the array library.
py::object& stream_of() {
  static auto* function = new py::object();  // never destroyed: the interpreter may be gone by then
  return *function;
}

py::object& allocator() {
  static auto* function = new py::object();
  return *function;
}

Type parsed(const std::string& typestr) {
  if (typestr == "<f4") return Type::kFloat32;
  if (typestr == "<f8") return Type::kFloat64;
  if (typestr == "<i4") return Type::kInt32;
  if (typestr == "<i8") return Type::kInt64;
  if (typestr == "<c8") return Type::kComplex64;
  if (typestr == "<c16") return Type::kComplex128;
  if (typestr == "<u2") return Type::kUint16;
  return typestr == "<u4" ? Type::kUint32 : Type::kOther;
}

int64_t bytes_of(Type type) {
  if (type == Type::kComplex128) return 16;
  if (type == Type::kUint16) return 2;
  return type == Type::kFloat64 || type == Type::kInt64 || type == Type::kComplex64 ? 8 : 4;
}

// Stream and memory of a call are the current device's, as are the results that Python has made. Empty arrays are nowhere.
void require_here(const void* data, const char* name) {
  if (data == nullptr) return;
  const int device = device_of(data), current = current_device();
  if (device == current) return;
  if (device < 0) throw py::type_error(std::string(name) + " must be memory of a CUDA device; it is the host's");
  throw py::type_error(std::string(name) + " must be on the current device, " + std::to_string(current) + "; it is on device " +
                       std::to_string(device));
}

}  // namespace

bool DeviceArray::contiguous() const {
  for (int64_t extent : shape)
    if (extent == 0) return true;  // strides of nothing mean nothing
  int64_t expected = bytes_of(type);
  for (int64_t d = dimensions() - 1; d >= 0; --d) {
    const auto i = static_cast<size_t>(d);
    if (shape[i] != 1 && strides[i] != expected) return false;
    expected *= shape[i];
  }
  return true;
}

DeviceArray device_array(const py::object& a, const char* name) {
  if (!py::hasattr(a, "__cuda_array_interface__"))
    throw py::type_error(std::string(name) + " must be a device array; got " + std::string(py::str(py::type::of(a))));
  const py::dict about = a.attr("__cuda_array_interface__");
  const py::tuple data = about["data"];
  DeviceArray out;
  out.data = reinterpret_cast<void*>(data[0].cast<uintptr_t>());
  require_here(out.data, name);
  out.read_only = data[1].cast<bool>();
  out.type = parsed(about["typestr"].cast<std::string>());
  out.shape = about["shape"].cast<std::vector<int64_t>>();
  if (about.contains("strides") && !about["strides"].is_none()) {
    out.strides = about["strides"].cast<std::vector<int64_t>>();
  } else {
    int64_t stride = bytes_of(out.type);
    out.strides.resize(out.shape.size());
    for (size_t d = out.shape.size(); d-- > 0; stride *= out.shape[d]) out.strides[d] = stride;
  }
  return out;
}

uintptr_t Call::current_stream() {
  RANDLA_REQUIRE(stream_of(), "no array library has been set");
  return stream_of()().cast<uintptr_t>();
}

void* Call::allocate(int64_t bytes) {
  RANDLA_REQUIRE(allocator(), "no array library has been set");
  memory_.push_back(allocator()(bytes));
  return reinterpret_cast<void*>(memory_.back().attr("ptr").cast<uintptr_t>());
}

#ifdef RANDLA_EMULATED
PYBIND11_MODULE(_cuda_emulated, m, py::mod_gil_not_used()) {
#else
PYBIND11_MODULE(_cuda, m, py::mod_gil_not_used()) {
#endif
  m.doc() = "The CUDA kernels of randla, the same functions as those of randla._cpu, for device arrays.";
  m.def("device_count", &device_count);
  m.def("runtime_version", &runtime_version);
  m.def(
      "use", [](py::object current_stream, py::object allocate) {
        stream_of() = std::move(current_stream);
        allocator() = std::move(allocate);
      },
      py::arg("current_stream"), py::arg("allocate"),
      "Where calls find their stream, () -> address, and their memory, (bytes) -> object with .ptr.");
  bind_sketches(m);
  bind_rows(m);
  bind_butterflies(m);
  bind_csr_product(m);
#ifdef RANDLA_EMULATED
  emulated::bind(m);
#endif
}

}  // namespace randla::cuda
