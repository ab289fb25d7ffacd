#define RANDLA_NATIVE_BYTES 16
#include "cpu/isa_headers.h"
#include "cpu/parallel.h"
#include "cpu/isa_body.inl"

namespace randla::cpu {
extern const Isa kBaseline = {"baseline", [] { return true; }, add_pieces, loss_terms, loss_difference, gram_rows, lasso, l1_path, &kTable<float>, &kTable<double>};
}
