#include <cstdlib>
#include <stdexcept>
#include <string>

#include "cpu/kernels.h"

namespace randla::cpu {
namespace {

#if RANDLA_X86
const Isa* const kBestFirst[] = {&kAvx512, &kAvx2, &kBaseline};
#else
const Isa* const kBestFirst[] = {&kBaseline};
#endif

const Isa& choose() {
  const char* wanted = std::getenv("RANDLA_ISA");
  const bool any = wanted == nullptr || *wanted == 0;
  for (const Isa* isa : kBestFirst)
    if (isa->supported() && (any || std::string(wanted) == isa->name)) return *isa;
  std::string names;
  for (const Isa* isa : kBestFirst)
    if (isa->supported()) names += std::string(names.empty() ? "" : ", ") + isa->name;
  throw std::runtime_error("RANDLA_ISA must be one of " + names + " on this machine; got " + wanted);
}

}  // namespace

const Isa& isa() {
  static const Isa& chosen = choose();
  return chosen;
}

bool isa_supported(int i, const char** name) {
  if (i < 0 || i >= static_cast<int>(sizeof kBestFirst / sizeof *kBestFirst)) return false;
  *name = kBestFirst[i]->supported() ? kBestFirst[i]->name : nullptr;
  return true;
}

template <>
const Kernels<float>& kernels<float>() {
  return *isa().f32;
}
template <>
const Kernels<double>& kernels<double>() {
  return *isa().f64;
}

}  // namespace randla::cpu
