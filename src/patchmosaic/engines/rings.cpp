// Posterior means of single pixels for many windows and many noise levels in one pass.
//
// With u = clean + noise level * eta, the logit of a patch psi is, up to what is the same for every patch,
//     -signal^2 / (2 sigma^2) * |psi - clean|^2 + signal / sigma * <eta, psi - clean>,
// so two sums over a window serve all noise levels, and those of a window are those of the next smaller one and a ring.
// Lanes are training images. Sums are float32 over differences, which are small where a patch matters.

#include <cmath>
#include <cstdint>

#include "vectors.h"

namespace {

constexpr float NOTHING = -1e30f;  // the reference before the first patch
constexpr float ABSENT = -1e6f;   // added to the log2 of weights of images that are not there
constexpr float SKIP = -50.f;      // log2 of weights, relative to the largest so far, that are left out
constexpr float FLOOR = -100.f;    // of log2 of weights: below it processors are slow
constexpr int AT_ONCE = 4;         // keys that share what is loaded of the query
constexpr int TILE = 64;           // keys weighed before float32 sums are moved to double

// A pixel and the keys that may stand in for it.
struct RingQuery {
    int32_t windows, levels, channels;
    const int32_t *key_counts;   // by window
    const int32_t *keys;         // window after window: where the first channel of a key's pixel is in an image
    const int32_t *parents;      // likewise: the place of the key among those of the window before
    const int32_t *step_counts;  // by window: how many numbers it has beyond the window before
    const int32_t *steps;        // from a key to a number of the window
    const float *clean, *eta;    // the query's numbers there
    const float *slopes;         // (levels, 2): a weight is 2^(slopes[0] * distance + slopes[1] * product)
};

// The two sums of every key, `first` being those of the window before, or none.
INLINE void add_ring(const Floats *image, const int32_t *keys, const int32_t *parents, int count, bool first,
                     const int32_t *steps, const float *clean, const float *eta, int numbers, Floats *distance,
                     Floats *product) {
    for (int k = 0; k < count; k += AT_ONCE) {
        Floats far[AT_ONCE], along[AT_ONCE];
        const Floats *at[AT_ONCE];
        for (int j = 0; j < AT_ONCE; j++) {
            const int key = k + j < count ? k + j : count - 1;
            at[j] = image + keys[key];
            far[j] = first ? Floats{} : distance[parents[key]];
            along[j] = first ? Floats{} : product[parents[key]];
        }
        for (int i = 0; i < numbers; i++) {
            const Floats x = splat(clean[i]), n = splat(eta[i]);
            for (int j = 0; j < AT_ONCE; j++) {
                const Floats d = at[j][steps[i]] - x;
                far[j] += d * d;
                along[j] += d * n;
            }
        }
        for (int j = 0; j < AT_ONCE && k + j < count; j++) {
            distance[k + j] = far[j];
            product[k + j] = along[j];
        }
    }
}

// Adds the keys of a tile to the sums (1 + C) of one window and noise level, which are relative to 2^reference.
template <int C>
INLINE void weigh(const Floats *image, const int32_t *keys, int count, const Floats *distance, const Floats *product,
                  const float *slopes, Floats absent, float &reference, double *sums) {
    const Floats a = splat(slopes[0]), b = splat(slopes[1]);
    Floats best[AT_ONCE];
    for (int j = 0; j < AT_ONCE; j++) best[j] = splat(NOTHING);
    int k = 0;
    for (; k + AT_ONCE <= count; k += AT_ONCE)
        for (int j = 0; j < AT_ONCE; j++) best[j] = max(best[j], a * distance[k + j] + b * product[k + j]);
    for (; k < count; k++) best[0] = max(best[0], a * distance[k] + b * product[k]);
    const float top = largest(max(max(best[0], best[1]), max(best[2], best[3])) + absent);
    if (top < reference + SKIP) return;
    if (top > reference) {
        const double shrink = std::exp2((double)reference - top);
        for (int c = 0; c < 1 + C; c++) sums[c] *= shrink;
        reference = top;
    }
    const Floats shift = absent - splat(reference);
    Floats total = {}, weighted[C] = {};
    for (k = 0; k < count; k++) {
        const Floats p = exp2_of_any(max(a * distance[k] + b * product[k] + shift, splat(FLOOR)));
        total += p;
        for (int c = 0; c < C; c++) weighted[c] += p * image[keys[k] + c];
    }
    sums[0] += sum(folded(total));
    for (int c = 0; c < C; c++) sums[1 + c] += sum(folded(weighted[c]));
}

template <int C>
void add_images(const RingQuery &Q, const float *images, int64_t blocks, int64_t size, int lanes_in_last,
                float *scratch, float *reference, double *sums) {
    Floats *distance = (Floats *)scratch, *product = distance + Q.key_counts[0];
    for (int64_t block = 0; block < blocks; block++) {
        const Floats *image = (const Floats *)images + block * size;
        Floats absent = {};
        for (int i = lanes_in_last; block == blocks - 1 && i < WIDTH; i++) absent[i] = ABSENT;
        const int32_t *keys = Q.keys, *parents = Q.parents, *steps = Q.steps;
        const float *clean = Q.clean, *eta = Q.eta;
        for (int w = 0; w < Q.windows; w++) {
            const int count = Q.key_counts[w], numbers = Q.step_counts[w];
            add_ring(image, keys, parents, count, w == 0, steps, clean, eta, numbers, distance, product);
            for (int k = 0; k < count; k += TILE)
                for (int l = 0; l < Q.levels; l++) {
                    const int at = w * Q.levels + l, some = count - k < TILE ? count - k : TILE;
                    weigh<C>(image, keys + k, some, distance + k, product + k, Q.slopes + 2 * l, absent,
                             reference[at], sums + at * (1 + C));
                }
            keys += count, parents += count;
            steps += numbers, clean += numbers, eta += numbers;
        }
    }
}

}  // namespace

extern "C" {

int ring_lanes() { return WIDTH; }

// Adds all patches of some images, (blocks, size, WIDTH) of 1 or 3 channels, to sums (windows, levels, 1 + channels)
// relative to 2^reference, (windows, levels). Scratch: two vectors for each key of the first window.
void ring_sums(const void *query, const float *images, int64_t blocks, int64_t size, int32_t lanes_in_last,
               float *scratch, float *reference, double *sums) {
    const RingQuery &Q = *(const RingQuery *)query;
    if (Q.channels == 1) add_images<1>(Q, images, blocks, size, lanes_in_last, scratch, reference, sums);
    else add_images<3>(Q, images, blocks, size, lanes_in_last, scratch, reference, sums);
}

}  // extern "C"
