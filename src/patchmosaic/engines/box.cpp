// Posterior means over patches by box sums.
//
// For one training image and one shift (dy, dx), the squared difference of the noisy pixel u and the training
// pixel u + d is computed once; every window is then a box sum of it, so the cost per (pixel, patch) pair hardly
// grows with the window. Groups of WIDTH training images are worked on side by side, at neighbouring shifts.
//
// Everything is float32, and nothing is ever subtracted from a sum. Of large windows every row is taken relative to what is
// expected of it (`Limits`), so sums of the patches that matter are small, and so is their rounding. Where it is not, the
// patches that matter are measured again in double (`measured`). Several windows at a time are summed in whole numbers
// (`Nested`).
//
// A second pass (TRACE) follows weights to where they come from, once it is known what they add up to.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include "threads.h"
#include "vectors.h"

namespace {

#define ALWAYS_INLINE __attribute__((always_inline))
#define INLINE_MEMBER inline ALWAYS_INLINE

constexpr float FLOOR = -64.f;     // log2 of the smallest weight: below the rounding of any sum
constexpr float HEADROOM = 20.f;   // how far a weight may exceed the reference before it is moved
constexpr float FAR = 1e37f;       // the box of a patch that does not exist
constexpr float UNKNOWN = 1e36f;   // the reference before the first patch
constexpr double ROUNDING = 1. / (1 << 24);  // of float32, relative
constexpr int QUEUE = 8;  // patches that wait to be measured
constexpr int SHIFTS = 2;  // neighbouring ones at a time
constexpr int GROUPS = SIDE / SHIFTS;  // of images, at these
constexpr int UNSHIFTED_AT_ONCE = 256;  // items before float32 sums are moved to double, where there are no shifts
constexpr int ROWS = 6;  // of scratch, beside those of sums
constexpr double MOST_UNITS = 1 << 22;  // to a bit, of sums in whole numbers
constexpr double FINE_UNITS = 1 << 17;  // of the finer ones
constexpr int SHIFTS_FOLLOWED_AT_ONCE = 8;  // of rows, before the same where weights are followed

INLINE Floats to_floats(Floats a) { return a; }
INLINE Ints max(Ints a, Ints b) { return a > b ? a : b; }
INLINE double sum(Floats a) { return sum(folded(a)); }
// Sums of every N-th lane.
template <int N>
INLINE std::array<double, N> sums_in_turns(Floats a) {
    typedef double Turn __attribute__((vector_size(8 * N)));
    const Doubles halves[2] = {low(a), high(a)};
    Turn turns[WIDTH / N], sum = {};
    memcpy(turns, halves, sizeof halves);
    for (const Turn &turn : turns) sum += turn;
    std::array<double, N> sums;
    memcpy(&sums, &sum, sizeof sum);
    return sums;
}
// 2^e for whole e < 1024; 0 below -1022.
INLINE double power_of_2(double e) {
    const int64_t bits = (int64_t)(std::max(e, -1023.) + 1023) << 52;
    double power;
    memcpy(&power, &bits, sizeof power);
    return power;
}
#if defined(__AVX512F__)
INLINE bool any(Ints a) { return _mm512_test_epi32_mask((__m512i)a, (__m512i)a) != 0; }
INLINE Floats to_floats(Bytes a) { return (Floats)_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32((__m128i)a)); }
INLINE bool any_above(Floats a, float bound) {
    return _mm512_cmp_ps_mask((__m512)a, _mm512_set1_ps(bound), _CMP_GT_OQ) != 0;
}
INLINE bool any_at_most(Floats a, float bound) {
    return _mm512_cmp_ps_mask((__m512)a, _mm512_set1_ps(bound), _CMP_LE_OQ) != 0;
}
INLINE bool any_above(Ints a, int32_t bound) {
    return _mm512_cmpgt_epi32_mask((__m512i)a, _mm512_set1_epi32(bound)) != 0;
}
#else
INLINE bool any(Ints a) {
#if defined(__AVX2__)
    return _mm256_movemask_ps((__m256)a) != 0;
#elif defined(__SSE2__)
    return _mm_movemask_ps((__m128)a) != 0;
#else
    int64_t words[WIDTH / 2], some = 0;
    memcpy(words, &a, sizeof a);
    for (int64_t word : words) some |= word;
    return some != 0;
#endif
}
INLINE Floats to_floats(Bytes a) {
#if defined(__AVX2__)
    return (Floats)_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128((int64_t)a)));
#elif defined(__SSE2__)
    const __m128i zero = _mm_setzero_si128(), bytes = _mm_cvtsi32_si128((int32_t)a);
    return (Floats)_mm_cvtepi32_ps(_mm_unpacklo_epi16(_mm_unpacklo_epi8(bytes, zero), zero));
#else
    return __builtin_convertvector(a, Floats);
#endif
}
INLINE bool any_above(Floats a, float bound) { return any(a > splat(bound)); }
INLINE bool any_at_most(Floats a, float bound) { return any(a <= splat(bound)); }
INLINE bool any_above(Ints a, int32_t bound) { return any(a > Ints{} + bound); }
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
    int radius;  // of the window
    int64_t pixels() const { return (int64_t)height * width; }
    int span() const { return 2 * radius + 1; }
    // Whether rows are summed first and taken relative to what is expected of them; not where the same rounding comes time
    // and again.
    bool is_large() const { return radius > 2 && !(wraps && span() > 2 * std::min(height, width)); }
    int stride() const { return width + SHIFTS - 1; }  // columns in a row of keys: the first ones follow the last
};

// Vectors from one row of scratch to the next: enough for the columns that windows of a row of pixels see, and no multiple
// of a page, on which the processor would take a load from one row for a load of what was just stored in another.
int64_t row_size(const Problem &P) { return ((int64_t)(P.width + 2 * P.radius) * SIDE + 63) / 64 * 64 + 17; }

// Rows of scratch for sums: as many as the image has, or as come before the last row of a small window.
int ring_rows(const Problem &P) { return std::max(4, P.height); }

// Vectors of scratch from a row of sums over an image to the next, and of all of them.
int64_t plane_row_size(const Problem &P) { return (P.width + 1) * SIDE + 17; }
int64_t plane_size(const Problem &P) { return (P.height + 1) * plane_row_size(P); }

// Keys of GROUPS blocks, or of SIDE, where there are no shifts.
int64_t hashed_keys(const Problem &P) { return std::max(GROUPS * P.height * (int64_t)P.stride(), SIDE * P.pixels()); }

// Of a noise level.
struct Noise {
    double signal, precision;  // sqrt(alpha_bar); log2(e) / (2 sigma^2)
    double unit, stretch;      // see Query
};

// How well float32 measures boxes of a noisy image: each differs from what is expected of its window by `bits`, times the
// precision, and what is expected comes to `expected` bits.
struct Limits {
    double each;     // expected of a squared difference of two pixels, stretched
    double trust;    // the largest |bits| that are good enough
    double units;    // to a bit, of boxes in whole numbers; 0 where they are floats
    double grain;    // bits that these boxes err by, at most
    bool coarse;     // whether that is too much
    double share;    // the rounding of a sum is at most so much of all that is added up,
    double spread;   // and that of the noisy pixels moves the root of a box by so much
    double least, steep;  // see below

    // What the difference of two boxes may err by, in bits: no more than least + steep * bits, a tangent to this.
    double margin(double precision, double bits, double expected) const {
        const double box = std::max(bits + expected, 0.);
        return 2 * (share * (box + 2 * expected) + 2 * spread * std::sqrt(precision * box) + precision * spread * spread + grain);
    }
};

// One noisy image. A training pixel with code k has the value levels[k], or, but for rounding, offset + slope * k, so
// that pixel - signal * value = (pixel - signal * offset) - (signal * slope) * k = (moved - unit * k) / stretch, where unit is
// the power of two below signal * slope and stretch what makes up for it: a key, unit * k, is exact. Boxes are stretched, too.
struct Query {
    const float *pixels, *moved;  // (height, width, channels)
    const double *expected;       // (height, width), of windows, in bits
    Limits limits;
    double signal, precision, stretch;
    const float *levels;  // null where codes are the values
    float unit, fall;  // fall: -precision, of stretched boxes
    float skip;   // log2 of the weight, relative to the largest, below which patches are left out
    float floor, steep;  // that, for exponents that err: floor - steep * reference

    bool trusted(double bits) const { return std::abs(bits) <= limits.trust; }
    // What patches may be farther than the best one, of so many bits, and yet matter.
    double reach(int64_t pixel, double bits) const { return limits.margin(precision, bits, expected[pixel]) - skip; }
};

// Of a window's codes, lane by lane: windows that differ share it once in 2^60 or so.
struct Hash {
    Words a, b;
};

// A patch among the nearest to a pixel. Nearer ones come first, then the smallest image, then the smallest position.
struct Kept {
    double distance, weight;  // as measured; as summed
    int32_t image, position;
    uint32_t hash[2];
    bool before(const Kept &other) const {
        if (distance != other.distance) return distance < other.distance;
        return image != other.image ? image < other.image : position < other.position;
    }
};

// The nearest patches of one query, and what is left of them for the whole image.
struct Trail {
    int64_t k;
    const float *enough;   // by pixel: farther patches are left out of the weights
    const double *share;   // by pixel: what turns weights into shares of all weight
    float *limit;          // by pixel: patches with larger boxes in float32 are not among the k nearest
    Kept *kept;            // (pixels, k)
    double *by_image;      // shares of an image, over all pixels

    const Kept &last(int64_t pixel) const { return kept[pixel * k + k - 1]; }

    void insert(const Query &Q, int64_t pixel, const Kept &found) const {
        Kept *kept = this->kept + pixel * k;
        int64_t i = k - 1;
        if (!found.before(kept[i])) return;
        for (; i > 0 && found.before(kept[i - 1]); i--) kept[i] = kept[i - 1];
        kept[i] = found;
        const double root = std::sqrt(last(pixel).distance) + Q.limits.spread, share = Q.limits.share;
        const double box = (1 + share) * root * root - (1 - 2 * share) * Q.expected[pixel] / Q.precision;
        limit[pixel] = (float)std::min((double)UNKNOWN, box * Q.stretch * Q.stretch);
    }
};

// A patch whose box float32 does not measure well enough. Up to QUEUE of a pixel wait until more is known, because most are
// soon found not to matter. Once there were more they are measured as they come: their number is -1.
struct Waiting {
    float bits;  // of the box in float32
    int32_t image, position;
};

// Sums of a pixel, of weights and of weighted codes: one and all channels in the lanes of a vector, in turns, or a vector each.
constexpr bool is_packed(int channels) { return channels == 1 || channels == 3; }
constexpr int sum_vectors(int channels) { return is_packed(channels) ? 1 : 1 + channels; }

// What is known of a query so far: by pixel a reference near the smallest box, in whole bits, and the sums of weights
// 2^(reference - bits) and of weighted codes, which lose nothing when the reference moves. Bits of a box are the precision
// times it, less what is expected.
struct Totals {
    double *reference;
    Floats *sums;        // (pixels, sum_vectors); where weights are followed, (pixels, 1 + groups)
    const Trail *trail;  // where they are
    int32_t *queued;     // by pixel: how many patches wait, where weights are not followed
    Waiting *waiting;    // (pixels, QUEUE)
};

// What exponents of a pixel start from, in units: those up to `least` are left out, those above `most` are looked at again.
struct Mark {
    int32_t reference, fine_reference, least, most;
};

struct Scratch {
    const void *codes;  // as stored, of all images
    int64_t first;      // the image in the first lane
    const void *keys;   // unit * code, (groups, height, columns, channels); where there are no shifts, the codes
    int columns;
    Hash *hashes;      // of the window of each key, where `hashed`
    uint8_t *hashed;
    Floats *ring;      // rows of sums across rows
    Floats *ends, *squares, *suffix, *more;  // rows, ROWS in all
    const float *penalty;  // by column of the key: FAR where its window crosses the border, else 0
    Mark *marks;           // by pixel, of nested windows
};

// Every number of a pixel's window and of one of a training image, in one order, to visit(i, at): their indices.
template <class Visit>
INLINE void each_number(const Problem &P, int y, int x, int position, Visit visit) {
    const int c = P.channels, h = P.height, w = P.width, r = P.radius, key_row = position / w, key_column = position % w;
    for (int a = -r; a <= r; a++) {
        if (!P.wraps && (y + a < 0 || y + a >= h)) continue;
        const int row = wrapped(y + a, h), there = wrapped(key_row + a, h);
        const int stop = P.wraps ? r + 1 : std::min(r + 1, w - x);
        for (int b = P.wraps ? -r : std::max(-r, -x); b < stop;) {
            const int qx = wrapped(x + b, w), kx = wrapped(key_column + b, w);
            const int run = std::min({stop - b, w - qx, w - kx});
            const int64_t i = (int64_t)(row * w + qx) * c, at = (int64_t)(there * w + kx) * c;
            for (int n = 0; n < run * c; n++) visit(i + n, at + n);
            b += run;
        }
    }
}

// A stored number of a training image, as a code.
INLINE float stored(const Problem &P, const Query &Q, const void *codes, int64_t image, int64_t number) {
    const int64_t at = (image / WIDTH * P.pixels() * P.channels + number) * WIDTH + image % WIDTH;
    return Q.levels ? ((const uint8_t *)codes)[at] : ((const float *)codes)[at];
}

// The squared difference of a pixel's window and one of a training image, in double, and in one order, so that equal
// patches are equally far to the last bit.
__attribute__((noinline)) double distance(const Problem &P, const Query &Q, const void *codes, int64_t pixel, int64_t image,
                                          int64_t position) {
    double sum = 0, other = 0;  // in turns, so that one need not wait for the other
    const int64_t first = image / WIDTH * P.pixels() * P.channels * WIDTH + image % WIDTH;
    auto add = [&](auto value) ALWAYS_INLINE {
        each_number(P, (int)(pixel / P.width), (int)(pixel % P.width), (int)position, [&](int64_t i, int64_t at) ALWAYS_INLINE {
            const double d = Q.pixels[i] - Q.signal * value(first + at * WIDTH);
            const double last = sum;
            sum = other + d * d;
            other = last;
        });
    };
    if (Q.levels) add([&](int64_t at) ALWAYS_INLINE { return Q.levels[((const uint8_t *)codes)[at]]; });
    else add([&](int64_t at) ALWAYS_INLINE { return ((const float *)codes)[at]; });
    return sum + other;
}

// The same in bits. They are rounded here, once: a product that is left to where it is subtracted may not be rounded
// at all, and boxes far away would differ by that from the reference.
__attribute__((noinline)) double measured(const Problem &P, const Query &Q, const void *codes, int64_t pixel, int64_t image,
                                          int64_t position) {
    return distance(P, Q, codes, pixel, image, position) * Q.precision - Q.expected[pixel];
}

// T neighbouring column shifts of G groups of images: vector v is of group v / T, at shift v % T. Key is a vector of codes.
// Weights are summed, or, where TRACE, followed to where they come from.
template <class Key, int C, int T, int G, int R, bool TRACE = false>
struct Pass {
    static constexpr int V = T * G;
    static constexpr bool DECODED = G == GROUPS;  // keys are unit * code
    const Problem &P;
    const Query &Q;
    const Scratch &S;
    double *const reference;
    Floats *const sums;
    const Trail *const trail;
    int32_t *const queued;
    Waiting *const waiting;
    const int images;  // in these groups; lanes beyond are empty
    const int r;
    const Floats expected;  // of a pixel's squared difference, in large windows
    Floats empty[G] = {};  // 0, or FAR in empty lanes

    Pass(const Problem &P, const Query &Q, const Scratch &S, const Totals &totals, int images)
        : P(P), Q(Q), S(S), reference(totals.reference), sums(totals.sums), trail(totals.trail), queued(totals.queued),
          waiting(totals.waiting), images(images), r(P.radius), expected(splat((float)Q.limits.each)) {
        for (int i = images; i < WIDTH * G; i++) empty[i / WIDTH][i % WIDTH] = FAR;
    }

    INLINE_MEMBER int channels() const { return C ? C : P.channels; }

    INLINE_MEMBER const Key *key(int row, int column) const {
        return (const Key *)S.keys + (row * S.columns + column) * channels();
    }
    // From the first key to that of vector v.
    INLINE_MEMBER int64_t ahead(int v) const { return v / T * ((int64_t)P.height * S.columns) + v % T; }
    // Channel j of vector v, seen from the key of the first one.
    INLINE_MEMBER Floats number(const Key *key, int j, int v) const { return to_floats(key[ahead(v) * channels() + j]); }

    // The squared differences of a noisy pixel and the keys of all vectors.
    INLINE_MEMBER void square(const float *q, const Key *k, Floats *squares) const {
        for (int j = 0; j < channels(); j++) {
            const Floats pixel = splat(q[j]);
            for (int v = 0; v < V; v++) {
                const Floats d = pixel - (DECODED ? number(k, j, v) : splat(Q.unit) * number(k, j, v));
                squares[v] = j == 0 ? d * d : squares[v] + d * d;
            }
        }
    }

    // Squared differences between columns [from, to) of row y and the keys dx further on in key_row, to
    // `emit(i, v, square)` with i counted from `from`.
    template <class Emit>
    INLINE_MEMBER void differences(int y, int key_row, int dx, int from, int to, Emit emit) const {
        const int c = channels();
        for (int x = from; x < to;) {
            const int qx = P.wraps ? wrapped(x, P.width) : x, kx = P.wraps ? wrapped(x + dx, P.width) : x + dx;
            const int run = P.wraps ? std::min({to - x, P.width - qx, P.width - kx}) : to - x;
            const float *q = Q.moved + (y * P.width + qx) * c;
            const Key *k = key(key_row, kx);
            for (int i = x - from; i < x - from + run; i++, q += c, k += c) {
                Floats squares[V];
                square(q, k, squares);
                for (int v = 0; v < V; v++) emit(i, v, squares[v]);
            }
            x += run;
        }
    }

    // Every box of query rows x columns at the shifts (dy, dx), (dy, dx + 1), ..., `count` of them; `inside` if keys
    // whose windows cross the left or right border may not stand in.
    void run(int dy, int dx, int count, Range rows, Range columns, bool inside) const {
        if constexpr (R == 0) run_large(dy, dx, count, rows, columns, inside);
        else run_small(dy, dx, count, rows, columns, inside);
    }

    // A row of boxes, from left to right.
    struct Row {
        const Pass &pass;
        const int y, key_row, count, end;  // end: the column after which keys wrap around
        const bool some;                   // not all vectors and lanes are of use
        const Range clear;                 // keys whose windows do not cross a border that they must not
        int x, kx;
        const Key *k;

        INLINE_MEMBER Row(const Pass &pass, int y, int dy, int dx, int count, int column, bool inside)
            : pass(pass), y(y), key_row(wrapped(y + dy, pass.P.height)), count(count),
              end(pass.P.wraps ? pass.P.width : INT32_MAX), some(count < T || pass.images < WIDTH * G),
              clear(inside ? Range{pass.r, pass.P.width - pass.r - T} : Range{INT32_MIN, INT32_MAX}), x(column),
              kx(pass.P.wraps ? wrapped(column + dx, pass.P.width) : column + dx), k(pass.key(key_row, kx)) {}

        INLINE_MEMBER void add(Floats *box) {
            if (kx < clear.from || kx > clear.to)
                for (int v = 0; v < V; v++) box[v] += pass.S.penalty[kx + v % T];
            if (some)
                for (int v = 0; v < V; v++) box[v] += v % T < count ? pass.empty[v / T] : splat(FAR);
            if (TRACE) pass.follow(y, x, key_row, kx, box);
            else pass.weigh(y, x, key_row, kx, k, box);
            x++, kx++, k += pass.channels();
            if (kx == end) kx = 0, k = pass.key(key_row, 0);
        }
    };

    // Sums of 2 r + 1 squared differences in row y, less what is expected, around each of `columns`, from left to right to
    // emit(i, sums). Those left and right of `real` are as expected.
    template <class Emit>
    INLINE_MEMBER void add_across(int y, int key_row, int dx, Range columns, Range real, Emit emit) const {
        const int span = P.span(), m = columns.size(), left = columns.from - r, c = channels();
        Floats sum[V];
        auto begin = [&](int columns) ALWAYS_INLINE {  // so many fewer than expected
            for (int v = 0; v < V; v++) sum[v] = expected * -(float)columns;
        };
        auto add_expected = [&]() ALWAYS_INLINE {
            for (int v = 0; v < V; v++) sum[v] += expected;
        };
        auto store = [&](int i) ALWAYS_INLINE {
            for (int v = 0; v < V; v++) S.suffix[i * V + v] = sum[v];
        };
        // Squared differences of columns [from, to), counted from `left`, either way to visit(i, squares).
        auto each = [&](int from, int to, bool back, auto visit) ALWAYS_INLINE {
            while (from < to) {
                int qx = left + (back ? to - 1 : from), kx = qx + dx, run = to - from;
                if (P.wraps) {
                    qx = wrapped(qx, P.width), kx = wrapped(kx, P.width);
                    run = std::min({run, back ? qx + 1 : P.width - qx, back ? kx + 1 : P.width - kx});
                }
                const float *q = Q.moved + (y * P.width + qx) * c;
                const Key *k = key(key_row, kx);
                Floats squares[V];
                if (back) {
                    for (int i = to - 1; i >= to - run; i--, q -= c, k -= c) square(q, k, squares), visit(i, squares);
                    to -= run;
                } else {
                    for (int i = from; i < from + run; i++, q += c, k += c) square(q, k, squares), visit(i, squares);
                    from += run;
                }
            }
        };
        const int first = real.from - left, last = real.to - left;
        begin(std::min(span, last) - std::max(0, std::min(first, span) - m));
        each(std::max(m, first), std::min(span, last), true, [&](int, const Floats *squares) ALWAYS_INLINE {
            for (int v = 0; v < V; v++) sum[v] += squares[v];
        });
        each(first, std::min({m, span, last}), true, [&](int i, const Floats *squares) ALWAYS_INLINE {
            for (int v = 0; v < V; v++) sum[v] += squares[v];
            store(i);
        });
        for (int i = std::min(first, std::min(m, span)) - 1; i >= 0; i--) add_expected(), store(i);
        for (int base = 0;; base += span) {
            const int stop = std::min(base + span, m);
            const bool more = stop < m;
            emit(base, S.suffix + base * V);
            begin(0);
            auto finish = [&](int x) ALWAYS_INLINE {
                Floats whole[V];
                for (int v = 0; v < V; v++) whole[v] = S.suffix[x * V + v] + sum[v];
                emit(x, whole);
            };
            // the square of column i is the last one of the window of i - span + 1
            const int known = std::max(base + span, std::min(last, stop + span - 1));
            if (!more)
                each(base + span, known, false, [&](int i, const Floats *squares) ALWAYS_INLINE {
                    for (int v = 0; v < V; v++) sum[v] += squares[v];
                    finish(i - span + 1);
                });
            else
                each(base + span, known, false, [&](int i, const Floats *squares) ALWAYS_INLINE {
                    for (int v = 0; v < V; v++) {
                        sum[v] += squares[v];
                        S.squares[i * V + v] = squares[v];
                    }
                    finish(i - span + 1);
                });
            for (int x = known - span + 1; x < stop; x++) add_expected(), finish(x);
            if (!more) break;
            begin(std::min(span, last - stop));
            each(stop + span - 1, std::min(last, stop + span), false, [&](int, const Floats *squares) ALWAYS_INLINE {
                for (int v = 0; v < V; v++) sum[v] += squares[v];
            });
            if (stop + span - 1 < m) store(stop + span - 1);
            for (int i = std::min(known, stop + span - 1) - 1; i >= stop; i--) {
                for (int v = 0; v < V; v++) sum[v] += S.squares[i * V + v];
                if (i < m) store(i);
            }
        }
    }

    // Large windows. Rows of sums fall in segments of the window's height, and a window is the end of one segment and the
    // beginning of the next.
    void run_large(int dy, int dx, int count, Range rows, Range columns, bool inside) const {
        const int n = rows.size(), m = columns.size() * V, span = P.span(), left = columns.from - r;
        const int64_t stride = m + 17;
        const Range real = P.wraps ? Range{left, left + columns.size() + 2 * r}
                                   : Range{std::max(left, 0), std::min(P.width, columns.to + r)};
        Floats *const sum = S.ends;
        auto ends = [&](int i) { return S.ring + i * stride; };
        auto sums_of = [&](int i, auto emit, auto emit_none) ALWAYS_INLINE {
            int y = rows.from - r + i;
            if (!P.wraps && (y < 0 || y >= P.height)) return emit_none();
            y = wrapped(y, P.height);
            add_across(y, wrapped(y + dy, P.height), dx, columns, real, emit);
        };
        auto clear = [&](Floats *row) { memset(row, 0, sizeof(Floats) * m); };

        clear(sum);
        const Floats *before = sum;
        for (int i = span - 1; i >= 0; i--) {
            Floats *to = i < n ? ends(i) : sum;
            sums_of(
                i,
                [&](int x, const Floats *across) ALWAYS_INLINE {
                    for (int v = 0; v < V; v++) to[x * V + v] = before[x * V + v] + across[v];
                },
                [&] { if (to != before) memcpy(to, before, sizeof(Floats) * m); });
            before = to;
        }
        for (int base = 0;; base += span) {
            const int stop = std::min(span, n - base);
            const bool more = base + span < n;
            auto row_of = [&](int j) ALWAYS_INLINE { return Row(*this, rows.from + base + j, dy, dx, count, columns.from, inside); };
            auto finish = [&](Row &row, const Floats *a, const Floats *b) ALWAYS_INLINE {
                Floats box[V];
                for (int v = 0; v < V; v++) box[v] = a[v] + b[v];
                row.add(box);
            };
            clear(sum);
            Row row = row_of(0);
            for (int at = 0; at < m; at += V) finish(row, ends(0) + at, sum + at);
            for (int j = 1; j < stop; j++) {
                Row row = row_of(j);
                Floats *end = ends(j), *free = ends(j - 1);
                sums_of(
                    base + span + j - 1,
                    [&](int x, const Floats *across) ALWAYS_INLINE {
                        for (int v = 0; v < V; v++) {
                            sum[x * V + v] += across[v];
                            if (more) free[x * V + v] = across[v];
                        }
                        finish(row, end + x * V, sum + x * V);
                    },
                    [&] {
                        if (more) clear(free);
                        for (int at = 0; at < m; at += V) finish(row, end + at, sum + at);
                    });
            }
            if (!more) break;
            Floats *end = ends(span - 1);
            sums_of(
                base + 2 * span - 1,
                [&](int x, const Floats *across) ALWAYS_INLINE {
                    for (int v = 0; v < V; v++) end[x * V + v] = across[v];
                },
                [&] { clear(end); });
            for (int j = span - 2; j >= 0; j--)
                for (int at = 0; at < m; at++) ends(j)[at] += ends(j + 1)[at];
        }
    }

    // Small windows: across the rows first, and down the last few of them.
    INLINE_MEMBER void run_small(int dy, int dx, int count, Range rows, Range columns, bool inside) const {
        const int w = P.width, left = columns.from - r, length = columns.size() + 2 * r;
        const int from = P.wraps ? left : std::max(left, 0);
        const int to = P.wraps ? std::min(left + length, left + w) : std::min(left + length, w);
        const int64_t stride = row_size(P);
        auto complete = [&](Floats *row) {  // beside columns [from, to)
            for (int at = 0; at < (from - left) * V; at++) row[at] = Floats{};
            for (int at = (to - left) * V; at < length * V; at++) row[at] = P.wraps ? row[at - w * V] : Floats{};
        };
        auto squares_of = [&](int i) ALWAYS_INLINE {
            const int y = rows.from - R + i;
            Floats *row = S.squares + (from - left) * V;
            if (P.wraps || (y >= 0 && y < P.height))
                differences(wrapped(y, P.height), wrapped(y + dy, P.height), dx, from, to,
                            [&](int at, int v, Floats square) ALWAYS_INLINE { row[at * V + v] = square; });
            else memset(row, 0, sizeof(Floats) * (to - from) * V);
            complete(S.squares);
        };
        for (int i = 0; i < 2 * R; i++) {
            Floats *sums = S.ring + i * stride;
            squares_of(i);
            add_across(S.squares, columns.size(), [&](int at, const Floats *sum) ALWAYS_INLINE {
                for (int v = 0; v < V; v++) sums[at * V + v] = sum[v];
            });
        }
        for (int i = 0; i < rows.size(); i++) {
            Row row(*this, rows.from + i, dy, dx, count, columns.from, inside);
            Floats *last[2 * R];  // the sums across the rows before, the earliest first
            for (int j = 0; j < 2 * R; j++) last[j] = S.ring + (i + j) % (2 * R) * stride;
            squares_of(i + 2 * R);
            add_across(S.squares, columns.size(), [&](int x, const Floats *sum) ALWAYS_INLINE {
                Floats box[V];
                for (int v = 0; v < V; v++) {
                    const int at = x * V + v;
                    Floats others = last[0][at] + last[1][at];
                    if constexpr (R == 2) others += last[2][at] + last[3][at];
                    last[0][at] = sum[v];
                    box[v] = sum[v] + others;
                }
                row.add(box);
            });
        }
    }

    // Sums of 2 R + 1 neighbours in a row, `size` of them, to emit(at, sums).
    template <class Emit>
    INLINE_MEMBER void add_across(const Floats *row, int size, Emit emit) const {
        Floats two[V], next_two[V];  // two: the sum of the first two columns of a window of five
        if (R == 2)
            for (int v = 0; v < V; v++) {
                two[v] = row[v] + row[V + v];
                next_two[v] = row[V + v] + row[2 * V + v];
            }
        for (int at = 0; at < size; at++) {
            Floats sum[V];
            const Floats *a = row + at * V;
            for (int v = 0; v < V; v++) {
                if (R == 1) sum[v] = a[v] + a[V + v] + a[2 * V + v];
                else {
                    const Floats last_two = a[2 * V + v] + a[3 * V + v];
                    sum[v] = two[v] + last_two + a[4 * V + v];
                    two[v] = next_two[v];
                    next_two[v] = last_two;
                }
            }
            emit(at, sum);
        }
    }

    // Weigh V * WIDTH patches against one query pixel.
    INLINE_MEMBER void weigh(int y, int x, int key_row, int key_column, const Key *k, const Floats *box) const {
        const int64_t pixel = (int64_t)y * P.width + x;
        const Floats fall = splat(Q.fall), best = splat((float)reference[pixel]);
        Floats e[V], top;
        for (int v = 0; v < V; v++) {
            e[v] = multiply_add(box[v], fall, best);
            top = v == 0 ? e[0] : max(top, e[v]);
        }
        if (!any_above(top, least_exponent(pixel))) return;
        Floats *sums = sums_of(pixel);
        if (__builtin_expect(!Q.trusted(reference[pixel]) || any_above(top, HEADROOM), 0)) {
            Floats copy[V];  // only here need they be in memory
            for (int v = 0; v < V; v++) copy[v] = box[v];
            const float least = smallest(copy) * -Q.fall;
            if (!Q.trusted(least)) {
                postpone(y, x, key_row, key_column, copy, least);
                return;
            }
            if (least < reference[pixel]) move(least, pixel, sums);
            for (int v = 0; v < V; v++) e[v] = splat((float)reference[pixel]) + box[v] * fall;
        }
        for (int v = 0; v < V; v++) e[v] = exp2_of_any(e[v]);
        add(e, k, sums);
    }

    // What falls below is left out.
    INLINE_MEMBER float least_exponent(int64_t pixel) const {
        return Q.floor - Q.steep * (float)reference[pixel];
    }

    INLINE_MEMBER void add(const Floats *weights, const Key *k, Floats *sums) const {
        if constexpr (is_packed(C)) {
            Floats found[1 + C] = {sum_of<V>(weights)};
            for (int j = 0; j < C; j++) {
                found[1 + j] = weights[0] * number(k, j, 0);
                for (int v = 1; v < V; v++) found[1 + j] += weights[v] * number(k, j, v);
            }
            sums[0] += packed<1 + C>(found);
        } else {
            sums[0] += sum_of<V>(weights);
            for (int j = 0; j < channels(); j++) {
                Floats weighted = sums[1 + j];
                for (int v = 0; v < V; v++) weighted += weights[v] * number(k, j, v);
                sums[1 + j] = weighted;
            }
        }
    }

    INLINE_MEMBER Floats *sums_of(int64_t pixel) const { return sums + pixel * sum_vectors(channels()); }

    static float smallest(const Floats *box) {
        Floats least = box[0];
        for (int v = 1; v < V; v++) least = min(least, box[v]);
        return -largest(-least);
    }

    __attribute__((noinline)) void move(double to, int64_t pixel, Floats *sums) const {
        to = std::trunc(to);
        const float kept = (float)power_of_2(to - reference[pixel]);
        for (int i = 0; i < sum_vectors(channels()); i++) sums[i] *= kept;
        reference[pixel] = to;
    }

    // The same, of a pixel whose patches wait.
    void refer_to(double to, int64_t pixel) const {
        if (!Q.trusted(reference[pixel])) reference[pixel] = std::trunc(to);  // there are no sums yet
        else if (to < reference[pixel]) move(to, pixel, sums_of(pixel));
    }

    // Boxes that float32 does not measure well enough wait, or are measured in double.
    __attribute__((noinline)) void postpone(int y, int x, int key_row, int key_column, const Floats *box, float least) const {
        const int64_t pixel = (int64_t)y * P.width + x;
        if (queued[pixel] >= 0 && least < reference[pixel]) refer_to(least, pixel);
        const float enough = within_reach(pixel, least);
        for (int v = 0; v < V; v++) {
            const Floats bits = box[v] * -Q.fall;
            const Ints matters = bits < splat(enough);
            if (!any(matters)) continue;
            for (int l = 0; l < WIDTH; l++) {
                if (!matters[l]) continue;
                if (queued[pixel] == QUEUE) make_room(pixel);
                const Waiting found{bits[l], (int32_t)(image(v) + l), position(key_row, key_column, v)};
                if (queued[pixel] < 0) sum_one(pixel, found);
                else waiting[pixel * QUEUE + queued[pixel]++] = found;
            }
        }
    }

    // What bits are worth a look, where a patch of so many is known.
    float within_reach(int64_t pixel, double least) const {
        const double best = std::min(reference[pixel], least);
        return (float)(best + Q.reach(pixel, best));
    }

    // Of those that wait, only those that still matter. If that is all, they are measured, and the others as they come.
    void make_room(int64_t pixel) const {
        Waiting *first = waiting + pixel * QUEUE;
        const float enough = within_reach(pixel, UNKNOWN);
        queued[pixel] = (int)(std::remove_if(first, first + QUEUE, [&](auto &p) { return p.bits >= enough; }) - first);
        if (queued[pixel] < QUEUE) return;
        queued[pixel] = -1;
        double least = FAR;
        for (int i = 0; i < QUEUE; i++) least = std::min(least, measured(P, Q, S.codes, pixel, first[i].image, first[i].position));
        refer_to(least, pixel);
        for (int i = 0; i < QUEUE; i++) sum_one(pixel, first[i]);
    }

    // Measured in double.
    void sum_one(int64_t pixel, const Waiting &p) const {
        const double bits = measured(P, Q, S.codes, pixel, p.image, p.position);
        Floats *sums = sums_of(pixel);
        const float unit = DECODED ? Q.unit : 1;
        if (reference[pixel] - bits > HEADROOM) move(bits, pixel, sums);
        const float weight = std::exp2((float)(reference[pixel] - bits));
        auto add = [&](int j, float number) { is_packed(C) ? sums[0][j] += number : sums[j][0] += number; };
        add(0, weight);
        for (int j = 0; j < channels(); j++)
            add(1 + j, weight * unit * stored(P, Q, S.codes, p.image, (int64_t)p.position * channels() + j));
    }

    // Add V * WIDTH patches to what is known of where a query pixel's weight comes from.
    INLINE_MEMBER void follow(int y, int x, int key_row, int key_column, const Floats *box) const {
        const int64_t pixel = (int64_t)y * P.width + x;
        const float limit = trail->limit[pixel], enough = trail->enough[pixel];
        Floats least = box[0];
        for (int v = 1; v < V; v++) least = min(least, box[v]);
        if (!any_at_most(least, std::max(limit, enough))) return;
        Floats weights[V] = {};
        if (any_at_most(least, enough)) {
            Floats e[V];
            for (int v = 0; v < V; v++) e[v] = splat((float)reference[pixel]) + box[v] * splat(Q.fall);
            if (__builtin_expect(!Q.trusted(reference[pixel]), 0)) {
                Floats copy[V], again[V];
                for (int v = 0; v < V; v++) copy[v] = box[v], again[v] = e[v];
                follow_again(y, x, key_row, key_column, copy, again);
                for (int v = 0; v < V; v++) e[v] = again[v];
            }
            Floats *sums = this->sums + pixel * (1 + G), moments[V], totals[V];
            for (int v = 0; v < V; v++) {
                e[v] = max(e[v], splat(FLOOR));
                weights[v] = totals[v] = exp2_of_any(e[v]);
                moments[v] = weights[v] * e[v];
            }
            sums[0] += sum_of<V>(moments);
            for (int g = 0; g < G; g++) sums[1 + g] += sum_of<T>(totals + g * T);
        }
        if (!any_at_most(least, limit)) return;
        Ints some = {};
        for (int v = 0; v < V; v++) some |= candidates(pixel, key_row, key_column, v, box[v]);
        if (__builtin_expect(!any(some), 1)) return;
        Floats copy[V], weights_copy[V];
        for (int v = 0; v < V; v++) copy[v] = box[v], weights_copy[v] = weights[v];
        keep(y, x, key_row, key_column, copy, weights_copy);
    }

    // Exponents of boxes that float32 does not measure well enough: those that matter in double, others weigh nothing.
    __attribute__((noinline)) void follow_again(int y, int x, int key_row, int key_column, const Floats *estimate,
                                                Floats *e) const {
        const int64_t pixel = (int64_t)y * P.width + x;
        const float least = smallest(estimate) * -Q.fall;
        if (Q.trusted(least)) return;
        const float enough = within_reach(pixel, least);
        for (int v = 0; v < V; v++) {
            const Ints matters = estimate[v] * splat(-Q.fall) < splat(enough);
            e[v] = splat(-FAR);
            for (int l = 0; l < WIDTH; l++)
                if (matters[l])
                    e[v][l] = (float)(reference[pixel] -
                                      measured(P, Q, S.codes, pixel, image(v) + l, position(key_row, key_column, v)));
        }
    }

    INLINE_MEMBER int position(int key_row, int key_column, int v) const {
        return key_row * P.width + wrapped(key_column + v % T, P.width);
    }
    INLINE_MEMBER int64_t image(int v) const { return S.first + v / T * WIDTH; }

    // Lanes whose patch may be among the k nearest: near enough as far as float32 can tell, and not known for a copy of the
    // last one kept that comes after it.
    INLINE_MEMBER Ints candidates(int64_t pixel, int key_row, int key_column, int v, Floats box) const {
        const Ints near = box <= splat(trail->limit[pixel]);
        if (!any(near)) return near;
        const Kept &last = trail->last(pixel);
        const int64_t at = hash_index(key_row, key_column, v), ahead = last.image - image(v);
        if (ahead >= WIDTH || !S.hashed[at]) return near;
        const int from = ahead < 0 ? 0 : (int)ahead + (position(key_row, key_column, v) <= last.position);
        const Hash &hash = S.hashes[at];
        Ints same = (hash.a == Words{} + last.hash[0]) & (hash.b == Words{} + last.hash[1]);
        if (Q.signal == 0) same = ~Ints{};  // as good as: all patches are equally far
        return near & ~(same & (LANES >= Ints{} + from));
    }

    __attribute__((noinline)) void keep(int y, int x, int key_row, int key_column, const Floats *box,
                                        const Floats *weights) const {
        const int64_t pixel = (int64_t)y * P.width + x;
        for (int v = 0; v < V; v++) {
            if (!any(box[v] <= splat(trail->limit[pixel]))) continue;
            const int64_t at = hash_index(key_row, key_column, v);
            if (!S.hashed[at]) {
                S.hashes[at] = hash(y, x, key_row, key_column, v);
                S.hashed[at] = 1;
            }
            const Ints near = candidates(pixel, key_row, key_column, v, box[v]);
            for (int l = 0; l < WIDTH; l++)
                if (near[l])
                    trail->insert(Q, pixel, {distance(y, x, key_row, key_column, v, l), weights[v][l],
                                             (int32_t)(image(v) + l), position(key_row, key_column, v),
                                             {S.hashes[at].a[l], S.hashes[at].b[l]}});
        }
    }

    INLINE_MEMBER int64_t hash_index(int key_row, int key_column, int v) const {
        return key_row * S.columns + key_column + ahead(v);
    }

    double distance(int y, int x, int key_row, int key_column, int v, int lane) const {
        return ::distance(P, Q, S.codes, (int64_t)y * P.width + x, image(v) + lane, position(key_row, key_column, v));
    }

    __attribute__((noinline)) Hash hash(int y, int x, int key_row, int key_column, int v) const {
        Hash hash = {};
        uint32_t n = 0;
        const int64_t block = image(v) / WIDTH * P.pixels() * channels();
        each_number(P, y, x, position(key_row, key_column, v), [&](int64_t, int64_t at) {
            at += block;
            Words word = (Words)(Q.levels ? to_floats(((const Bytes *)S.codes)[at]) : ((const Floats *)S.codes)[at]);
            word += n * 0x9e3779b9u;
            word = (word ^ (word >> 16)) * 0x7feb352du;
            word = (word ^ (word >> 15)) * 0x846ca68bu;
            word ^= word >> 16;
            hash.a += word;
            hash.b += word * (2 * n++ + 1);
        });
        return hash;
    }
};

// Keys by whether their windows cross the left or right border.
enum Keys { ALL, INNER, BORDER };

// The i-th of n numbers, from the middle outwards: patches near a pixel's own place come first, because they are more often like
// it, and the sooner good ones are known the less others count.
int outwards(int i, int n) { return (n - 1) / 2 + (i % 2 ? (i + 1) / 2 : -i / 2); }

// Call visit(dx, count, keys) for every T column shifts dx, dx + 1, ..., or fewer, at which these keys may stand in.
template <int T, class Visit>
void visit_shifts(const Problem &P, int r, Visit visit) {
    const int w = P.width, reach = w - 2 * r - 1;
    auto visit_all = [&](int from, int to, Keys keys) {
        const int n = (to - from + T - 1) / T;
        for (int i = 0; i < n; i++) {
            const int dx = from + T * (from < 0 ? outwards(i, n) : i);
            visit(dx, std::min(T, to - dx), keys);
        }
    };
    if (P.symmetry == OWN_POSITION) visit_all(0, 1, ALL);
    if (P.symmetry == SAME_BORDER) {
        visit_all(-reach, reach + 1, INNER);
        visit_all(0, 1, BORDER);
    }
    if (P.symmetry == EVERYWHERE) visit_all(0, w, ALL);
    if (P.symmetry == INSIDE) visit_all(0, w, INNER);
}

// The columns of query pixels in which some of these shifts are of use, in two ranges, which may be empty.
std::array<Range, 2> columns_of(const Problem &P, int r, int dx, int count, Keys keys) {
    const int w = P.width;
    if (P.symmetry != SAME_BORDER) return {Range{0, w}, Range{0, 0}};
    if (keys == BORDER) return {Range{0, std::min(r, w)}, Range{std::max(r, w - r), w}};
    return {Range{std::max(r, r - dx - count + 1), std::min(w - r, w - r - dx)}, Range{0, 0}};
}

// Some row shifts.
struct Shifts {
    const int *from, *to;
    const int *begin() const { return from; }
    const int *end() const { return to; }
};

// Add G blocks to the sums of one query, at these row shifts.
template <class Key, int C, int T, int G, int R, bool TRACE>
void add_blocks(const Problem &P, const Query &Q, const Scratch &S, const Totals &totals, int images, Shifts shifts) {
    const int w = P.width, r = P.radius;
    const Pass<Key, C, T, G, R, TRACE> pass(P, Q, S, totals, images);
    const Pass<Key, C, R ? T : 1, G, R, TRACE> border_pass(P, Q, S, totals, images);
    for (const int dy : shifts) {
        const Range rows = partners(P.symmetry, P.height, r, dy);
        if (rows.empty()) continue;
        visit_shifts<T>(P, r, [&](int dx, int count, Keys keys) {
            for (const Range columns : columns_of(P, r, dx, count, keys)) {
                if (columns.empty()) continue;
                if (keys == BORDER) {
                    border_pass.run(dy, dx, count, rows, columns, false);
                    continue;
                }
                const int size = columns.size(), narrow = R == 1 ? 384 / WIDTH : R == 2 ? 256 / WIDTH : w;
                const int parts = (size + narrow - 1) / narrow;
                for (int i = 0; i < parts; i++)  // their rows stay in the L1 cache
                    pass.run(dy, dx, count, rows,
                             {columns.from + size * i / parts, columns.from + size * (i + 1) / parts}, keys == INNER);
            }
        });
    }
}

template <class Key, int C, int T, int G, bool TRACE>
void add_blocks(const Problem &P, const Query &Q, const Scratch &S, const Totals &totals, int images, Shifts shifts) {
    if (P.radius == 1) add_blocks<Key, C, T, G, 1, TRACE>(P, Q, S, totals, images, shifts);
    else if (P.radius == 2) add_blocks<Key, C, T, G, 2, TRACE>(P, Q, S, totals, images, shifts);
    else add_blocks<Key, C, T, G, 0, TRACE>(P, Q, S, totals, images, shifts);
}

template <class Key, int C, int T, int G>
void add_blocks(const Problem &P, const Query &Q, const Scratch &S, const Totals &totals, int images, Shifts shifts) {
    if (totals.trail) add_blocks<Key, C, T, G, true>(P, Q, S, totals, images, shifts);
    else add_blocks<Key, C, T, G, false>(P, Q, S, totals, images, shifts);
}

template <int C>
void add_blocks(const Problem &P, const Query &Q, const Scratch &S, bool bytes, const Totals &totals, int images,
               Shifts shifts) {
    if (P.symmetry != OWN_POSITION) add_blocks<Floats, C, SHIFTS, GROUPS>(P, Q, S, totals, images, shifts);
    else if (bytes) add_blocks<Bytes, C, 1, SIDE>(P, Q, S, totals, images, shifts);
    else add_blocks<Floats, C, 1, SIDE>(P, Q, S, totals, images, shifts);
}

// A noisy image and a window, of one part.
struct Asked {
    Problem P;
    Query Q;
    Scratch S;
    Totals totals;
    double *before;  // references
    double *total, *weighted;
};

// Windows of one noisy image, the smallest first, over the keys of GROUPS blocks that see the same border. Squared
// differences are rounded to whole units and added up over all pixels above and to the left: four such sums make a box, and
// nothing is lost on the way. Where units are too coarse for a window, sums of finer ones, which may come round, tell the
// patches apart that are near.
template <int C>
class Nested {
    using One = Pass<Floats, C, SHIFTS, GROUPS, 0>;
    static constexpr int V = One::V;

    const std::vector<One> &windows;
    const Problem &P;
    const int64_t stride, fine;  // vectors from a row of sums to the next, and from a sum to the fine one
    int dy, dx;
    Range rows, columns;  // of the noisy image, that have keys dy and dx further on

    const Limits &limits(const One &window) const { return window.Q.limits; }

    // Sums over what is above row y and left of each of `columns`.
    Words *sums(int y) const { return (Words *)windows[0].S.ring + (y - rows.from) * stride; }

    template <bool FINE>
    void measure() const {
        const float bits = -windows[0].Q.fall;
        const Floats unit = splat((float)(bits * limits(windows[0]).units)), fine_unit = splat((float)(bits * FINE_UNITS));
        auto whole = [](Floats a) ALWAYS_INLINE { return (Words)__builtin_convertvector(a + splat(.5f), Ints); };
        const int64_t size = sizeof(Words) * V * (columns.size() + 1);
        memset(sums(rows.from), 0, size);
        if (FINE) memset(sums(rows.from) + fine, 0, size);
        for (int y = rows.from; y < rows.to; y++) {
            Words *const row = sums(y + 1), across[V] = {}, fine_across[V] = {};
            for (int v = 0; v < V; v++) {
                row[v] = Words{};
                if (FINE) row[fine + v] = Words{};
            }
            windows[0].differences(y, y + dy, dx, columns.from, columns.to, [&](int i, int v, Floats square) ALWAYS_INLINE {
                Words *const sum = row + (i + 1) * V + v;
                across[v] += whole(square * unit);
                sum[0] = sum[-stride] + across[v];
                if (FINE) {
                    fine_across[v] += whole(square * fine_unit);
                    sum[fine] = sum[fine - stride] + fine_across[v];
                }
            });
        }
    }

    // ROWS rows of pixels from row y on, next to each other. At the border, only keys at no shift may stand in.
    template <bool COARSE, int ROWS>
    void add_rows(const One &window, int y, Range pixels, bool at_border) const {
        const int r = window.r, c = window.channels(), w = P.width;
        const Words *above[ROWS], *below[ROWS];
        for (int i = 0; i < ROWS; i++) {
            above[i] = sums(std::max(y + i - r, rows.from));
            below[i] = sums(std::min(y + i + r + 1, rows.to));
        }
        const Floats unit = splat((float)(1 / (COARSE ? FINE_UNITS : limits(window).units)));
        const bool all = !at_border && window.images == WIDTH * GROUPS;
        const Range clear = all ? Range{r - dx, w - r - dx - SHIFTS + 1} : Range{0, 0};  // pixels of which all patches count
        const Floats *key = window.key(y + dy, pixels.from + dx);
        const Mark *mark = window.S.marks + y * w + pixels.from;
        Floats *to = window.sums_of(y * w + pixels.from);
        for (int x = pixels.from; x < pixels.to; x++, key += c, mark++, to += sum_vectors(c)) {
            int64_t left = x - r, right = x + r + 1;
            if (ROWS == 1)  // as rows at the border always are
                left = std::max<int64_t>(left, 0), right = std::min<int64_t>(right, w);
            left = (left - columns.from) * V, right = (right - columns.from) * V;
            auto less_box = [&](int32_t reference, int i, int64_t at) ALWAYS_INLINE {
                const Words upper = above[i][right + at] - above[i][left + at], lower = below[i][right + at] - below[i][left + at];
                return (Ints)(Words{} + (uint32_t)reference - (lower - upper));
            };
            Ints e[ROWS][V], top[ROWS];
            bool near = false, again = false;
#pragma GCC unroll 2
            for (int i = 0; i < ROWS; i++) {
#pragma GCC unroll 4
                for (int v = 0; v < V; v++) e[i][v] = less_box(mark[i * w].reference, i, v);
                if (x < clear.from || x >= clear.to) leave_out(window, x, at_border, e[i]);
                static_assert(V == 4);
                top[i] = max(max(e[i][0], e[i][1]), max(e[i][2], e[i][3]));
                near |= any_above(top[i], mark[i * w].least);
                again |= any_above(top[i], mark[i * w].most);
            }
            if (!near) continue;
            if (__builtin_expect(again, 0)) {
                Ints copy[ROWS][V];  // only here need they be in memory
                memcpy(copy, e, sizeof e);
                bool left[ROWS], all = true;
                for (int i = 0; i < ROWS; i++) all &= left[i] = refer(window, y + i, x, copy[i]);
                if (!all) {
                    if constexpr (ROWS > 1)
                        for (int i = 0; i < ROWS; i++)
                            if (left[i]) add_rows<COARSE, 1>(window, y + i, {x, x + 1}, at_border);
                    continue;
                }
                memcpy(e, copy, sizeof e);
            }
            Floats weights[ROWS][V];
#pragma GCC unroll 4
            for (int v = 0; v < V; v++)
#pragma GCC unroll 2
                for (int i = 0; i < ROWS; i++) {
                    if (COARSE) {
                        const Ints finer = less_box(mark[i * w].fine_reference, i, fine + v);
                        e[i][v] = e[i][v] > Ints{} + mark[i * w].least ? finer : Ints{} + INT32_MIN;
                    }
                    weights[i][v] = exp2_of_any(__builtin_convertvector(e[i][v], Floats) * unit);
                }
#pragma GCC unroll 2
            for (int i = 0; i < ROWS; i++) window.add(weights[i], key + i * window.S.columns * c, to + i * w * sum_vectors(c));
        }
    }

    // Patches that do not count, as they may not stand in for a pixel or lie in empty lanes, are farthest.
    INLINE_MEMBER void leave_out(const One &window, int x, bool at_border, Ints *e) const {
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) {
            const int shift = dx + v % SHIFTS, key = x + shift;
            const bool stands_in = at_border ? shift == 0 : key >= window.r && key < P.width - window.r;
            const Ints left_out = (Ints)window.empty[v / SHIFTS] | (Ints{} - !stands_in);
            e[v] = left_out != Ints{} ? Ints{} + INT32_MIN : e[v];
        }
    }

    // Of a pixel with patches far nearer than the reference, the reference moves. Patches that float32 does not measure well
    // enough wait. Whether something is left to add.
    __attribute__((noinline)) bool refer(const One &window, int y, int x, Ints *e) const {
        const int64_t pixel = (int64_t)y * P.width + x;
        const double units = limits(window).units;
        const int32_t reference = window.S.marks[pixel].reference;
        int32_t nearest = INT32_MIN;
        for (int v = 0; v < V; v++)
            for (int l = 0; l < WIDTH; l++) nearest = std::max(nearest, e[v][l]);
        if (nearest <= window.S.marks[pixel].most) return window.Q.trusted(window.reference[pixel]);
        const double least = ((double)reference - nearest) / units;
        const bool trusted = window.Q.trusted(least);
        if (trusted && least < window.reference[pixel]) window.move(least, pixel, window.sums_of(pixel));
        if (!trusted) {
            Floats box[V];
            const double stretch = -1 / (units * window.Q.fall);
            for (int v = 0; v < V; v++)
                for (int l = 0; l < WIDTH; l++)
                    box[v][l] = e[v][l] == INT32_MIN ? FAR : (float)(((double)reference - e[v][l]) * stretch);
            window.postpone(y, x, y + dy, x + dx, box, (float)least);
        }
        set_mark(window, pixel);
        const int32_t change = window.S.marks[pixel].reference - reference;
        for (int v = 0; v < V; v++) e[v] = e[v] == Ints{} + INT32_MIN ? e[v] : e[v] + change;
        return trusted;
    }

    void set_mark(const One &window, int64_t pixel) const {
        const double bits = window.reference[pixel], units = limits(window).units;
        const bool trusted = window.Q.trusted(bits);
        auto whole = [](double a) { return (int32_t)std::floor(std::clamp(a, -(double)INT32_MAX, (double)INT32_MAX)); };
        window.S.marks[pixel] = {whole(bits * units + .5), trusted ? whole(bits * FINE_UNITS + .5) : 0,
                                 whole(window.least_exponent(pixel) * units), trusted ? whole(HEADROOM * units) : INT32_MIN};
    }

    template <bool COARSE>
    void add_window(const One &window, Range pixels, bool at_border) const {
        if (pixels.empty()) return;
        const Range wanted = partners(SAME_BORDER, P.height, window.r, dy);
        int y = wanted.from;
        for (; !at_border && y + 1 < wanted.to; y += 2) add_rows<COARSE, 2>(window, y, pixels, at_border);
        for (; y < wanted.to; y++) add_rows<COARSE, 1>(window, y, pixels, at_border);
    }

  public:
    Nested(const std::vector<One> &windows)
        : windows(windows), P(windows[0].P), stride(plane_row_size(P)), fine(plane_size(P)) {
        for (const One &window : windows)
            for (int64_t pixel = 0; pixel < P.pixels(); pixel++) set_mark(window, pixel);
    }

    void run(int dy, int dx) {
        this->dy = dy, this->dx = dx;
        rows = {std::max(0, -dy), std::min(P.height, P.height - dy)};
        columns = {std::max(0, -dx - SHIFTS + 1), std::min(P.width, P.width - dx)};
        if (limits(windows.back()).coarse) measure<true>();
        else measure<false>();
        for (const One &window : windows) {
            auto add = [&](Range pixels, bool at_border) {
                if (limits(window).coarse) add_window<true>(window, pixels, at_border);
                else add_window<false>(window, pixels, at_border);
            };
            add(columns_of(P, window.r, dx, SHIFTS, INNER)[0], false);
            if (dx <= 0 && dx + SHIFTS > 0)
                for (const Range pixels : columns_of(P, window.r, dx, SHIFTS, BORDER)) add(pixels, true);
        }
    }
};

template <int C>
void add_nested(const std::vector<Asked> &asked, int images, Shifts shifts) {
    std::vector<Pass<Floats, C, SHIFTS, GROUPS, 0>> windows;
    for (const Asked &a : asked) windows.emplace_back(a.P, a.Q, a.S, a.totals, images);
    Nested<C> nested(windows);
    const int reach = std::max(0, asked[0].P.width - asked[0].P.span()), n = 2 * reach / SHIFTS + 1;
    for (const int dy : shifts)
        for (int i = 0; i < n; i++) nested.run(dy, SHIFTS * outwards(i, n) - reach);
}

// Move the float32 sums into the double totals, which were relative to `before`. `unit`: of keys.
template <int C>
void settle(const Problem &P, const Totals &totals, double unit, const double *before, double *total, double *weighted) {
    const int c = C ? C : P.channels;
    const double codes = 1 / unit;  // exact: units are powers of two
    const Floats *sums = totals.sums;
    for (int64_t p = 0; p < P.pixels(); p++, sums += sum_vectors(c), weighted += c) {
        const double fall = totals.reference[p] - before[p];
        const double kept = total[p] == 0 ? 0 : power_of_2(fall);  // without a sum, the reference may also rise
        const auto lanes = sums_in_turns<is_packed(C) ? 1 + C : 1>(sums[0]);
        auto found = [&](int j) { return is_packed(C) ? lanes[j] : sum(sums[j]); };
        total[p] = total[p] * kept + found(0);
        for (int j = 0; j < c; j++) weighted[j] = weighted[j] * kept + found(1 + j) * codes;
    }
}

// Move the sums of followed weights, of G blocks, into the double ones: Σ w, Σ w log2 w and shares by image.
void settle_trail(const Problem &P, const Totals &totals, int64_t first, int groups, int images, double *total, double *moment) {
    Floats *sums = totals.sums;
    Doubles shares[2 * SIDE] = {};
    for (int64_t p = 0; p < P.pixels(); p++, sums += 1 + groups) {
        moment[p] += sum(sums[0]);
        for (int g = 0; g < groups; g++) {
            total[p] += sum(sums[1 + g]);
            shares[2 * g] += totals.trail->share[p] * low(sums[1 + g]);
            shares[2 * g + 1] += totals.trail->share[p] * high(sums[1 + g]);
        }
    }
    for (int i = 0; i < images; i++)
        totals.trail->by_image[first + i] += shares[i / (WIDTH / 2)][i % (WIDTH / 2)];
}

// Keys of GROUPS blocks; in each row the first columns follow the last.
template <class Code>
void decode(const Problem &P, const Code *codes, float unit, Floats *keys) {
    const int c = P.channels, w = P.width;
    for (int y = 0; y < GROUPS * P.height; y++, codes += w * c, keys += P.stride() * c) {
        for (int i = 0; i < w * c; i++) keys[i] = to_floats(codes[i]) * unit;
        for (int i = w * c; i < P.stride() * c; i++) keys[i] = keys[(i - w * c) % (w * c)];
    }
}

// What is asked. An item of work is one row shift of GROUPS blocks of WIDTH images; there are `row_shifts` to them, the least
// of them first_shift. Where symmetry allows no shifts, an item is SIDE blocks. Each of `parts` has a share of the items and
// sums of its own.
struct Job {
    int32_t symmetry, wraps, height, width, channels, windows, first_shift, row_shifts, batch, parts, threads;
    float skip;
    double max_error;  // in the log2 of a weight, before a patch is measured again in double
    double offset, slope;
    double lowest, highest;  // codes
    int64_t images, items;
    const int32_t *radii;  // (windows,), ascending; several only of SAME_BORDER, and not where weights are followed
    const void *codes;    // (blocks, height, width, channels, WIDTH), bytes if there are levels, else floats
    const float *levels;  // (256,)
    const float *x;       // (batch, channels, height, width)
    const Noise *noise;   // (batch,)
    float *pixels, *moved;             // (batch, height, width, channels), made from x
    Limits *limits;                    // (batch, windows): queries
    double *expected;                  // (queries, pixels)
    double *reference, *total;         // (parts, queries, pixels)
    double *weighted;                  // (..., channels), in units of codes
    int32_t *queued;                   // (parts, queries, pixels)
    Waiting *waiting;                  // (parts, queries, pixels, QUEUE)
    // (parts, batch), where weights are followed: then reference is given, (batch, pixels), and weighted becomes
    // (parts, batch, pixels), sums of w log2 w
    const Trail *trails;
    char *scratch;  // (threads, scratch_size)

    Problem problem(int window = 0) const { return {symmetry, wraps, height, width, channels, radii[window]}; }
    int queries() const { return batch * windows; }
    int64_t numbers() const { return (int64_t)height * width * channels; }
    Query query(int q) const {
        const int b = q / windows;
        const Noise &n = noise[b];
        return {pixels + b * numbers(), moved + b * numbers(), expected + (int64_t)q * height * width, limits[q], n.signal,
                n.precision, n.stretch, levels, (float)n.unit, -(float)(n.precision / (n.stretch * n.stretch)), skip,
                skip - (float)limits[q].least, (float)limits[q].steep};
    }
    // Items until float32 sums are moved to double: so many, wherever a part begins and a call ends.
    int64_t settled() const { return (int64_t)row_shifts * (symmetry == OWN_POSITION && !trails ? UNSHIFTED_AT_ONCE : 1); }
    // Where a part is after `done` items, or a few more.
    int64_t place(int part, int64_t done) const {
        const int64_t from = items * part / parts, to = items * (part + 1) / parts;
        return done == 0 ? from : std::min(to, (from + done + settled() - 1) / settled() * settled());
    }
};

// Vectors of scratch for sums.
int64_t sums_size(const Job &job) {
    const Problem P = job.problem(job.windows - 1);
    return job.windows > 1 ? 2 * plane_size(P) : (ring_rows(P) + ROWS) * row_size(P);
}

int64_t scratch_size(const Job &job) {
    const Problem P = job.problem(job.windows - 1);
    const int64_t sums = sums_size(job), keys = hashed_keys(P), values = std::max(sum_vectors(P.channels), 1 + SIDE);
    const int64_t vectors = (GROUPS * P.height * P.stride() + 2 * SIDE) * P.channels + sums +
                            job.windows * P.pixels() * values + 2 * keys;
    return (4 * (WIDTH * vectors + job.windows * (6 * P.pixels() + P.width + 2 * SIDE)) + keys + 63) / 64 * 64;
}

// Of a noisy image as it is compared. Squared differences from the best patches are about the variance of the noise, unless
// the image is smoother than that. `relative`: whether rows are taken relative to what is expected of them. `units`: of boxes
// in whole numbers, else 0.
Limits limits_of(const Problem &P, const Noise &noise, const float *moved, double max_error, bool relative, double units) {
    const int64_t numbers = P.pixels() * P.channels, whole = (numbers - P.channels) / WIDTH * WIDTH;
    auto vector = [&](int64_t i) {
        Floats a;
        memcpy(&a, moved + i, sizeof a);
        return a;
    };
    Floats most = {}, squares = {};  // of steps from a pixel to the next
    for (int64_t i = 0; i < whole; i += WIDTH) {
        const Floats here = vector(i), step = vector(i + P.channels) - here;
        most = max(most, max(here, -here));
        squares += step * step;
    }
    float highest = largest(most);
    double steps = sum(squares);
    for (int64_t i = whole; i < numbers; i++) {
        highest = std::max(highest, std::abs(moved[i]));
        if (i + P.channels < numbers) steps += (double)(moved[i + P.channels] - moved[i]) * (moved[i + P.channels] - moved[i]);
    }
    const double scale = noise.stretch * noise.stretch, precision = noise.precision;
    const double variance = scale / (2 * std::log(2.) * precision), roughness = steps / (2 * numbers);
    auto seen = [&](int n) { return P.wraps ? P.span() : std::min(P.span(), n); };  // of an axis, at most
    const double of_window = (double)seen(P.height) * seen(P.width);  // pixels
    Limits limits;
    limits.share = (2 * P.span() + P.channels + 8) * ROUNDING;
    limits.spread = std::sqrt(of_window * P.channels) * ROUNDING * (highest / noise.stretch + 6 * noise.signal);
    limits.units = units;
    limits.grain = units ? of_window / (2 * units) : 0;
    // Each pixel is rounded by itself, so that twice what they are expected to make together will do.
    limits.coarse = units && std::sqrt(of_window / 3) / units > max_error;
    // Sums are trusted to err by n u of what they come to, and by 2 u sqrt(precision box bits) for the rounding of pixels,
    // u = ROUNDING. If that leaves no room for any, nothing is expected. Whole numbers leave only the rounding of squares.
    const double limit = max_error / ROUNDING, n = units ? 3. / P.span() : 1.5 + P.span() / 5.;
    auto trust = [&](double expected) {
        const double root = (std::sqrt(precision + n * (limit + n * expected)) - std::sqrt(precision)) / n;
        return root * root - expected;
    };
    limits.each = relative ? (float)(P.channels * std::min(variance, roughness)) : 0;
    double expected = limits.each * of_window / scale * precision;
    limits.trust = trust(expected);
    if (limits.trust <= 0) limits.each = 0, limits.trust = trust(expected = 0);
    const double touch = std::sqrt(1000 / precision);
    limits.steep = 2 * (limits.share + limits.spread / touch);
    limits.least = limits.margin(precision, 1000 - expected, expected) - limits.steep * (1000 - expected);
    // No square of a near patch may exceed what fits fine sums, nor may coarse ones tell too little of what is near.
    if (limits.coarse) limits.trust = limits.grain > 16 ? -1 : std::min(limits.trust, (1 << 30) / FINE_UNITS);
    return limits;
}

// Of boxes in whole numbers, to a bit: as many as leave every box below 2^31.
double units_of(const Job &job, const Noise &noise, const float *moved) {
    const Problem P = job.problem(job.windows - 1);
    const int h = P.height, w = P.width, r = P.radius;
    std::vector<double> sums((h + 1) * (w + 1));  // of what is above and to the left
    for (int y = 0; y < h; y++) {
        double across = 0;
        for (int x = 0; x < w; x++) {
            for (int j = 0; j < P.channels; j++) {
                const double pixel = *moved++, a = pixel - noise.unit * job.lowest, b = pixel - noise.unit * job.highest;
                across += std::max(a * a, b * b);
            }
            sums[(y + 1) * (w + 1) + x + 1] = sums[y * (w + 1) + x + 1] + across;
        }
    }
    double most = 0;
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++) {
            const int above = std::max(y - r, 0) * (w + 1), below = std::min(y + r + 1, h) * (w + 1);
            const int left = std::max(x - r, 0), right = std::min(x + r + 1, w);
            most = std::max(most, sums[below + right] - sums[below + left] - sums[above + right] + sums[above + left]);
        }
    const double bits = 1.001 * most / (noise.stretch * noise.stretch) * noise.precision;
    const double room = INT32_MAX - P.pixels();  // each pixel may be rounded up
    return std::exp2(std::floor(std::log2(std::min(MOST_UNITS, room / bits))));
}

void prepare(const Job &job) {
    const Problem P = job.problem();
    const int64_t size = P.pixels();
    for (int b = 0; b < job.batch; b++) {
        for (int j = 0; j < job.channels; j++) {
            const float *x = job.x + (b * job.channels + j) * size;
            const double shift = job.noise[b].signal * job.offset, stretch = job.noise[b].stretch;
            for (int64_t p = 0; p < size; p++) {
                const int64_t at = (b * size + p) * job.channels + j;
                job.pixels[at] = x[p];
                job.moved[at] = (float)((x[p] - shift) * stretch);
            }
        }
        const Noise &noise = job.noise[b];
        const float *const moved = job.moved + b * job.numbers();
        const double units = job.windows > 1 ? units_of(job, noise, moved) : 0;
        for (int i = 0; i < job.windows; i++) {
            const Problem P = job.problem(i);
            const int q = b * job.windows + i;
            job.limits[q] = limits_of(P, noise, moved, job.max_error, !units && P.is_large(), units);
            const double each = job.limits[q].each / (noise.stretch * noise.stretch) * noise.precision;
            auto seen = [&](int at, int n) {  // of an axis, in a window
                return P.wraps ? P.span() : std::min(at + P.radius, n - 1) - std::max(at - P.radius, 0) + 1;
            };
            double *expected = job.expected + q * size;
            for (int y = 0; y < P.height; y++, expected += P.width)
                for (int x = 0; x < P.width; x++) expected[x] = each * seen(y, P.height) * seen(x, P.width);
        }
    }
}

template <int C>
void add_items(const Job &job, const std::vector<Asked> &asked, int images, Shifts shifts) {
    const Asked &first = asked[0];
    if (asked.size() > 1) add_nested<C>(asked, images, shifts);
    else add_blocks<C>(first.P, first.Q, first.S, job.levels, first.totals, images, shifts);
}

// Items [item_from, item_to) of a part, for the samples in [first, last).
template <int C>
void sum_items(const Job &job, int part, int first, int last, int64_t item_from, int64_t item_to, char *scratch) {
    const Problem largest = job.problem(job.windows - 1);
    const bool shifts = job.symmetry != OWN_POSITION;
    const int channels = job.channels, groups = shifts ? GROUPS : SIDE;
    const int values = job.trails ? 1 + groups : sum_vectors(channels);  // vectors of a pixel
    const int64_t size = largest.pixels(), row = row_size(largest);
    Scratch S;
    Floats *keys = (Floats *)scratch + SIDE * channels;
    S.codes = job.codes;
    S.keys = keys;
    S.columns = shifts ? largest.stride() : largest.width;
    S.ring = keys + (GROUPS * (int64_t)largest.height * largest.stride() + SIDE) * channels;
    S.ends = S.ring + ring_rows(largest) * row;
    S.squares = S.ends + row;
    S.suffix = S.squares + row;
    S.more = S.suffix + row;
    Floats *const sums = S.ring + sums_size(job);
    S.hashes = (Hash *)(sums + job.windows * size * values);
    double *const before = (double *)(S.hashes + hashed_keys(largest));
    Mark *const marks = (Mark *)(before + job.windows * size);
    float *penalty = (float *)(marks + job.windows * size);
    S.hashed = (uint8_t *)(penalty + job.windows * (largest.width + 2 * SIDE));
    if (shifts) memset(scratch, 0, (char *)S.ring - scratch);
    std::vector<int> row_shifts(job.row_shifts);
    for (int i = 0; i < job.row_shifts; i++)
        row_shifts[i] = job.first_shift + (job.first_shift < 0 ? outwards(i, job.row_shifts) : i);
    std::vector<Asked> asked(job.windows);
    for (int i = 0; i < job.windows; i++) {
        Asked &a = asked[i];
        a.P = job.problem(i);
        a.S = S;
        for (int x = -SIDE; x < a.P.width + SIDE; x++) {
            const int column = a.P.wraps ? wrapped(x, a.P.width) : x;
            *penalty++ = column >= a.P.radius && column < a.P.width - a.P.radius ? 0.f : FAR;
        }
        a.S.penalty = penalty - a.P.width - SIDE;
        a.S.marks = marks + i * size;
        a.before = before + i * size;
    }
    float decoded = 0;  // the unit of keys
    for (int64_t from = item_from, to; from < item_to; from = to) {
        to = std::min(item_to, (from / job.settled() + 1) * job.settled());
        if (job.trails) to = std::min(to, from + SHIFTS_FOLLOWED_AT_ONCE);
        for (int b = first; b < last; b++) {
            for (int i = 0; i < job.windows; i++) {
                Asked &a = asked[i];
                const int q = b * job.windows + i;
                const int64_t at = ((int64_t)part * job.queries() + q) * size;
                a.Q = job.query(q);
                a.totals = {job.reference + (job.trails ? q * size : at), sums + i * size * values,
                            job.trails ? job.trails + part * job.batch + b : nullptr, job.queued + at,
                            job.waiting + at * QUEUE};
                a.total = job.total + at;
                a.weighted = job.weighted + at * (job.trails ? 1 : channels);
                memcpy(a.before, a.totals.reference, sizeof(double) * size);
            }
            memset(sums, 0, sizeof(Floats) * job.windows * size * values);
            const float unit = asked[0].Q.unit;
            int64_t first_image = 0;
            int held = 0;
            for (int64_t item = from, end; item < to; item = end) {
                const int64_t block = item / job.row_shifts;
                first_image = block * groups * WIDTH;
                end = std::min(to, (block + 1) * job.row_shifts);
                const int *const from_shift = row_shifts.data() + item % job.row_shifts;
                held = (int)std::min<int64_t>(job.images - first_image, groups * WIDTH);
                const char *codes = (const char *)job.codes + first_image * job.numbers() * (job.levels ? 1 : 4);
                if (job.trails && b == first) memset(S.hashed, 0, hashed_keys(largest));
                if (shifts && (b == first || unit != decoded)) {
                    if (job.levels) decode(largest, (const Bytes *)codes, unit, keys);
                    else decode(largest, (const Floats *)codes, unit, keys);
                    decoded = unit;
                }
                for (Asked &a : asked) {
                    a.S.first = first_image;
                    if (!shifts) a.S.keys = codes;
                }
                add_items<C>(job, asked, held, {from_shift, from_shift + (end - item)});
            }
            for (Asked &a : asked) {
                if (job.trails) settle_trail(a.P, a.totals, first_image, groups, held, a.total, a.weighted);
                else settle<C>(a.P, a.totals, shifts ? unit : 1, a.before, a.total, a.weighted);
            }
        }
    }
}

// The sums of all parts at one pixel, in the place of those of the first.
void merge(const Job &job, const Problem &P, const Query &Q, int q, int64_t pixel) {
    const int c = job.channels;
    auto place = [&](int part) { return ((int64_t)part * job.queries() + q) * P.pixels() + pixel; };
    double reference = FAR, estimate = FAR;  // of what is summed; of what waits, too
    for (int part = 0; part < job.parts; part++) {
        const int64_t at = place(part);
        estimate = std::min(estimate, job.reference[at]);
        if (job.total[at] > 0) reference = std::min(reference, job.reference[at]);
    }
    const double enough = estimate + Q.reach(pixel, estimate);
    struct Found {
        const Waiting *patch;
        double bits;
    };
    std::vector<Found> found;
    for (int part = 0; part < job.parts; part++) {
        const Waiting *const first = job.waiting + place(part) * QUEUE;
        for (int i = 0; i < job.queued[place(part)]; i++) {
            if (first[i].bits >= enough) continue;
            found.push_back({first + i, measured(P, Q, job.codes, pixel, first[i].image, first[i].position)});
            reference = std::min(reference, std::trunc(found.back().bits));
        }
    }
    double *const weighted = job.weighted + place(0) * c;
    double total = 0;
    for (int part = 0; part < job.parts; part++) {
        const int64_t at = place(part);
        const double kept = job.total[at] > 0 ? power_of_2(reference - job.reference[at]) : 0;
        total += kept * job.total[at];
        for (int j = 0; j < c; j++) weighted[j] = (part ? weighted[j] : 0) + kept * job.weighted[at * c + j];
    }
    for (const auto &[patch, bits] : found) {
        const double weight = std::exp2(reference - bits);
        total += weight;
        for (int j = 0; j < c; j++)
            weighted[j] += weight * stored(P, Q, job.codes, patch->image, (int64_t)patch->position * c + j);
    }
    job.total[place(0)] = total;
    job.reference[place(0)] = reference;
}

// Weights below 2^-126 are zero: computing with such numbers is slow.
struct SmallIsZero {
#if defined(__AVX512DQ__)
    const unsigned status = _mm_getcsr();
    SmallIsZero() { _mm_setcsr(status | 0x8040); }
    ~SmallIsZero() { _mm_setcsr(status); }
#endif
};

}  // namespace

extern "C" {

int box_lanes() { return WIDTH; }
int box_side() { return SIDE; }
int box_groups(int symmetry) { return symmetry == OWN_POSITION ? SIDE : GROUPS; }
int box_settled(int symmetry) { return symmetry == OWN_POSITION ? UNSHIFTED_AT_ONCE : 1; }
int box_queue() { return QUEUE; }

// Places what a job fills in memory, aligned to 64, and returns how many bytes that takes; with no memory it only says.
int64_t box_place(Job *job, char *memory) {
    int64_t bytes = 0;
    auto place = [&](auto *&array, int64_t count) {
        array = memory ? (std::remove_reference_t<decltype(array)>)(memory + bytes) : nullptr;
        bytes += (count * (int64_t)sizeof *array + 63) / 64 * 64;
    };
    const int64_t size = (int64_t)job->height * job->width, sums = job->parts * job->queries() * size;
    place(job->pixels, job->batch * job->numbers());
    place(job->moved, job->batch * job->numbers());
    place(job->limits, job->queries());
    place(job->expected, job->queries() * size);
    place(job->reference, sums);
    place(job->total, sums);
    place(job->weighted, sums * job->channels);
    place(job->queued, sums);
    place(job->waiting, sums * QUEUE);
    place(job->scratch, job->threads * scratch_size(*job));
    return bytes;
}

// Sum over items [from, to) of every part, and a few more; from = 0 begins anew.
void box_sums(const Job *job, int64_t from, int64_t to) {
    const Job &J = *job;
    const int64_t size = (int64_t)J.height * J.width * J.windows, scratch = scratch_size(J);
    const int slices = std::max(1, std::min(J.batch, (J.threads + J.parts - 1) / J.parts));  // of the batch
    if (from == 0) prepare(J);
    Pool::get().run(J.threads, (int64_t)J.parts * slices, [&](int64_t unit, int thread) {
        [[maybe_unused]] const SmallIsZero mode;
        const int part = (int)(unit / slices), slice = (int)(unit % slices);
        const int first = J.batch * slice / slices, last = J.batch * (slice + 1) / slices;
        const int64_t begin = ((int64_t)part * J.batch + first) * size, end = begin + (last - first) * size;
        if (from == 0 && !J.trails) {
            std::fill(J.reference + begin, J.reference + end, (double)UNKNOWN);
            std::fill(J.total + begin, J.total + end, 0.);
            std::fill(J.weighted + begin * J.channels, J.weighted + end * J.channels, 0.);
            std::fill(J.queued + begin, J.queued + end, 0);
        }
        auto sum = J.channels == 1 ? sum_items<1> : J.channels == 3 ? sum_items<3> : sum_items<0>;
        sum(J, part, first, last, J.place(part, from), J.place(part, to), J.scratch + thread * scratch);
    });
}

// The sums of all parts, in the place of those of the first, and, where asked for, the posterior means
// (queries, channels, height, width).
void box_merge(const Job *job, float *means) {
    const Job &J = *job;
    Pool::get().run(J.threads, (int64_t)J.queries() * J.height, [&](int64_t unit, int) {
        const int q = (int)(unit / J.height), y = (int)(unit % J.height);
        const Problem P = J.problem(q % J.windows);
        const Query Q = J.query(q);
        for (int64_t pixel = (int64_t)y * J.width; pixel < (int64_t)(y + 1) * J.width; pixel++) {
            merge(J, P, Q, q, pixel);
            if (!means) continue;
            const int64_t at = q * P.pixels() + pixel;
            const double scale = J.slope / J.total[at];
            for (int j = 0; j < J.channels; j++)
                means[(q * J.channels + j) * P.pixels() + pixel] = (float)(J.offset + scale * J.weighted[at * J.channels + j]);
        }
    });
}

// Before weights are followed: by sample and pixel, references as they are used, from log totals; by what weights then become
// shares; and boxes of float32 that are worth a look.
void box_aim(const Job *job, double *share, float *enough) {
    const Job &J = *job;
    const int64_t size = J.problem().pixels();
    for (int b = 0; b < J.batch; b++) {
        const Query Q = J.query(b);
        for (int64_t pixel = 0; pixel < size; pixel++) {
            const int64_t at = b * size + pixel;
            const double normaliser = J.reference[at], reference = Q.trusted(normaliser) ? (float)normaliser : normaliser;
            J.reference[at] = reference;
            share[at] = std::exp2(normaliser - reference);
            enough[at] = (float)((reference + Q.reach(pixel, reference)) / Q.precision * (Q.stretch * Q.stretch));
        }
    }
}

// 2^numbers, `count` for each thread, time and again: as fast as exponentials can be had.
void box_exponentials(const float *numbers, float *out, int64_t count, int64_t rounds, int threads) {
    Pool::get().run(threads, threads, [&](int64_t unit, int) {
        for (int64_t round = 0; round < rounds; round++)
            for (int64_t i = unit * count; i < (unit + 1) * count; i += WIDTH)
                *(Floats *)(out + i) = exp2_of_any(*(const Floats *)(numbers + i));
    });
}
}
