// Everything from outside that the kernels use; see isa_body.inl for why this is included first.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <new>
#include <type_traits>
#include <utility>
#include <vector>

#if RANDLA_X86
#include <immintrin.h>
#endif

#include "cpu/kernels.h"
#include "cpu/memory.h"
