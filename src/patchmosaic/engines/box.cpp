// Posterior means over patches by box sums.
//
// For one training image and one shift (dy, dx), the squared difference of the noisy pixel u and the training
// pixel u + d is computed once; every window is then a box sum of it, so the cost per (pixel, patch) pair hardly
// grows with the window. WIDTH training images are worked on side by side, at several neighbouring shifts.
//
// Everything is float32 and nothing is ever subtracted from a sum, so a box is good to a few units in its last
// place. Where that is too little, the patches that matter are measured again in double (`refine`).

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace {

constexpr int WIDTH = 16;  // floats in a vector: training images side by side
constexpr int SIDE = 4;    // vectors side by side: neighbouring shifts, or more images where there are no shifts

typedef float Floats __attribute__((vector_size(4 * WIDTH)));
typedef int32_t Ints __attribute__((vector_size(4 * WIDTH)));
typedef uint8_t Bytes __attribute__((vector_size(WIDTH)));
typedef double Doubles __attribute__((vector_size(4 * WIDTH)));
#define INLINE static inline __attribute__((always_inline))
#define INLINE_MEMBER inline __attribute__((always_inline))

constexpr float FLOOR = -64.f;     // log2 of the smallest weight: below the rounding of any sum
constexpr float MARGIN = 4e-7f;    // how far boxes measured in float32 may err, of themselves
constexpr double EVEN = 2.5e7;     // the reference times the precision, up to which training pixels may err by 2^-25
constexpr float HEADROOM = 20.f;   // how far a weight may exceed the reference before it is moved
constexpr float FAR = 1e30f;       // the box of a patch that does not exist
constexpr float UNKNOWN = 1e29f;   // the reference before the first patch
constexpr int NARROW = 24;                // columns that small windows take at once
constexpr int UNSHIFTED_AT_ONCE = 256;  // blocks before float32 sums are moved to double, where there are no shifts

INLINE Doubles low(Floats a) {
    return __builtin_convertvector(__builtin_shufflevector(a, a, 0, 1, 2, 3, 4, 5, 6, 7), Doubles);
}
INLINE Doubles high(Floats a) {
    return __builtin_convertvector(__builtin_shufflevector(a, a, 8, 9, 10, 11, 12, 13, 14, 15), Doubles);
}
INLINE Floats to_floats(Floats a) { return a; }
INLINE Floats splat(float a) { return Floats{} + a; }
INLINE double sum(Floats a) {
    Doubles b = low(a) + high(a);
    b += __builtin_shufflevector(b, b, 4, 5, 6, 7, 0, 1, 2, 3);
    b += __builtin_shufflevector(b, b, 2, 3, 0, 1, 6, 7, 4, 5);
    return b[0] + b[1];
}
#if defined(__AVX512F__)
INLINE Floats max(Floats a, Floats b) { return (Floats)_mm512_max_ps((__m512)a, (__m512)b); }
INLINE Floats to_floats(Bytes a) { return (Floats)_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32((__m128i)a)); }
INLINE bool any_above(Floats a, float bound) {
    return _mm512_cmp_ps_mask((__m512)a, _mm512_set1_ps(bound), _CMP_GT_OQ) != 0;
}
#else
INLINE Floats max(Floats a, Floats b) { return a > b ? a : b; }
INLINE Floats to_floats(Bytes a) { return __builtin_convertvector(a, Floats); }
INLINE bool any_above(Floats a, float bound) {
    Ints above = a > splat(bound);
    int64_t words[WIDTH / 2], some = 0;
    memcpy(words, &above, sizeof above);
    for (int i = 0; i < WIDTH / 2; i++) some |= words[i];
    return some != 0;
}
#endif

// 2^e for e < 126, relative error 2e-7; far below FLOOR it may count as FLOOR.
#if defined(__AVX512DQ__)
INLINE Floats exp2(Floats e) {
    Floats f = (Floats)_mm512_reduce_ps((__m512)e, _MM_FROUND_TO_NEG_INF);  // e - floor(e)
    Floats p = f * 1.8775767e-3f + 8.9893397e-3f;
    p = p * f + 5.5826318e-2f;
    p = p * f + 2.4015361e-1f;
    p = p * f + 6.9315308e-1f;
    p = p * f + 9.9999994e-1f;
    return (Floats)_mm512_scalef_ps((__m512)p, (__m512)e);  // times 2^floor(e)
}
#else
INLINE Floats exp2(Floats e) {
    const Floats magic = splat(12582912.f);  // 1.5 * 2^23: adding it rounds to an integer
    e = max(e, splat(FLOOR));
    Floats n = e + magic, f = e - (n - magic);
    Floats p = f * 1.3333558e-3f + 9.6181291e-3f;
    p = p * f + 5.5504109e-2f;
    p = p * f + 2.4022651e-1f;
    p = p * f + 6.9314718e-1f;
    p = p * f + 1.0f;
    return (Floats)((Ints)p + ((Ints)n << 23));
}
#endif

// i modulo n, for i a few n away at most.
[[maybe_unused]] INLINE int wrapped(int i, int n) {
    while (i < 0) i += n;
    while (i >= n) i -= n;
    return i;
}

enum Symmetry { OWN_POSITION = 0, SAME_BORDER = 1, EVERYWHERE = 2, INSIDE = 3 };

struct Range {
    int from, to;
    bool empty() const { return from >= to; }
    int size() const { return to - from; }
};

// The query positions of one axis that a key `d` further on may stand in for (n positions, radius r).
Range partners(int symmetry, int n, int r, int d) {
    switch (symmetry) {
        case OWN_POSITION: return d == 0 ? Range{0, n} : Range{0, 0};
        case SAME_BORDER: return d == 0 ? Range{0, n} : Range{std::max(r, r - d), std::min(n - r, n - r - d)};
        case EVERYWHERE: return d >= 0 ? Range{0, n} : Range{0, 0};  // keys wrap around
        default: return Range{std::max(0, r - d), std::min(n, n - r - d)};
    }
}

struct Problem {
    int symmetry, wraps, height, width, channels;
    int64_t pixels() const { return (int64_t)height * width; }
    int stride() const { return width + SIDE - 1; }  // columns in a row of keys: the first ones follow the last
};

// Vectors from one row of scratch to the next: enough for any window, and no multiple of a page, on which the
// processor would take a load from one row for a load of what was just stored in another.
int64_t row_size(const Problem &P) {
    return ((int64_t)(3 * std::max(P.width, P.height) + SIDE) * SIDE + 63) / 64 * 64 + 17;
}

// One noisy image. A training pixel with code k has the value levels[k], or, but for rounding, offset + slope * k, so
// that pixel - signal * value = (pixel - signal * offset) - (signal * slope) * k = moved - scale * k.
struct Query {
    const float *pixels, *moved;  // (height, width, channels)
    double signal, precision;     // sqrt(alpha_bar); log2(e) / (2 sigma^2)
    double offset, slope;
    const float *levels;  // null where codes are the values
    float scale, fall;  // fall: -precision
    float skip;   // log2 of the weight, relative to the largest, below which patches are left out
    float trust;  // the largest reference at which float32 measures boxes well enough
};

struct Scratch {
    const void *keys;  // codes
    Floats *ring;    // rows of squared differences, or of their sums
    Floats *prefix, *column, *suffix;  // rows
    Floats *sums;    // (pixels, 1 + channels)
    float *penalty;  // by column of the key: 0, or FAR where it may not stand in
};

// The sums for one query: a reference near the smallest box so far, times the precision, and the sums of weights
// 2^(reference - precision * box) and of weighted codes.
struct State {
    float *reference;
    double *total, *weighted;
};

// T neighbouring column shifts of one group of images, or one shift of G groups. Key is a vector of codes.
template <class Key, int C, int T, int G, int R>
struct Pass {
    static constexpr int V = T * G;
    const Problem &P;
    const Query &Q;
    const Scratch &S;
    float *reference;
    const int images;  // in these groups; lanes beyond are empty
    const int r;
    Floats empty[G] = {};  // 0, or FAR in empty lanes

    Pass(const Problem &P, const Query &Q, const Scratch &S, float *reference, int images, int r)
        : P(P), Q(Q), S(S), reference(reference), images(images), r(r) {
        for (int i = images; i < WIDTH * G; i++) empty[i / WIDTH][i % WIDTH] = FAR;
    }

    INLINE_MEMBER int channels() const { return C ? C : P.channels; }

    // Keys are decoded, (height, stride, channels), or, for several groups, as stored.
    INLINE_MEMBER const Key *key(int row, int column) const {
        return (const Key *)S.keys + (row * (T > 1 ? P.stride() : P.width) + column) * channels();
    }
    // Channel j of vector v, seen from the key of the first one.
    INLINE_MEMBER Floats code(const Key *key, int j, int v) const {
        return to_floats(key[(T > 1 ? v * channels() : v * P.pixels() * channels()) + j]);
    }

    // Squared differences between columns [from, to) of row y and the keys dx further on in key_row, to
    // `emit(i, v, square)` with i counted from `from`.
    template <class Emit>
    INLINE_MEMBER void differences(int y, int key_row, int dx, int from, int to, Emit emit) const {
        const int c = channels();
        const Floats scale = splat(Q.scale);
        for (int x = from; x < to;) {
            const int qx = P.wraps ? wrapped(x, P.width) : x, kx = P.wraps ? wrapped(x + dx, P.width) : x + dx;
            const int run = P.wraps ? std::min({to - x, P.width - qx, P.width - kx}) : to - x;
            const float *q = Q.moved + (y * P.width + qx) * c;
            const Key *k = key(key_row, kx);
            for (int i = x - from; i < x - from + run; i++, q += c, k += c)
                for (int v = 0; v < V; v++) {
                    Floats d = q[0] - scale * code(k, 0, v), square = d * d;
                    for (int j = 1; j < c; j++) {
                        d = q[j] - scale * code(k, j, v);
                        square += d * d;
                    }
                    emit(i, v, square);
                }
            x += run;
        }
    }

    // Every box of query rows x columns at the shifts (dy, dx), (dy, dx + 1), ..., `count` of them; keys stand in
    // only in the columns `allowed`.
    void run(int dy, int dx, int count, Range rows, Range columns, Range allowed) const {
        const int w = P.width, left = columns.from - r, length = columns.size() + 2 * r;
        const int from = P.wraps ? left : std::max(left, 0);
        const int to = P.wraps ? std::min(left + length, left + w) : std::min(left + length, w);
        auto across_row = [&](int y, Floats *sums) {
            for (int at = 0; at < (from - left) * V; at++) sums[at] = Floats{};
            for (int at = (to - left) * V; at < length * V; at++) sums[at] = P.wraps ? sums[at - w * V] : Floats{};
            across(y, wrapped(y + dy, P.height), dx, count, columns, allowed, sums);
        };
        if (R) add_rows(dy, dx, rows, {from, to}, from - left, across_row);
        else add_columns(dy, dx, rows, {from, to}, from - left, across_row);
    }

    // Sums of 2 R + 1 squared differences down each column, row by row, from a ring of the last rows.
    template <class Row>
    INLINE_MEMBER void add_rows(int dy, int dx, Range rows, Range columns, int left, Row across_row) const {
        constexpr int span = 2 * R + 1;
        const int64_t stride = row_size(P);
        for (int i = 0, slot = 0; i < rows.size() + 2 * R; i++, slot = slot + 1 == span ? 0 : slot + 1) {
            const int y = rows.from - R + i;
            auto row = [&](int slot) { return S.ring + (slot < span ? slot : slot - span) * stride + left * V; };
            Floats *here = row(slot), *sums = S.column + left * V;
            const Floats *others[2 * R + 1];
            for (int j = 1; j < span; j++) others[j] = row(slot + j);
            auto fill = [&](auto emit) {
                if (P.wraps || (y >= 0 && y < P.height))
                    differences(wrapped(y, P.height), wrapped(y + dy, P.height), dx, columns.from, columns.to, emit);
                else
                    for (int x = 0; x < columns.size(); x++)
                        for (int v = 0; v < V; v++) emit(x, v, Floats{});
            };
            if (i < 2 * R) {
                fill([&](int x, int v, Floats square) { here[x * V + v] = square; });
                continue;
            }
            fill([&](int x, int v, Floats square) {
                const int at = x * V + v;
                here[at] = square;
                if (R == 1) sums[at] = square + (others[1][at] + others[2][at]);
                else sums[at] = square + ((others[1][at] + others[2][at]) + (others[3][at] + others[4][at]));
            });
            across_row(y - R, S.column);
        }
    }

    // The same for larger windows, column by column: rows fall in segments of the window's height, and a window is the
    // end of one segment and the beginning of the next.
    template <class Row>
    INLINE_MEMBER void add_columns(int dy, int dx, Range rows, Range columns, int left, Row across_row) const {
        const int n = rows.size(), span = 2 * r + 1, c = channels();
        const int64_t stride = row_size(P);
        const Floats scale = splat(Q.scale);
        for (int x = columns.from; x < columns.to; x++) {
            const int qx = P.wraps ? wrapped(x, P.width) : x, kx = P.wraps ? wrapped(x + dx, P.width) : x + dx;
            Floats *sums = S.ring + (left + x - columns.from) * V, *ends = S.prefix;
            Floats square[V];
            auto differ = [&](int i) {
                int y = rows.from - r + i, row = y + dy;
                if (P.wraps) y = wrapped(y, P.height), row = wrapped(row, P.height);
                else if (y < 0 || y >= P.height) {
                    for (int v = 0; v < V; v++) square[v] = Floats{};
                    return;
                }
                const float *q = Q.moved + (y * P.width + qx) * c;
                const Key *k = key(row, kx);
                for (int v = 0; v < V; v++) {
                    Floats d = q[0] - scale * code(k, 0, v);
                    square[v] = d * d;
                    for (int j = 1; j < c; j++) {
                        d = q[j] - scale * code(k, j, v);
                        square[v] += d * d;
                    }
                }
            };
            Floats sum[V];
            for (int v = 0; v < V; v++) sum[v] = Floats{};
            for (int i = span - 1; i >= 0; i--) {
                differ(i);
                for (int v = 0; v < V; v++) sum[v] += square[v];
                if (i < n)
                    for (int v = 0; v < V; v++) ends[i * V + v] = sum[v];
            }
            for (int from = 0;; from += span) {
                const int stop = std::min(span, n - from);
                for (int v = 0; v < V; v++) {
                    sums[from * stride + v] = ends[v];
                    sum[v] = Floats{};
                }
                for (int j = 1; j < stop; j++) {
                    differ(from + span + j - 1);
                    for (int v = 0; v < V; v++) {
                        sum[v] += square[v];
                        sums[(from + j) * stride + v] = ends[j * V + v] + sum[v];
                        ends[(j - 1) * V + v] = square[v];
                    }
                }
                if (from + span >= n) break;
                differ(from + 2 * span - 1);
                for (int v = 0; v < V; v++) ends[(span - 1) * V + v] = square[v];
                for (int j = span - 2; j >= 0; j--)
                    for (int v = 0; v < V; v++) ends[j * V + v] += ends[(j + 1) * V + v];
            }
        }
        for (int i = 0; i < n; i++) across_row(rows.from + i, S.ring + i * row_size(P));
    }

    // The boxes of one row from the sums of its columns.
    INLINE_MEMBER void across(int y, int key_row, int dx, int count, Range columns, Range allowed,
                              const Floats *column) const {
        const int w = P.width, span = 2 * r + 1;
        if (R == 0)
            for (int from = 0; from < columns.size(); from += span) {
                Floats sum[V];
                for (int v = 0; v < V; v++) sum[v] = Floats{};
                for (int i = from + span - 1; i >= from; i--)
                    for (int v = 0; v < V; v++) {
                        sum[v] += column[i * V + v];
                        if (i < columns.size()) S.suffix[i * V + v] = sum[v];
                    }
            }
        Floats prefix[V];
        int part = 0;
        for (int x = columns.from; x < columns.to;) {
            const int kx = P.wraps ? wrapped(x + dx, w) : x + dx;
            const int stop = P.wraps ? std::min(columns.to, x + w - kx) : columns.to;
            const Key *k = key(key_row, kx);
            for (int k_at = kx; x < stop; x++, k_at++, k += channels()) {
                Floats box[V];
                const Floats *a = column + (x - columns.from) * V;
                for (int v = 0; v < V; v++) {
                    if (R == 1) box[v] = a[v] + a[V + v] + a[2 * V + v];
                    else if (R == 2) box[v] = (a[v] + a[V + v]) + (a[2 * V + v] + a[3 * V + v]) + a[4 * V + v];
                    else {
                        const Floats rest = S.suffix[(x - columns.from) * V + v];
                        prefix[v] = part == 0 ? Floats{} : prefix[v] + a[(span - 1) * V + v];
                        box[v] = rest + prefix[v];
                    }
                }
                part = part + 1 == span ? 0 : part + 1;
                if (T > 1 && (k_at < allowed.from || k_at + T > allowed.to))
                    for (int v = 0; v < V; v++) box[v] += S.penalty[k_at + v];
                if (images < WIDTH * G)
                    for (int v = 0; v < V; v++) box[v] += empty[G > 1 ? v : 0];
                if (count < T)
                    for (int v = 0; v < V; v++) box[v] += splat(v < count ? 0.f : FAR);
                weigh(y, x, key_row, k_at, k, box);
            }
        }
    }

    // Weigh V * WIDTH patches against one query pixel.
    INLINE_MEMBER void weigh(int y, int x, int key_row, int key_column, const Key *k, const Floats *box) const {
        const int64_t pixel = (int64_t)y * P.width + x;
        const Floats fall = splat(Q.fall), best = splat(reference[pixel]);
        Floats e[V], top;
        for (int v = 0; v < V; v++) {
            e[v] = best + box[v] * fall;
            top = v == 0 ? e[0] : max(top, e[v]);
        }
        if (!any_above(top, least_exponent(pixel))) return;
        Floats *sums = S.sums + pixel * (1 + channels());
        if (__builtin_expect(reference[pixel] > Q.trust || any_above(top, HEADROOM), 0)) {
            Floats copy[V];  // only here need they be in memory
            for (int v = 0; v < V; v++) copy[v] = box[v];
            const float least = smallest(copy) * (float)Q.precision;
            if (reference[pixel] > Q.trust && least > Q.trust) {
                weigh_again(y, x, key_row, key_column, k, copy, sums);
                return;
            }
            if (any_above(top, HEADROOM)) move(least, pixel, sums);
            for (int v = 0; v < V; v++) e[v] = splat(reference[pixel]) + box[v] * fall;
        }
        add(e, k, sums);
    }

    // What falls below is left out.
    INLINE_MEMBER float least_exponent(int64_t pixel) const { return Q.skip - MARGIN * reference[pixel]; }

    INLINE_MEMBER void add(Floats *e, const Key *k, Floats *sums) const {
        Floats total = sums[0];
        for (int v = 0; v < V; v++) {
            e[v] = exp2(e[v]);
            total += e[v];
        }
        sums[0] = total;
        for (int j = 0; j < channels(); j++) {
            Floats weighted = sums[1 + j];
            for (int v = 0; v < V; v++) weighted += e[v] * code(k, j, v);
            sums[1 + j] = weighted;
        }
    }

    static float smallest(const Floats *box) {
        Floats least = box[0];
        for (int v = 1; v < V; v++) least = -max(-least, -box[v]);
        float smallest = least[0];
        for (int l = 1; l < WIDTH; l++) smallest = std::min(smallest, least[l]);
        return smallest;
    }

    __attribute__((noinline)) void move(float to, int64_t pixel, Floats *sums) const {
        const float fall = to - reference[pixel], kept = fall < FLOOR ? 0.f : std::exp2(fall);
        for (int j = 0; j <= channels(); j++) sums[j] *= kept;
        reference[pixel] = to;
    }

    // The same, with boxes that matter measured in double, eight at a time.
    __attribute__((noinline)) void weigh_again(int y, int x, int key_row, int key_column, const Key *k,
                                               const Floats *estimate, Floats *sums) const {
        const int64_t pixel = (int64_t)y * P.width + x;
        Doubles box[2 * V];
        double least = FAR;
        for (int i = 0; i < 2 * V; i++) {
            box[i] = Doubles{} + FAR;
            bool matters = false;
            for (int l = 0; l < WIDTH / 2; l++) matters |= reference[pixel] + at(estimate, i, l) * Q.fall > least_exponent(pixel);
            if (!matters) continue;
            box[i] = Q.levels && reference[pixel] * Q.precision > EVEN ? measure<true>(y, x, key_row, key_column, i)
                                                                       : measure<false>(y, x, key_row, key_column, i);
            for (int l = 0; l < WIDTH / 2; l++) {
                if (at(estimate, i, l) >= FAR) box[i][l] = FAR;
                least = std::min(least, box[i][l]);
            }
        }
        if (reference[pixel] - least * Q.precision > HEADROOM) move((float)(least * Q.precision), pixel, sums);
        Floats e[V];
        for (int i = 0; i < 2 * V; i++)
            for (int l = 0; l < WIDTH / 2; l++)
                e[i / 2][i % 2 * (WIDTH / 2) + l] = (float)(reference[pixel] - box[i][l] * Q.precision);
        add(e, k, sums);
    }

    static float at(const Floats *a, int half, int lane) { return a[half / 2][half % 2 * (WIDTH / 2) + lane]; }

    template <bool LEVELS>
    __attribute__((noinline)) Doubles measure(int y, int x, int key_row, int key_column, int half) const {
        const int c = channels(), h = P.height, w = P.width;
        const double moved = Q.signal * Q.offset, scale = Q.signal * Q.slope;
        Doubles sums[2] = {};
        for (int a = -r, turn = 0; a <= r; a++)
            for (int b = -r; b <= r; b++) {
                if (!P.wraps && (y + a < 0 || y + a >= h || x + b < 0 || x + b >= w)) continue;
                const float *q = Q.pixels + (wrapped(y + a, h) * w + wrapped(x + b, w)) * c;
                const int row = P.wraps ? wrapped(key_row + a, h) : key_row + a;
                const Key *there = key(row, P.wraps ? wrapped(key_column + b, w) : key_column + b);
                for (int j = 0; j < c; j++, turn ^= 1) {
                    const Floats codes = code(there, j, half / 2);
                    Doubles d = half % 2 ? high(codes) : low(codes);
                    if (LEVELS) {
                        for (int l = 0; l < WIDTH / 2; l++) d[l] = Q.levels[(int)d[l]];
                        d = q[j] - Q.signal * d;
                    } else {
                        d = (q[j] - moved) - scale * d;
                    }
                    sums[turn] += d * d;
                }
            }
        return sums[0] + sums[1];
    }
};

// Add one block (or SIDE of them) to the sums of one query, for the row shifts in [dy_from, dy_to).
template <class Key, int C, int T, int G, int R>
void add_block(const Problem &P, const Query &Q, const Scratch &S, float *reference, int images, int r, int dy_from,
               int dy_to) {
    const Pass<Key, C, T, G, R> pass(P, Q, S, reference, images, r);
    const int w = P.width, reach = w - 2 * r - 1;
    const int across = P.symmetry == INSIDE ? EVERYWHERE : P.symmetry;  // but only to the columns inside
    for (int dy = dy_from; dy < dy_to; dy++) {
        const Range rows = partners(P.symmetry, P.height, r, dy);
        if (rows.empty()) continue;
        auto shifts = [&](int from, int to, Range allowed) {
            for (int x = -SIDE; x < w + SIDE; x++) {
                const int column = P.wraps ? wrapped(x, w) : x;
                S.penalty[x] = column >= allowed.from && column < allowed.to ? 0.f : FAR;
            }
            for (int dx = from; dx < to; dx += T) {
                const int count = std::min(T, to - dx);
                const Range first = partners(across, w, r, dx), last = partners(across, w, r, dx + count - 1);
                const Range columns{std::min(first.from, last.from), std::max(first.to, last.to)};
                const int parts = R == 1 ? (columns.size() + NARROW - 1) / NARROW : 1;  // their rows stay in the L1 cache
                for (int i = 0; i < parts && !columns.empty(); i++)
                    pass.run(dy, dx, count, rows,
                             {columns.from + columns.size() * i / parts, columns.from + columns.size() * (i + 1) / parts},
                             allowed);
            }
        };
        if (P.symmetry == SAME_BORDER) shifts(-reach, 0, {r, w - r});
        if (P.symmetry == SAME_BORDER || P.symmetry == OWN_POSITION) shifts(0, 1, {0, w});
        if (P.symmetry == SAME_BORDER) shifts(1, reach + 1, {r, w - r});
        if (P.symmetry == EVERYWHERE) shifts(0, w, {0, w});
        if (P.symmetry == INSIDE) shifts(0, w, {r, w - r});
    }
}

template <class Key, int C, int T, int G>
void add_block(const Problem &P, const Query &Q, const Scratch &S, float *reference, int images, int r, int dy_from,
               int dy_to) {
    if (r == 1) add_block<Key, C, T, G, 1>(P, Q, S, reference, images, r, dy_from, dy_to);
    else if (r == 2) add_block<Key, C, T, G, 2>(P, Q, S, reference, images, r, dy_from, dy_to);
    else add_block<Key, C, T, G, 0>(P, Q, S, reference, images, r, dy_from, dy_to);
}

template <int C>
void add_block(const Problem &P, const Query &Q, const Scratch &S, bool bytes, float *reference, int images, int r,
               int dy_from, int dy_to) {
    if (P.symmetry != OWN_POSITION) add_block<Floats, C, SIDE, 1>(P, Q, S, reference, images, r, dy_from, dy_to);
    else if (bytes) add_block<Bytes, C, 1, SIDE>(P, Q, S, reference, images, r, dy_from, dy_to);
    else add_block<Floats, C, 1, SIDE>(P, Q, S, reference, images, r, dy_from, dy_to);
}

// Move the float32 sums into the double totals, which were relative to `before`.
void settle(const Problem &P, const Scratch &S, const float *before, const State &state) {
    const int c = P.channels;
    for (int64_t p = 0; p < P.pixels(); p++) {
        const double fall = (double)state.reference[p] - before[p];
        const double kept = fall == 0 ? 1 : fall < -1e3 ? 0 : std::exp2(fall);
        const Floats *sums = S.sums + p * (1 + c);
        state.total[p] = state.total[p] * kept + sum(sums[0]);
        for (int j = 0; j < c; j++) {
            double &weighted = state.weighted[p * c + j];
            weighted = weighted * kept + sum(sums[1 + j]);
        }
    }
}

// Keys as floats; in each row the first columns follow the last.
template <class Code>
void decode(const Problem &P, const Code *codes, Floats *keys) {
    const int c = P.channels, w = P.width;
    for (int y = 0; y < P.height; y++, codes += w * c, keys += P.stride() * c) {
        for (int i = 0; i < w * c; i++) keys[i] = to_floats(codes[i]);
        for (int i = w * c; i < P.stride() * c; i++) keys[i] = keys[(i - w * c) % (w * c)];
    }
}

}  // namespace

extern "C" {

int box_lanes() { return WIDTH; }
int box_side() { return SIDE; }

// Bytes of scratch memory for box_sums, which must be aligned to 64.
int64_t box_scratch(int symmetry, int height, int width, int channels, int radius) {
    const Problem P{symmetry, 0, height, width, channels};
    const int64_t vectors = (height * P.stride() + 2 * SIDE) * channels + (std::max(2 * radius + 1, height) + 3) * row_size(P) +
                            P.pixels() * (1 + channels);
    return 4 * (WIDTH * vectors + P.pixels() + width + 2 * SIDE);
}

// Sum over work items [item_from, item_to). An item is one row shift of one block of WIDTH images; there are
// `row_shifts` items to a block, the first with dy = first_shift. Where symmetry allows no shifts, an item is SIDE
// blocks.
//
// codes: (blocks, height, width, channels, WIDTH), bytes if there are levels (256), else floats. pixels, moved: (batch, height, width, channels).
// signal, precision, trust: (batch,). reference: (batch, pixels), starting at 1e29; total: the same, starting at
// 0; weighted: (..., channels), in units of codes.
void box_sums(int symmetry, int wraps, int height, int width, int channels, int radius, const void *codes, const float *levels,
              double offset, double slope, int64_t images, int batch, const float *pixels, const float *moved,
              const double *signal, const double *precision, const float *trust, float skip, int first_shift,
              int row_shifts, int64_t item_from, int64_t item_to, char *scratch, float *reference, double *total,
              double *weighted) {
    const Problem P{symmetry, wraps, height, width, channels};
    const int groups = symmetry == OWN_POSITION ? SIDE : 1;
    const int64_t size = P.pixels(), numbers = size * channels, at_once = symmetry == OWN_POSITION ? UNSHIFTED_AT_ONCE : 1;
    Scratch S;
    Floats *keys = (Floats *)scratch + SIDE * channels;
    S.keys = keys;
    S.ring = keys + ((int64_t)height * P.stride() + SIDE) * channels;
    S.prefix = S.ring + std::max(2 * radius + 1, height) * row_size(P);
    S.column = S.prefix + row_size(P);
    S.suffix = S.column + row_size(P);
    S.sums = S.suffix + row_size(P);
    S.penalty = (float *)(S.sums + size * (1 + channels)) + SIDE;
    float *before = S.penalty + width + SIDE;
    if (symmetry != OWN_POSITION) memset(scratch, 0, (char *)S.ring - scratch);
#if defined(__AVX512DQ__)
    const unsigned status = _mm_getcsr();
    _mm_setcsr(status | 0x8040);  // weights below 2^-126 are zero: computing with such numbers is slow
#endif
    for (int64_t from = item_from, to; from < item_to; from = to) {
        to = std::min(item_to, (from / row_shifts + at_once) * row_shifts);
        for (int b = 0; b < batch; b++) {
            const State state{reference + b * size, total + b * size, weighted + b * numbers};
            const Query Q{pixels + b * numbers, moved + b * numbers, signal[b], precision[b], offset, slope, levels,
                          (float)(signal[b] * slope), -(float)precision[b], skip, trust[b]};
            memcpy(before, state.reference, sizeof(float) * size);
            memset(S.sums, 0, sizeof(Floats) * size * (1 + channels));
            for (int64_t item = from, end; item < to; item = end) {
                const int64_t block = item / row_shifts, first = block * groups * WIDTH;
                end = std::min(to, (block + 1) * row_shifts);
                const int dy_from = first_shift + (int)(item % row_shifts), dy_to = dy_from + (int)(end - item);
                const int held = (int)std::min<int64_t>(images - first, groups * WIDTH);
                const char *stored = (const char *)codes + first * numbers * (levels ? 1 : 4);
                if (symmetry == OWN_POSITION) S.keys = stored;
                else if (b == 0 && levels) decode(P, (const Bytes *)stored, keys);
                else if (b == 0) decode(P, (const Floats *)stored, keys);
                if (channels == 1) add_block<1>(P, Q, S, levels, state.reference, held, radius, dy_from, dy_to);
                else if (channels == 3) add_block<3>(P, Q, S, levels, state.reference, held, radius, dy_from, dy_to);
                else add_block<0>(P, Q, S, levels, state.reference, held, radius, dy_from, dy_to);
            }
            settle(P, S, before, state);
        }
    }
#if defined(__AVX512DQ__)
    _mm_setcsr(status);
#endif
}
}
