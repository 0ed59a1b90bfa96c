// Posterior means over patches by box sums.
//
// For one training image and one shift (dy, dx), the squared difference of the noisy pixel u and the training
// pixel u + d is computed once; every window is then a box sum of it, kept by running sums, so the cost per
// (pixel, patch) pair does not grow with the window. LANES training images are worked on side by side.
//
// Differences are float32, from inputs that are exact (sqrt(alpha_bar) in two parts), so each square is good to a few
// units in its last place. Running sums are double: adding and later subtracting the same float32 is then exact
// to 2^-53 of the largest sum, so nothing drifts. Weights are float32 relative to the best patch so far.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace {

constexpr int WIDTH = 16;  // floats in a vector
constexpr int GROUP = 4;   // vectors side by side
constexpr int LANES = WIDTH * GROUP;

typedef float Floats __attribute__((vector_size(4 * WIDTH)));
typedef int32_t Ints __attribute__((vector_size(4 * WIDTH)));
typedef float HalfFloats __attribute__((vector_size(2 * WIDTH)));
typedef double Doubles __attribute__((vector_size(4 * WIDTH)));
#define INLINE static inline __attribute__((always_inline))

constexpr float FLOOR = -64.f;      // log2 of the smallest weight: below the rounding of any sum
constexpr float HEADROOM = 20.f;    // how far a weight may exceed the reference before it is moved
constexpr double NOTHING = 1e300;   // the smallest box so far, before the first

INLINE Doubles low(Floats a) {
    return __builtin_convertvector(__builtin_shufflevector(a, a, 0, 1, 2, 3, 4, 5, 6, 7), Doubles);
}
INLINE Doubles high(Floats a) {
    return __builtin_convertvector(__builtin_shufflevector(a, a, 8, 9, 10, 11, 12, 13, 14, 15), Doubles);
}
INLINE Floats join(Doubles a, Doubles b) {
    HalfFloats x = __builtin_convertvector(a, HalfFloats), y = __builtin_convertvector(b, HalfFloats);
    return __builtin_shufflevector(x, y, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}
INLINE Floats splat(float a) { return Floats{} + a; }
INLINE Floats max(Floats a, Floats b) { return a > b ? a : b; }
INLINE double sum(Floats a) {
    const Doubles b = low(a) + high(a);
    return ((b[0] + b[4]) + (b[1] + b[5])) + ((b[2] + b[6]) + (b[3] + b[7]));
}
#if defined(__AVX512F__)
INLINE bool any_above(Floats a, float bound) {
    return _mm512_cmp_ps_mask((__m512)a, _mm512_set1_ps(bound), _CMP_GT_OQ) != 0;
}
#else
INLINE bool any_above(Floats a, float bound) {
    Ints above = a > splat(bound);
    int64_t words[WIDTH / 2], some = 0;
    memcpy(words, &above, sizeof above);
    for (int i = 0; i < WIDTH / 2; i++) some |= words[i];
    return some != 0;
}
#endif

// 2^e for e < 126, relative error 2e-7; e below FLOOR counts as FLOOR.
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

// i modulo n, for i a few n away at most.
INLINE int wrapped(int i, int n) {
    while (i < 0) i += n;
    while (i >= n) i -= n;
    return i;
}

enum Symmetry { OWN_POSITION = 0, SAME_BORDER = 1, EVERYWHERE = 2, INSIDE = 3 };

struct Range {
    int from, to;
    bool empty() const { return from >= to; }
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
    int symmetry, wraps, height, width, channels, windows;
    const int32_t *radii;
    int direct;  // one window of radius 1 or 2, summed in float32
};

// The sums of one query and one window: the smallest box so far, and the weights and weighted values relative to it.
struct State {
    double *smallest, *total, *weighted;
};

struct Query {
    const float *pixels;  // (height, width, channels)
    double signal, precision;
    float skip;  // log2 of the weight, relative to the largest, below which patches are left out
};

struct Block {
    const Floats *keys;  // (height, width, channels, LANES)
    Doubles bias[2 * GROUP];  // 0, or huge where a lane is empty
    Floats float_bias[GROUP];
};

struct Scratch {
    Floats *plane;    // (height, width, LANES): squared differences at one shift
    Doubles *column;  // (width, LANES): their sums over the rows of the window
    Floats *sums;     // (windows, height * width, 1 + channels, WIDTH)
};

// The squared difference of pixel (y, x) and key (y + dy, x + dx), summed over channels.
template <int C>
INLINE void square_difference(const Problem &P, const Block &B, const float *query, Floats s, Floats rest, int y, int x,
                              int key_row, int dx, Floats *out) {
    const int c = C ? C : P.channels;
    const float *q = query + (y * P.width + x) * c;
    const Floats *k = B.keys + (key_row * P.width + wrapped(x + dx, P.width)) * c * GROUP;
    for (int g = 0; g < GROUP; g++) {
        Floats d = q[0] - s * k[g] - rest * k[g];
        out[g] = d * d;
    }
    for (int j = 1; j < c; j++)
        for (int g = 0; g < GROUP; g++) {
            Floats d = q[j] - s * k[j * GROUP + g] - rest * k[j * GROUP + g];
            out[g] += d * d;
        }
}

template <int C>
INLINE void square_differences(const Problem &P, const Block &B, const Query &Q, Floats *plane, int dy, int dx,
                               Range rows, Range columns) {
    const Floats s = splat((float)Q.signal), rest = splat((float)(Q.signal - (float)Q.signal));
    for (int y = rows.from; y < rows.to; y++)
        for (int x = columns.from; x < columns.to; x++)
            square_difference<C>(P, B, Q.pixels, s, rest, y, x, wrapped(y + dy, P.height), dx,
                                 plane + (y * P.width + x) * GROUP);
}

// Weigh LANES patches against one query pixel. `exponent(g)` is the log2-weight of a vector of them relative to
// `smallest`, `least()` the smallest of their boxes.
template <int C, class Exponent, class Least>
INLINE void weigh(const Problem &P, const Query &Q, double &smallest, Floats *sums, const Floats *values,
                  Exponent exponent, Least least) {
    const int c = C ? C : P.channels;
    Floats e[GROUP], top;
    auto exponents = [&] {
        for (int g = 0; g < GROUP; g++) e[g] = exponent(g);
        top = e[0];
        for (int g = 1; g < GROUP; g++) top = max(top, e[g]);
    };
    exponents();
    if (!any_above(top, Q.skip)) return;
    if (__builtin_expect(any_above(top, HEADROOM), 0)) {
        const double box = least(), fall = (box - smallest) * Q.precision;
        const float kept = fall < FLOOR ? 0.f : (float)std::exp2(fall);
        for (int j = 0; j <= c; j++) sums[j] *= kept;
        smallest = box;
        exponents();
    }
    Floats weights[GROUP], total = Floats{};
    for (int g = 0; g < GROUP; g++) {
        weights[g] = exp2(e[g]);
        total += weights[g];
    }
    sums[0] += total;
    for (int j = 0; j < c; j++) {
        Floats weighted = Floats{};
        for (int g = 0; g < GROUP; g++) weighted += weights[g] * values[j * GROUP + g];
        sums[1 + j] += weighted;
    }
}

template <bool ADD, bool DROP>
INLINE void slide(Doubles *column, const Floats *added, const Floats *dropped) {
    for (int g = 0; g < GROUP; g++) {
        Doubles a = column[2 * g], b = column[2 * g + 1];
        if (ADD) a += low(added[g]), b += high(added[g]);
        if (DROP) a -= low(dropped[g]), b -= high(dropped[g]);
        column[2 * g] = a, column[2 * g + 1] = b;
    }
}

// Sum the boxes of one window size at one shift, and weigh them. `rows`, `columns` are the query pixels.
template <int C>
INLINE void sum_boxes(const Problem &P, const Block &B, const Scratch &S, const Query &Q, int r, int dy, int dx,
                      Range rows, Range columns, double *smallest, Floats *sums) {
    const int c = C ? C : P.channels, h = P.height, w = P.width;
    const Range around = P.wraps ? Range{0, w} : Range{std::max(columns.from - r, 0), std::min(columns.to + r, w)};
    auto plane_row = [&](int y) -> const Floats * {  // null where zeros lie
        if (P.wraps) return S.plane + wrapped(y, h) * w * GROUP;
        return y < 0 || y >= h ? nullptr : S.plane + y * w * GROUP;
    };
    auto column = [&](int x) -> const Doubles * {
        if (P.wraps) return S.column + wrapped(x, w) * 2 * GROUP;
        return x < 0 || x >= w ? nullptr : S.column + x * 2 * GROUP;
    };
    for (int x = around.from; x < around.to; x++)
        for (int i = 0; i < 2 * GROUP; i++) S.column[x * 2 * GROUP + i] = Doubles{};
    for (int y = rows.from - r; y < rows.from + r; y++)
        if (const Floats *added = plane_row(y))
            for (int x = around.from; x < around.to; x++)
                slide<true, false>(S.column + x * 2 * GROUP, added + x * GROUP, nullptr);
    for (int y = rows.from; y < rows.to; y++) {
        const Floats *added = plane_row(y + r), *dropped = y > rows.from ? plane_row(y - r - 1) : nullptr;
        for (int x = around.from; x < around.to; x++) {
            Doubles *a = S.column + x * 2 * GROUP;
            if (added && dropped) slide<true, true>(a, added + x * GROUP, dropped + x * GROUP);
            else if (added) slide<true, false>(a, added + x * GROUP, nullptr);
            else if (dropped) slide<false, true>(a, nullptr, dropped + x * GROUP);
        }
        Doubles box[2 * GROUP];
        for (int i = 0; i < 2 * GROUP; i++) box[i] = B.bias[i];
        auto enter = [&](int x) {
            if (const Doubles *a = column(x))
                for (int i = 0; i < 2 * GROUP; i++) box[i] += a[i];
        };
        for (int x = columns.from - r; x < columns.from + r; x++) enter(x);
        const int key_row = wrapped(y + dy, h);
        for (int x = columns.from; x < columns.to; x++) {
            enter(x + r);
            if (x > columns.from)
                if (const Doubles *a = column(x - r - 1))
                    for (int i = 0; i < 2 * GROUP; i++) box[i] -= a[i];
            const int pixel = y * w + x, key = key_row * w + wrapped(x + dx, w);
            double &best = smallest[pixel];
            auto exponent = [&](int g) {
                return join((best - box[2 * g]) * Q.precision, (best - box[2 * g + 1]) * Q.precision);
            };
            auto least = [&] {
                double low = NOTHING;
                for (int i = 0; i < 2 * GROUP; i++)
                    for (int l = 0; l < WIDTH / 2; l++) low = std::min(low, box[i][l]);
                return low;
            };
            weigh<C>(P, Q, best, sums + pixel * (1 + c), B.keys + key * c * GROUP, exponent, least);
        }
    }
}

// The same for a small window of radius R in float32, whose few terms are added one by one: nothing is ever
// subtracted, so the sum is good to a few units in its last place.
template <int C, int R>
INLINE void add_boxes(const Problem &P, const Block &B, const Scratch &S, const Query &Q, int dy, int dx, Range rows,
                      Range columns, double *smallest, Floats *sums) {
    const int c = C ? C : P.channels, h = P.height, w = P.width, span = 2 * R + 1;
    const int stride = (w + 2 * R) * GROUP, left = columns.from - R, right = columns.to + R;
    const Floats s = splat((float)Q.signal), rest = splat((float)(Q.signal - (float)Q.signal));
    Floats *ring = S.plane, *column = (Floats *)S.column;
    for (int y = rows.from - R, slot = 0; y < rows.to + R; y++, slot = slot + 1 == span ? 0 : slot + 1) {
        Floats *row = ring + slot * stride;
        const bool outside = !P.wraps && (y < 0 || y >= h);
        const int from = outside ? right : P.wraps ? left : std::max(left, 0);
        const int to = outside ? right : P.wraps ? right : std::min(right, w);
        for (int i = 0; i < (from - left) * GROUP; i++) row[i] = Floats{};
        if (!outside) {
            const int query_row = wrapped(y, h), key_row = wrapped(y + dy, h);
            for (int x = from; x < to; x++)
                square_difference<C>(P, B, Q.pixels, s, rest, query_row, wrapped(x, w), key_row, dx,
                                     row + (x - left) * GROUP);
        }
        for (int i = (to - left) * GROUP; i < (right - left) * GROUP; i++) row[i] = Floats{};
        if (y < rows.from + R) continue;
        for (int i = 0; i < (right - left) * GROUP; i++) {
            Floats a = ring[i];
            for (int j = 1; j < span; j++) a += ring[j * stride + i];
            column[i] = a;
        }
        const int out = y - R, key_row = wrapped(out + dy, h);
        for (int x = columns.from; x < columns.to; x++) {
            const int pixel = out * w + x, key = key_row * w + wrapped(x + dx, w);
            Floats box[GROUP];
            for (int g = 0; g < GROUP; g++) {
                box[g] = B.float_bias[g];
                for (int j = 0; j < span; j++) box[g] += column[(x - columns.from + j) * GROUP + g];
            }
            double &best = smallest[pixel];
            const float precision = (float)Q.precision;
            auto exponent = [&](int g) { return ((float)std::min(best, 1e30) - box[g]) * precision; };
            auto least = [&] {
                float low = 1e30f;
                for (int g = 0; g < GROUP; g++)
                    for (int l = 0; l < WIDTH; l++) low = std::min(low, box[g][l]);
                return (double)low;
            };
            weigh<C>(P, Q, best, sums + pixel * (1 + c), B.keys + key * c * GROUP, exponent, least);
        }
    }
}

// Add one block to the sums of one query, for the row shifts in [dy_from, dy_to).
template <int C>
void add_block(const Problem &P, const Block &B, const Scratch &S, const Query &Q, int dy_from, int dy_to,
               const State *states) {
    const int c = C ? C : P.channels, pixels = P.height * P.width;
    for (int dy = dy_from; dy < dy_to; dy++)
        for (int dx = -P.width + 1; dx < P.width; dx++) {
            if (P.direct) {
                const int r = P.radii[0];
                const Range a = partners(P.symmetry, P.height, r, dy), b = partners(P.symmetry, P.width, r, dx);
                if (a.empty() || b.empty()) continue;
                if (r == 1) add_boxes<C, 1>(P, B, S, Q, dy, dx, a, b, states[0].smallest, S.sums);
                else add_boxes<C, 2>(P, B, S, Q, dy, dx, a, b, states[0].smallest, S.sums);
                continue;
            }
            Range rows{P.height, 0}, columns{P.width, 0};
            for (int i = 0; i < P.windows; i++) {
                const int r = P.radii[i];
                const Range a = partners(P.symmetry, P.height, r, dy), b = partners(P.symmetry, P.width, r, dx);
                if (a.empty() || b.empty()) continue;
                rows = {std::min(rows.from, a.from - r), std::max(rows.to, a.to + r)};
                columns = {std::min(columns.from, b.from - r), std::max(columns.to, b.to + r)};
            }
            if (rows.empty() || columns.empty()) continue;
            rows = P.wraps ? Range{0, P.height} : Range{std::max(rows.from, 0), std::min(rows.to, P.height)};
            columns = P.wraps ? Range{0, P.width} : Range{std::max(columns.from, 0), std::min(columns.to, P.width)};
            square_differences<C>(P, B, Q, S.plane, dy, dx, rows, columns);
            for (int i = 0; i < P.windows; i++) {
                const int r = P.radii[i];
                const Range a = partners(P.symmetry, P.height, r, dy), b = partners(P.symmetry, P.width, r, dx);
                if (!a.empty() && !b.empty())
                    sum_boxes<C>(P, B, S, Q, r, dy, dx, a, b, states[i].smallest, S.sums + i * pixels * (1 + c));
            }
        }
}

// Move the float32 sums of a block into the double totals, which were relative to `before`.
void settle(const Problem &P, const Scratch &S, double precision, const double *before, const State *states) {
    const int c = P.channels, pixels = P.height * P.width;
    for (int i = 0; i < P.windows; i++)
        for (int p = 0; p < pixels; p++) {
            const double smallest = states[i].smallest[p], was = before[i * pixels + p];
            const double kept = was == smallest ? 1 : was == NOTHING ? 0 : std::exp2((smallest - was) * precision);
            const Floats *sums = S.sums + (i * pixels + p) * (1 + c);
            states[i].total[p] = states[i].total[p] * kept + sum(sums[0]);
            for (int j = 0; j < c; j++) {
                double &weighted = states[i].weighted[p * c + j];
                weighted = weighted * kept + sum(sums[1 + j]);
            }
        }
}

// Floats from the stored images: floats themselves, or bytes that stand for `levels`.
void decode(const void *codes, const float *__restrict levels, int64_t from, int64_t count, float *__restrict out) {
    if (!levels) {
        memcpy(out, (const float *)codes + from, sizeof(float) * count);
        return;
    }
    const uint8_t *__restrict bytes = (const uint8_t *)codes + from;
    for (int64_t i = 0; i < count; i++) out[i] = levels[bytes[i]];
}

}  // namespace

extern "C" {

int box_lanes() { return LANES; }

// Bytes of scratch memory for box_sums, which must be aligned to 64.
int64_t box_scratch(int height, int width, int channels, int windows) {
    const int64_t pixels = (int64_t)height * width;
    const int64_t plane = std::max(pixels, 5 * ((int64_t)width + 4));  // or the ring of rows of add_boxes
    return 4 * LANES * (pixels * channels + plane) + 8 * LANES * ((int64_t)width + 4) + 4 * WIDTH * windows * pixels * (1 + channels) +
           8 * windows * pixels;
}

// Sum over work items [item_from, item_to). An item is one block of LANES images and one row shift; there are
// `row_shifts` items to a block, the first with dy = -(row_shifts - 1) / 2, or 0 if `first_shift` says so.
//
// codes: (blocks, height, width, channels, LANES), bytes that `levels` turns into floats, or floats if it is null.
// queries: (batch, height, width, channels). signal, precision: (batch,), sqrt(alpha_bar) and log2(e) / (2 sigma^2).
// smallest: (batch, windows, pixels) starting at 1e300; total: the same; weighted: (..., channels).
void box_sums(int symmetry, int wraps, int height, int width, int channels, int windows, const int32_t *radii,
              int direct, const void *codes, const float *levels, int64_t images, int batch, const float *queries,
              const double *signal, const double *precision, float skip, int first_shift, int row_shifts,
              int64_t item_from, int64_t item_to, char *scratch, double *smallest, double *total, double *weighted) {
    const Problem P{symmetry, wraps, height, width, channels, windows, radii, direct};
    const int64_t pixels = (int64_t)height * width, numbers = pixels * channels;
    Floats *keys = (Floats *)scratch;
    Scratch S;
    S.plane = keys + numbers * GROUP;
    S.column = (Doubles *)(S.plane + std::max(pixels, 5 * ((int64_t)width + 4)) * GROUP);
    S.sums = (Floats *)(S.column + (width + 4) * 2 * GROUP);
    double *before = (double *)(S.sums + windows * pixels * (1 + channels));
    for (int64_t item = item_from; item < item_to;) {
        const int64_t block = item / row_shifts, end = std::min(item_to, (block + 1) * row_shifts);
        const int dy_from = first_shift + (int)(item % row_shifts), dy_to = dy_from + (int)(end - item);
        item = end;
        Block B;
        decode(codes, levels, block * numbers * LANES, numbers * LANES, (float *)keys);
        B.keys = keys;
        for (int i = 0; i < 2 * GROUP; i++)
            for (int l = 0; l < WIDTH / 2; l++)
                B.bias[i][l] = block * LANES + i * (WIDTH / 2) + l < images ? 0 : 1e30;
        for (int g = 0; g < GROUP; g++) B.float_bias[g] = join(B.bias[2 * g], B.bias[2 * g + 1]);
        for (int b = 0; b < batch; b++) {
            State states[windows];
            for (int i = 0; i < windows; i++) {
                const int64_t at = ((int64_t)b * windows + i) * pixels;
                states[i] = {smallest + at, total + at, weighted + at * channels};
            }
            memcpy(before, states[0].smallest, sizeof(double) * windows * pixels);
            memset(S.sums, 0, sizeof(Floats) * windows * pixels * (1 + channels));
            const Query Q{queries + b * numbers, signal[b], precision[b], skip};
            if (channels == 1) add_block<1>(P, B, S, Q, dy_from, dy_to, states);
            else if (channels == 3) add_block<3>(P, B, S, Q, dy_from, dy_to, states);
            else add_block<0>(P, B, S, Q, dy_from, dy_to, states);
            settle(P, S, precision[b], before, states);
        }
    }
}
}
