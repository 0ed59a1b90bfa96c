// Vectors of floats, for any instruction set.

#pragma once

#include <cstdint>
#include <cstring>
#include <utility>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))

namespace {

// Floats in a vector: as many as fit a register.
#if defined(__AVX512F__)
constexpr int WIDTH = 16;
#define EACH_LANE 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
#define LOW_HALF 0, 1, 2, 3, 4, 5, 6, 7
#define HIGH_HALF 8, 9, 10, 11, 12, 13, 14, 15
#elif defined(__AVX2__)
constexpr int WIDTH = 8;
#define EACH_LANE 0, 1, 2, 3, 4, 5, 6, 7
#define LOW_HALF 0, 1, 2, 3
#define HIGH_HALF 4, 5, 6, 7
#else
constexpr int WIDTH = 4;
#define EACH_LANE 0, 1, 2, 3
#define LOW_HALF 0, 1
#define HIGH_HALF 2, 3
#endif
constexpr int SIDE = 4;  // vectors side by side

typedef float Floats __attribute__((vector_size(4 * WIDTH)));
typedef int32_t Ints __attribute__((vector_size(4 * WIDTH)));
typedef uint32_t Words __attribute__((vector_size(4 * WIDTH)));
typedef uint8_t Bytes __attribute__((vector_size(WIDTH)));
typedef double Doubles __attribute__((vector_size(4 * WIDTH)));

constexpr Ints LANES = {EACH_LANE};

INLINE Floats splat(float a) { return Floats{} + a; }
INLINE Doubles low(Floats a) { return __builtin_convertvector(__builtin_shufflevector(a, a, LOW_HALF), Doubles); }
INLINE Doubles high(Floats a) { return __builtin_convertvector(__builtin_shufflevector(a, a, HIGH_HALF), Doubles); }
INLINE Doubles folded(Floats a) { return low(a) + high(a); }

// Lanes of a vector brought together two by two, half with half.
template <int N, class Lane, class Vector, class Join>
INLINE Lane join_lanes(Vector a, Join join) {
    if constexpr (N == 1) {
        Lane lane;
        memcpy(&lane, &a, sizeof lane);
        return lane;
    } else {
        typedef Lane Half __attribute__((vector_size(sizeof(Lane) * N / 2)));
        Half low, high;
        memcpy(&low, &a, sizeof low);
        memcpy(&high, (const char *)&a + sizeof low, sizeof high);
        return join_lanes<N / 2, Lane>(join(low, high), join);
    }
}
INLINE double sum(Doubles a) {
    return join_lanes<WIDTH / 2, double>(a, [](auto a, auto b) { return a + b; });
}

#if defined(__AVX512F__)
INLINE Floats max(Floats a, Floats b) { return (Floats)_mm512_max_ps((__m512)a, (__m512)b); }
INLINE Floats min(Floats a, Floats b) { return (Floats)_mm512_min_ps((__m512)a, (__m512)b); }
#elif defined(__AVX2__)
INLINE Floats max(Floats a, Floats b) { return (Floats)_mm256_max_ps((__m256)a, (__m256)b); }
INLINE Floats min(Floats a, Floats b) { return (Floats)_mm256_min_ps((__m256)a, (__m256)b); }
#else
INLINE Floats max(Floats a, Floats b) { return a > b ? a : b; }
INLINE Floats min(Floats a, Floats b) { return a < b ? a : b; }
#endif

// a * b + c in one where there is such an instruction, also where the product is of use elsewhere, too.
#if defined(__AVX512F__)
INLINE Floats multiply_add(Floats a, Floats b, Floats c) {
    return (Floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}
#elif defined(__FMA__)
INLINE Floats multiply_add(Floats a, Floats b, Floats c) {
    return (Floats)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}
#else
INLINE Floats multiply_add(Floats a, Floats b, Floats c) { return a * b + c; }
#endif

// N = 2 or 4 vectors brought together, which keeps their sums: lane l is of vector l % N.
template <int N, int... L>
INLINE Floats packed(const Floats *a, std::integer_sequence<int, L...>) {
    auto pairs = [](Floats a, Floats b) {  // lanes of both in turns
        return __builtin_shufflevector(a, b, (L / 4 * 4 + L % 4 / 2 + L % 2 * WIDTH)...) +
               __builtin_shufflevector(a, b, (L / 4 * 4 + L % 4 / 2 + L % 2 * WIDTH + 2)...);
    };
    const Floats first = pairs(a[0], a[1]);
    if constexpr (N == 2) return first;
    const Floats second = pairs(a[N - 2], a[N - 1]);
    return __builtin_shufflevector(first, second, (L / 4 * 4 + L % 2 + L % 4 / 2 * WIDTH)...) +
           __builtin_shufflevector(first, second, (L / 4 * 4 + L % 2 + L % 4 / 2 * WIDTH + 2)...);
}
template <int N>
INLINE Floats packed(const Floats *a) {
    return packed<N>(a, std::make_integer_sequence<int, WIDTH>());
}

// In pairs, which rounds least.
template <int N>
INLINE Floats sum_of(const Floats *a) {
    if constexpr (N == 1) return a[0];
    else return sum_of<N / 2>(a) + sum_of<N / 2>(a + N / 2);
}

INLINE float largest(Floats a) {
    return join_lanes<WIDTH, float>(a, [](auto a, auto b) { return a > b ? a : b; });
}

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
