// Vectors of floats, for any instruction set.

#pragma once

#include <cstdint>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))

namespace {

constexpr int WIDTH = 16;  // floats in a vector
constexpr int SIDE = 4;    // vectors side by side

typedef float Floats __attribute__((vector_size(4 * WIDTH)));
typedef int32_t Ints __attribute__((vector_size(4 * WIDTH)));
typedef uint32_t Words __attribute__((vector_size(4 * WIDTH)));
typedef uint8_t Bytes __attribute__((vector_size(WIDTH)));
typedef double Doubles __attribute__((vector_size(4 * WIDTH)));

constexpr Ints LANES = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

INLINE Floats splat(float a) { return Floats{} + a; }
INLINE Doubles low(Floats a) {
    return __builtin_convertvector(__builtin_shufflevector(a, a, 0, 1, 2, 3, 4, 5, 6, 7), Doubles);
}
INLINE Doubles high(Floats a) {
    return __builtin_convertvector(__builtin_shufflevector(a, a, 8, 9, 10, 11, 12, 13, 14, 15), Doubles);
}
INLINE Doubles folded(Floats a) { return low(a) + high(a); }
INLINE double sum(Doubles a) {
    a += __builtin_shufflevector(a, a, 4, 5, 6, 7, 0, 1, 2, 3);
    a += __builtin_shufflevector(a, a, 2, 3, 0, 1, 6, 7, 4, 5);
    return a[0] + a[1];
}

#if defined(__AVX512F__)
INLINE Floats max(Floats a, Floats b) { return (Floats)_mm512_max_ps((__m512)a, (__m512)b); }
INLINE Floats min(Floats a, Floats b) { return (Floats)_mm512_min_ps((__m512)a, (__m512)b); }
// a * b + c in one, also where the product is of use elsewhere, too.
INLINE Floats multiply_add(Floats a, Floats b, Floats c) {
    return (Floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}
#else
INLINE Floats max(Floats a, Floats b) { return a > b ? a : b; }
INLINE Floats min(Floats a, Floats b) { return a < b ? a : b; }
INLINE Floats multiply_add(Floats a, Floats b, Floats c) { return a * b + c; }
#endif

// 2^e for e in [-126, 126], relative error 2e-7.
INLINE Floats exp2_of_normal(Floats e) {
    const Floats magic = splat(12582912.f);  // 1.5 * 2^23: adding it rounds to an integer
    Floats n = e + magic, f = e - (n - magic);
    Floats p = f * 1.32746334e-3f + 9.67196168e-3f;
    p = p * f + 5.55067837e-2f;
    p = p * f + 2.40222353e-1f;
    p = p * f + 6.93147062e-1f;
    p = p * f + 1.0f;
    return (Floats)((Ints)p + ((Ints)n << 23));
}

// 2^e for e < 126, relative error 2e-7; far below -64 it may count as that.
#if defined(__AVX512DQ__)
INLINE Floats exp2_of_any(Floats e) {
    Floats f;  // e - floor(e), in a register set to 0 before: some processors wait for what was in it
    asm("vpxord %x0, %x0, %x0\n\tvreduceps $1, %1, %0" : "=&v"(f) : "v"(e));
    Floats p = f * 1.8775767e-3f + 8.9893397e-3f;
    p = p * f + 5.5826318e-2f;
    p = p * f + 2.4015361e-1f;
    p = p * f + 6.9315308e-1f;
    p = p * f + 9.9999994e-1f;
    return (Floats)_mm512_scalef_ps((__m512)p, (__m512)e);  // times 2^floor(e)
}
#else
INLINE Floats exp2_of_any(Floats e) { return exp2_of_normal(max(e, splat(-64.f))); }
#endif

}  // namespace
