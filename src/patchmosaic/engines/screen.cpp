// Sums over the patches near a query, with a bound on the weight of all others.
//
// Patches are sorted into a tree: GROUP patches to a group, LEAF to a leaf. The box around a group or a leaf, in
// rotated coordinates, bounds from below the squared distance of all its patches to a query, and so their weights
// from above. Proof of the bound on the error: docs/engines.md.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "vectors.h"

namespace {

constexpr int LEAF = 64;               // patches in a leaf
constexpr int ACROSS = LEAF / WIDTH;   // vectors in a leaf
constexpr int GROUP = WIDTH * LEAF;    // patches in a group, whose leaves fill a vector
constexpr int TERMS = 8;               // squares added up at a time: two short sums round less than a long one
constexpr size_t PROBES = 16;          // leaves in which a near patch is looked for
constexpr int AHEAD = 12;              // patches to fetch ahead
constexpr int SPREAD_OF = 128;         // patches from which the spread of many is told
constexpr float NOWHERE = 1e15f;       // the numbers of a patch that does not exist
constexpr float LOWEST = -90.f;        // log2 of the smallest weight: times a pixel, it is no denormal number, which are slow
constexpr float HIGHEST = 120.f;       // log2 of the largest weight; the caller gives up on a sum that reaches it

#if defined(__AVX512F__)
INLINE unsigned at_least(Floats a, float bound) {
    return _mm512_cmp_ps_mask((__m512)a, _mm512_set1_ps(bound), _CMP_GE_OQ);
}
#else
INLINE unsigned at_least(Floats a, float bound) {
    const Ints above = a >= splat(bound);
    unsigned mask = 0;
    for (int i = 0; i < WIDTH; i++) mask |= (unsigned)(above[i] & 1) << i;
    return mask;
}
#endif

// 2^e, relative error 2e-7; below LOWEST it counts as that, above HIGHEST as that.
INLINE Floats exp2(Floats e) { return exp2_of_normal(-max(-max(e, splat(LOWEST)), splat(-HIGHEST))); }

}  // namespace

extern "C" {

// Training images and how a patch is cut from them. Codes are bytes, indices into `levels`, or floats without levels.
struct Patches {
    const void *codes;       // (pixels, channels)
    const float *levels;     // (256,) or null
    const int32_t *offsets;  // (numbers,): where the numbers of a patch lie, counted from its pixel's first
    const int32_t *centre;   // (channels,): which of the numbers are the pixel's
    int32_t channels, numbers;
};

// Boxes are (numbers, 2, WIDTH): the lowest and the highest coordinates of WIDTH groups or leaves.
struct Tree {
    int32_t *members;     // (groups, GROUP): pixels
    int32_t *sizes;       // (groups,): members that exist, the first ones
    float *leaf_boxes;    // (groups,)
    float *group_boxes;   // (groups / WIDTH, rounded up,)
    int64_t groups;
};

// A weight is 2^(reference - precision * |numbers - patch|^2), at most 2^(reference - safe_precision * |box|^2).
struct Queries {
    const float *numbers, *rotated;           // (count, numbers)
    const float *precision, *safe_precision;  // (count,)
    float *reference;                         // (count,)
    int64_t count;
};

int screen_leaf() { return LEAF; }
int screen_group() { return GROUP; }
int screen_lanes() { return WIDTH; }
}

namespace {

template <class Code>
struct Reader {
    static inline void fetch(const Patches &P, int32_t pixel) {
        const char *at = (const char *)((const Code *)P.codes + (int64_t)pixel * P.channels);
        for (int j = 0; j < P.numbers; j += 3 * P.channels) __builtin_prefetch(at + P.offsets[j] * sizeof(Code));
    }
    static void read(const Patches &P, const int32_t *pixels, int count, float *out) {
        const int32_t *offsets = P.offsets;
        const float *levels = P.levels;
        const int n = P.numbers;
        for (int i = 0; i < std::min(AHEAD, count); i++) fetch(P, pixels[i]);
        for (int i = 0; i < count; i++) {
            if (i + AHEAD < count) fetch(P, pixels[i + AHEAD]);
            const Code *at = (const Code *)P.codes + (int64_t)pixels[i] * P.channels;
            float *to = out + i;
            for (int j = 0; j < n; j++, to += LEAF) *to = sizeof(Code) == 1 ? levels[(int)at[offsets[j]]] : (float)at[offsets[j]];
        }
    }
};

// At most LEAF patches, (numbers, LEAF); those that do not exist are nowhere.
void read_leaf(const Patches &P, const int32_t *pixels, int count, Floats *out) {
    if (count < LEAF)
        for (int i = 0; i < P.numbers * ACROSS; i++) out[i] = splat(NOWHERE);
    if (P.levels) Reader<uint8_t>::read(P, pixels, count, (float *)out);
    else Reader<float>::read(P, pixels, count, (float *)out);
}

// Squared distances of one leaf's patches.
__attribute__((noinline)) void distances(const Patches &P, const Floats *leaf, const float *query, Floats *box) {
    for (int v = 0; v < ACROSS; v++) box[v] = Floats{};
    for (int from = 0; from < P.numbers; from += TERMS) {
        const int to = std::min(P.numbers, from + TERMS);
        Floats part[ACROSS] = {};
        for (int j = from; j < to; j++)
            for (int v = 0; v < ACROSS; v++) {
                const Floats d = query[j] - leaf[j * ACROSS + v];
                part[v] += d * d;
            }
        for (int v = 0; v < ACROSS; v++) box[v] += part[v];
    }
}

// Weights of one leaf's patches, and of them times the pixels.
INLINE void add(const Patches &P, const Floats *leaf, const Floats *box, float reference, float precision, Doubles *sums) {
    Floats weight[ACROSS], weighted[ACROSS];
    for (int v = 0; v < ACROSS; v++) weight[v] = exp2(reference - precision * box[v]);
    sums[0] += folded(sum_of<ACROSS>(weight));
    for (int c = 0; c < P.channels; c++) {
        for (int v = 0; v < ACROSS; v++) weighted[v] = weight[v] * leaf[P.centre[c] * ACROSS + v];
        sums[1 + c] += folded(sum_of<ACROSS>(weighted));
    }
}

// Upper bounds on the log2 of the weights in WIDTH boxes. Where all lie below `enough`, they may be less tight.
__attribute__((noinline)) Floats log_bounds(const Floats *boxes, const float *query, int numbers, float reference,
                                            float precision, float enough) {
    Floats square = {}, bound = {};
    for (int from = 0; from < numbers; from += TERMS) {
        const int to = std::min(numbers, from + TERMS);
        for (int j = from; j < to; j++) {
            const Floats out = max(max(boxes[2 * j] - query[j], query[j] - boxes[2 * j + 1]), Floats{});
            square += out * out;
        }
        bound = reference - precision * square;
        if (!at_least(bound, enough)) break;
    }
    return bound;
}

INLINE Floats leaf_sizes(int size) {
    Floats sizes;
    for (int i = 0; i < WIDTH; i++) sizes[i] = (float)std::min(LEAF, std::max(0, size - i * LEAF));
    return sizes;
}

// Every `workers`-th block of WIDTH groups. `far(q, bounds, sizes)` for each query q and block; `near(g, who)` for each
// group g with the queries for which its bound reaches `enough`, but for those that have summed it already.
template <class Far, class Near>
void descend(const Patches &P, const Tree &T, const Queries &Q, const float *enough, const int64_t *summed, int worker,
             int workers, Far far, Near near) {
    const int64_t blocks = (T.groups + WIDTH - 1) / WIDTH;
    std::vector<int32_t> who[WIDTH];
    for (int64_t block = worker; block < blocks; block += workers) {
        const Floats *boxes = (const Floats *)T.group_boxes + block * P.numbers * 2;
        Floats sizes = {};
        for (int i = 0; i < WIDTH && block * WIDTH + i < T.groups; i++) sizes[i] = (float)T.sizes[block * WIDTH + i];
        for (auto &list : who) list.clear();
        for (int64_t q = 0; q < Q.count; q++) {
            Floats bounds = log_bounds(boxes, Q.rotated + q * P.numbers, P.numbers, Q.reference[q], Q.safe_precision[q], enough[q]);
            if (summed[q] / WIDTH == block) bounds[summed[q] % WIDTH] = -INFINITY;
            unsigned reach = at_least(bounds, enough[q]);
            far(q, bounds, sizes);
            for (; reach; reach &= reach - 1) who[__builtin_ctz(reach)].push_back((int32_t)q);
        }
        for (int lane = 0; lane < WIDTH && block * WIDTH + lane < T.groups; lane++)
            if (!who[lane].empty()) near(block * WIDTH + lane, who[lane]);
    }
}

// Measure leaves for the queries whose bounds on them reach `enough` and are `wanted(q, bound)`, in the groups that
// `descend` comes near: `use(q, leaf, members, size, boxes)`, with the patches' squared distances.
template <class Wanted, class Use>
void measure_leaves(const Patches &P, const Tree &T, const Queries &Q, const float *enough, const int64_t *summed, int worker,
                    int workers, Wanted wanted, Use use) {
    const int n = P.numbers;
    std::vector<Floats> leaf((int64_t)n * ACROSS);
    std::vector<int32_t> lists[WIDTH];
    descend(
        P, T, Q, enough, summed, worker, workers, [](int64_t, Floats, Floats) {},
        [&](int64_t g, const std::vector<int32_t> &who) {
            const Floats *boxes = (const Floats *)T.leaf_boxes + g * n * 2;
            for (auto &list : lists) list.clear();
            for (const int32_t q : who) {
                const Floats bounds = log_bounds(boxes, Q.rotated + (int64_t)q * n, n, Q.reference[q], Q.safe_precision[q], enough[q]);
                for (unsigned reach = at_least(bounds, enough[q]); reach; reach &= reach - 1) {
                    const int lane = __builtin_ctz(reach);
                    if (wanted(q, bounds[lane])) lists[lane].push_back(q);
                }
            }
            for (int lane = 0; lane < WIDTH; lane++) {
                const int size = std::min(LEAF, T.sizes[g] - lane * LEAF);
                if (lists[lane].empty() || size <= 0) continue;
                const int32_t *members = T.members + g * GROUP + lane * LEAF;
                read_leaf(P, members, size, leaf.data());
                for (const int32_t q : lists[lane]) {
                    Floats found[ACROSS];
                    distances(P, leaf.data(), Q.numbers + (int64_t)q * n, found);
                    use(q, leaf.data(), members, size, found);
                }
            }
        });
}

// The coordinates of at most LEAF patches: out (numbers, ACROSS) = rotation^T, (numbers, numbers), times leaf.
void rotate(const Patches &P, const Floats *leaf, const float *rotation, Floats *out) {
    const int n = P.numbers;
    for (int k = 0; k < n; k++) {
        Floats along[ACROSS] = {};
        for (int j = 0; j < n; j++)
            for (int v = 0; v < ACROSS; v++) along[v] += rotation[j * n + k] * leaf[j * ACROSS + v];
        for (int v = 0; v < ACROSS; v++) out[k * ACROSS + v] = along[v];
    }
}

// Sort patches [from, to) of `order` by the halves of their widest coordinate, down to single units.
// points: (numbers, count).
void split(const std::vector<float> &points, int numbers, uint32_t *order, int64_t from, int64_t to, int64_t unit,
           std::vector<std::pair<float, uint32_t>> &keys) {
    if (to - from <= unit) return;
    const int64_t count = points.size() / numbers, step = std::max<int64_t>(1, (to - from) / SPREAD_OF);
    const float *axis = nullptr;
    double widest = -1;
    for (int j = 0; j < numbers; j++) {
        const float *along = points.data() + j * count;
        double one = 0, two = 0, seen = 0;
        for (int64_t i = from; i < to; i += step, seen++) {
            const double x = along[order[i]];
            one += x, two += x * x;
        }
        const double spread = two - one * one / seen;
        if (spread > widest) widest = spread, axis = along;
    }
    const int64_t units = (to - from + unit - 1) / unit, middle = from + (units + 1) / 2 * unit;
    keys.resize(to - from);
    for (int64_t i = from; i < to; i++) keys[i - from] = {axis[order[i]], order[i]};
    std::nth_element(keys.begin(), keys.begin() + (middle - from), keys.end());
    for (int64_t i = from; i < to; i++) order[i] = keys[i - from].second;
    split(points, numbers, order, from, middle, unit, keys);
    split(points, numbers, order, middle, to, unit, keys);
}

}  // namespace

extern "C" {

// The coordinates of patches, out (numbers, count): their numbers times rotation, (numbers, numbers).
void screen_rotate(const Patches *patches, const int32_t *pixels, int64_t count, const float *rotation, float *out) {
    const int n = patches->numbers;
    std::vector<Floats> leaf((int64_t)n * ACROSS), turned(leaf.size());
    for (int64_t from = 0; from < count; from += LEAF) {
        const int held = (int)std::min<int64_t>(LEAF, count - from);
        read_leaf(*patches, pixels + from, held, leaf.data());
        rotate(*patches, leaf.data(), rotation, turned.data());
        for (int k = 0; k < n; k++) memcpy(out + k * count + from, &turned[(int64_t)k * ACROSS], held * sizeof(float));
    }
}

// The leaf of a complete binary tree, 2^depth leaves, that each patch falls into. Node i, counted from 1, sends those
// whose coordinate axes[i] is above cuts[i] to 2 i + 1, the others to 2 i.
void screen_route(const Patches *patches, const int32_t *pixels, int64_t count, const float *rotation,
                  const int32_t *axes, const float *cuts, int depth, int16_t *out) {
    std::vector<Floats> leaf((int64_t)patches->numbers * ACROSS), turned(leaf.size());
    for (int64_t from = 0; from < count; from += LEAF) {
        const int held = (int)std::min<int64_t>(LEAF, count - from);
        read_leaf(*patches, pixels + from, held, leaf.data());
        rotate(*patches, leaf.data(), rotation, turned.data());
        const float *coordinates = (const float *)turned.data();
        for (int i = 0; i < held; i++) {
            int node = 1;
            for (int level = 0; level < depth; level++) node = 2 * node + (coordinates[axes[node] * LEAF + i] > cuts[node]);
            out[from + i] = (int16_t)(node - (1 << depth));
        }
    }
}

// Sort pixels by bucket; `starts` is where each bucket begins, and comes back as where it ends.
void screen_arrange(const int32_t *pixels, const int16_t *buckets, int64_t count, int64_t *starts, int32_t *out) {
    for (int64_t i = 0; i < count; i++) out[starts[buckets[i]]++] = pixels[i];
}

// The groups from `first` on of a tree, from `count` pixels. Boxes are `wider` than the coordinates on each side.
void screen_build(const Patches *patches, const int32_t *pixels, int64_t count, const float *rotation, float wider,
                  int64_t first, const Tree *tree) {
    const int n = patches->numbers;
    std::vector<float> points(count * n);
    std::vector<uint32_t> order(count);
    std::vector<std::pair<float, uint32_t>> keys;
    screen_rotate(patches, pixels, count, rotation, points.data());
    for (int64_t i = 0; i < count; i++) order[i] = (uint32_t)i;
    split(points, n, order.data(), 0, count, GROUP, keys);
    for (int64_t from = 0, g = first; from < count; from += GROUP, g++) {
        const int size = (int)std::min<int64_t>(GROUP, count - from);
        split(points, n, order.data(), from, from + size, LEAF, keys);
        tree->sizes[g] = size;
        int32_t *members = tree->members + g * GROUP;
        for (int i = 0; i < GROUP; i++) members[i] = i < size ? pixels[order[from + i]] : 0;
        float *leaves = tree->leaf_boxes + g * n * 2 * WIDTH;
        float *group = tree->group_boxes + g / WIDTH * n * 2 * WIDTH + g % WIDTH;
        for (int j = 0; j < n; j++, leaves += 2 * WIDTH, group += 2 * WIDTH) {
            group[0] = INFINITY, group[WIDTH] = -INFINITY;
            for (int leaf = 0; leaf < WIDTH; leaf++) {
                float low = INFINITY, high = -INFINITY;
                for (int i = leaf * LEAF; i < std::min(size, (leaf + 1) * LEAF); i++) {
                    const float x = points[j * count + order[from + i]];
                    low = std::min(low, x), high = std::max(high, x);
                }
                leaves[leaf] = low - wider, leaves[WIDTH + leaf] = high + wider;
                group[0] = std::min(group[0], leaves[leaf]), group[WIDTH] = std::max(group[WIDTH], leaves[WIDTH + leaf]);
            }
        }
    }
}

// For each of the queries [from, to) the group of the nearest patch in the PROBES leaves whose boxes are nearest.
void screen_nearest(const Patches *patches, const Tree *tree, const Queries *queries, int64_t from, int64_t to, int64_t *out) {
    const int n = patches->numbers;
    std::vector<Floats> patch((int64_t)n * ACROSS);
    std::vector<std::pair<float, int64_t>> probes;  // a heap, the farthest leaf on top
    for (int64_t q = from; q < to; q++) {
        float enough = -INFINITY, best = INFINITY;
        const auto bounds = [&](const float *boxes, int64_t i) {
            return log_bounds((const Floats *)boxes + i * n * 2, queries->rotated + q * n, n, 0, 1, enough);
        };
        probes.clear();
        for (int64_t first = 0; first < tree->groups; first += WIDTH) {
            const Floats near = bounds(tree->group_boxes, first / WIDTH);
            for (unsigned reach = at_least(near, enough); reach; reach &= reach - 1) {
                const int64_t g = first + __builtin_ctz(reach);
                if (g >= tree->groups || near[__builtin_ctz(reach)] < enough) continue;
                const Floats nearer = bounds(tree->leaf_boxes, g);
                for (int lane = 0; lane < WIDTH && lane * LEAF < tree->sizes[g]; lane++) {
                    if (nearer[lane] <= enough) continue;
                    probes.emplace_back(-nearer[lane], g * WIDTH + lane);
                    std::push_heap(probes.begin(), probes.end());
                    if (probes.size() <= PROBES) continue;
                    std::pop_heap(probes.begin(), probes.end());
                    probes.pop_back();
                    enough = -probes.front().first;
                }
            }
        }
        for (const auto &probe : probes) {
            const int64_t g = probe.second / WIDTH, lane = probe.second % WIDTH;
            Floats boxes[ACROSS];
            read_leaf(*patches, tree->members + probe.second * LEAF, std::min<int>(LEAF, tree->sizes[g] - lane * LEAF), patch.data());
            distances(*patches, patch.data(), queries->numbers + q * n, boxes);
            for (int i = 0; i < LEAF; i++)
                if (boxes[i / WIDTH][i % WIDTH] < best) best = boxes[i / WIDTH][i % WIDTH], out[q] = g;
        }
    }
}

// Sum over `count` pixels' patches for the queries [from, to). The reference follows the nearest patch.
// total (queries,), weighted (queries, channels): start at 0, with a reference of infinity.
void screen_sum(const Patches *patches, const int32_t *pixels, int64_t count, const Queries *queries, int64_t from,
                int64_t to, double *total, double *weighted) {
    const int n = patches->numbers, c = patches->channels;
    std::vector<Floats> leaves((int64_t)WIDTH * n * ACROSS), boxes(WIDTH * ACROSS);
    std::vector<Doubles> sums(1 + c);
    for (int64_t at = 0; at < count; at += GROUP) {
        const int size = (int)std::min<int64_t>(GROUP, count - at), held = (size + LEAF - 1) / LEAF;
        for (int i = 0; i < held; i++)
            read_leaf(*patches, pixels + at + i * LEAF, std::min(LEAF, size - i * LEAF), &leaves[(int64_t)i * n * ACROSS]);
        for (int64_t q = from; q < to; q++) {
            Floats nearest = splat(-INFINITY);
            for (int i = 0; i < held; i++) {
                distances(*patches, &leaves[(int64_t)i * n * ACROSS], queries->numbers + q * n, &boxes[i * ACROSS]);
                for (int v = 0; v < ACROSS; v++) nearest = max(nearest, -boxes[i * ACROSS + v]);
            }
            const float before = queries->reference[q], now = std::min(before, queries->precision[q] * -largest(nearest));
            const double kept = before == INFINITY ? 0 : std::exp2((double)now - before);
            std::fill(sums.begin(), sums.end(), Doubles{});
            for (int i = 0; i < held; i++)
                add(*patches, &leaves[(int64_t)i * n * ACROSS], &boxes[i * ACROSS], now, queries->precision[q], sums.data());
            queries->reference[q] = now;
            total[q] = total[q] * kept + sum(sums[0]);
            for (int j = 0; j < c; j++) weighted[q * c + j] = weighted[q * c + j] * kept + sum(sums[1 + j]);
        }
    }
}

// How many patches there are in leaves of which weight, at most, without those of the group `summed`.
//
// tally (queries, bins): patches in leaves whose bound on log2 of a weight is from `least` + bin / steps on; the last
// bin has no end. rest (queries,): a bound on the weight of all others.
void screen_tally(const Patches *patches, const Tree *tree, const Queries *queries, const int64_t *summed,
                  const float *least, int bins, int steps, int worker, int workers, int32_t *tally, double *rest) {
    const int n = patches->numbers;
    const auto bounded = [](Floats bounds, Floats sizes) { return sum(folded(sizes * exp2(bounds))); };
    descend(
        *patches, *tree, *queries, least, summed, worker, workers,
        [&](int64_t q, Floats bounds, Floats sizes) {
            rest[q] += bounded(bounds, bounds < splat(least[q]) ? sizes : Floats{});
        },
        [&](int64_t g, const std::vector<int32_t> &who) {
            const Floats *boxes = (const Floats *)tree->leaf_boxes + g * n * 2, sizes = leaf_sizes(tree->sizes[g]);
            for (const int32_t q : who) {
                const Floats bounds = log_bounds(boxes, queries->rotated + (int64_t)q * n, n, queries->reference[q],
                                                 queries->safe_precision[q], least[q]);
                unsigned reach = at_least(bounds, least[q]);
                Floats others = sizes;
                for (; reach; reach &= reach - 1) {
                    const int lane = __builtin_ctz(reach);
                    const float bin = std::min((bounds[lane] - least[q]) * (float)steps, (float)(bins - 1));
                    tally[(int64_t)q * bins + (int)bin] += (int32_t)sizes[lane];
                    others[lane] = 0;
                }
                rest[q] += bounded(bounds, others);
            }
        });
}

// Sum over the leaves whose bound reaches bin `cut` of the tally, without those of the group `summed`.
// visited (queries,): counts patches.
void screen_visit(const Patches *patches, const Tree *tree, const Queries *queries, const int64_t *summed,
                  const float *least, const int32_t *cut, int bins, int steps, int worker, int workers,
                  int64_t *visited, double *total, double *weighted) {
    const int c = patches->channels;
    std::vector<Doubles> sums(queries->count * (1 + c), Doubles{});
    measure_leaves(
        *patches, *tree, *queries, least, summed, worker, workers,
        [&](int32_t q, float bound) {
            const float bin = std::min((bound - least[q]) * (float)steps, (float)(bins - 1));
            return (int)bin >= cut[q];
        },
        [&](int32_t q, const Floats *leaf, const int32_t *, int size, const Floats *boxes) {
            add(*patches, leaf, boxes, queries->reference[q], queries->precision[q], &sums[(int64_t)q * (1 + c)]);
            visited[q] += size;
        });
    for (int64_t q = 0; q < queries->count; q++) {
        total[q] += sum(sums[q * (1 + c)]);
        for (int j = 0; j < c; j++) weighted[q * c + j] += sum(sums[q * (1 + c) + 1 + j]);
    }
}

// The nearest patch to each query, of those in every `workers`-th block of groups; of equally near ones the first pixel.
// Patches at the `span` pixels from `hidden` (queries,) on do not count.
// square, pixel (queries,): start at the largest squared distance that counts, and at -1.
void screen_closest(const Patches *patches, const Tree *tree, const Queries *queries, const int32_t *hidden, int span,
                    int worker, int workers, float *square, int32_t *pixel) {
    const std::vector<int64_t> summed(queries->count, -WIDTH);
    std::vector<float> enough(queries->count);
    for (int64_t q = 0; q < queries->count; q++) enough[q] = -square[q];
    measure_leaves(
        *patches, *tree, *queries, enough.data(), summed.data(), worker, workers, [](int32_t, float) { return true; },
        [&](int32_t q, const Floats *, const int32_t *members, int, const Floats *found) {
            for (int v = 0; v < ACROSS; v++)
                for (unsigned near = at_least(-found[v], -square[q]); near; near &= near - 1) {
                    const int i = __builtin_ctz(near);
                    const int32_t p = members[v * WIDTH + i];
                    const bool nearer = found[v][i] < square[q] || (found[v][i] == square[q] && (pixel[q] < 0 || p < pixel[q]));
                    if (nearer && (uint32_t)(p - hidden[q]) >= (uint32_t)span) square[q] = found[v][i], pixel[q] = p;
                }
            enough[q] = -square[q];
        });
}
}
