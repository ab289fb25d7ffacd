// Body of every isa_*.cpp: the kernels, compiled for the current target region, and their tables.
// Includes must come before the region opens: inline functions of the standard library compiled inside it could be the copy
// that the linker keeps for everyone, and would then fault on older processors.

#include "cpu/simd.h"

#include "cpu/fwht.inl"

#include "cpu/add_pieces.inl"
#include "cpu/block_srht.inl"
#include "cpu/block_srht_columns.inl"
#include "cpu/count_sketch.inl"
#include "cpu/dense_sketch.inl"
#include "cpu/dense_product.inl"
#include "cpu/csr_product.inl"
#include "cpu/gather.inl"
#include "cpu/row_pass.inl"
#include "cpu/row_pass_columns.inl"
#include "cpu/row_pass_csr.inl"
#include "cpu/row_pass_dense.inl"

#include "common/losses.h"
#include "cpu/elementary.inl"
#include "cpu/losses.inl"

#include "cpu/glm.inl"
#include "cpu/residual.inl"
#include "cpu/row_norms.inl"
#include "cpu/butterfly_pack.inl"
#include "cpu/butterfly.inl"
#include "cpu/butterfly_gradient.inl"
#include "cpu/butterfly_vector.inl"
#include "cpu/gram.inl"
#include "cpu/rank_one_split.inl"
#include "cpu/sparse_sketch.inl"
#include "cpu/srtt.inl"
#include "cpu/triangular.inl"

#include "cpu/kernel_columns.inl"
#include "cpu/eliminate.inl"
#include "cpu/solve_right.inl"

#include "cpu/dots.inl"

#include "cpu/homotopy.inl"
#include "cpu/lasso.inl"

namespace randla::cpu {
namespace {

template <class T>
constexpr Kernels<T> kTable = {
    dense_sketch<T>,
    dense_product<T>,
    dense_product_adjoint<T>,
    sparse_sketch<T>,
    sparse_sketch_csr<T>,
    sparse_sketch_adjoint<T>,
    block_srht<T>,
    block_srht_adjoint<T>,
    srtt<T>,
    srtt_adjoint<T>,
    gather<T>,
    gather_csr<T>,
    csr_product<T, 1>,
    csr_product<T, 2>,
    fwht<T>,
    residual<T>,
    residual_complex<T>,
    residual_csr<T>,
    glm<T>,
    glm_csr<T>,
    weighted_product<T>,
    weighted_product_csr<T>,
    softmax_product<T>,
    softmax_product_csr<T>,
    weighted_gram_csr<T>,
    row_norms<T, double>,
    row_norms<T, float>,
    row_norms_csr<T, double>,
    row_norms_csr<T, float>,
    gram<T>,
    gram_csr<T>,
    butterfly<T, false>,
    butterfly<T, true>,
    butterfly_vector<T, false>,
    butterfly_vector<T, true>,
    lane_blocks<T>,
    order_for_lanes<T, false>,
    order_for_lanes<T, true>,
    butterfly_gradient<T, false>,
    butterfly_gradient<T, true>,
    kernel_columns<T, T>,
    kernel_columns<T, double>,
    eliminate<T, 1>,
    eliminate<T, 2>,
    solve_right<T, 1>,
    solve_right<T, 2>,
    column_dots<T>,
    triangular<T>,
    cholesky<T>,
    rank_one_split<T, 1>,
    rank_one_split<T, 2>,
};

}  // namespace
}  // namespace randla::cpu
