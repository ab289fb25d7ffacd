#include "cpu/isa_headers.h"
#include "cpu/parallel.h"
#include "cpu/isa_body.inl"

namespace randla::cpu {
extern const Isa kBaseline = {"baseline", [] { return true; }, &kTable<float>, &kTable<double>};
}
