/* Two kernels of a decode step on a CPU: RMS norm, and attention of one new token a row over the slot cache.

   Compiled on first use by `native.py`, once for float32 and once (-DBFLOAT16) for bfloat16 elements; all sums are in
   float32. A row is computed by one thread in an order that depends on nothing but its own position, so a sample never
   depends on its batch. Legend: `n` rows, `d` model width, `Hq` query heads, `H` key/value heads, `R` = Hq / H,
   `D` head width (a multiple of 32, at most MAX_WIDTH), `K` tokens a slot holds. */

#include <math.h>
#include <stdint.h>
#include <string.h>

#define LANES 16
#define WIDE 32
#define TILE 64 /* tokens whose keys stay in the first-level cache while all R queries read them */
#define MAX_WIDTH 256
#define WORTH_A_FORK 65536 /* numbers; below, waking the other threads costs more than they save */
#define CACHE_LINE 64 /* bytes */
#ifdef __clang__
#define REORDER(x, ...) __builtin_shufflevector(x, x, __VA_ARGS__)
#else
#define REORDER(x, ...) __builtin_shuffle(x, (ints){__VA_ARGS__})
#endif
#define EVERYWHERE static inline __attribute__((always_inline))

typedef float floats __attribute__((vector_size(4 * LANES)));
typedef int32_t ints __attribute__((vector_size(4 * LANES)));
typedef uint32_t words __attribute__((vector_size(4 * LANES)));
typedef struct {
    floats first, second;
} wide; /* WIDE elements in the order that loads fastest; products of two of them and sums do not mind the order */
typedef uint16_t halves __attribute__((vector_size(2 * LANES)));

#ifdef BFLOAT16
typedef uint16_t element; /* the upper half of a float32 */

EVERYWHERE floats load(const element *from) {
    halves upper;
    memcpy(&upper, from, sizeof upper);
    return (floats)(__builtin_convertvector(upper, words) << 16);
}

EVERYWHERE wide load_wide(const element *from) { /* elements 0, 2, 4, ... and 1, 3, 5, ... */
    words pairs;
    memcpy(&pairs, from, sizeof pairs);
    return (wide){(floats)(pairs << 16), (floats)(pairs & 0xffff0000)};
}

EVERYWHERE words rounded(floats value) { /* to the nearest, ties to even; the lower half is left over */
    words bits = (words)value;
    return bits + 0x7fff + ((bits >> 16) & 1);
}

EVERYWHERE void store(element *to, floats value) {
    halves upper = __builtin_convertvector(rounded(value) >> 16, halves);
    memcpy(to, &upper, sizeof upper);
}

EVERYWHERE void store_wide(element *to, wide value) {
    words pairs = (rounded(value.first) >> 16) | (rounded(value.second) & 0xffff0000);
    memcpy(to, &pairs, sizeof pairs);
}
#else
typedef float element;

EVERYWHERE floats load(const element *from) {
    floats value;
    memcpy(&value, from, sizeof value);
    return value;
}

EVERYWHERE wide load_wide(const element *from) { return (wide){load(from), load(from + LANES)}; }

EVERYWHERE void store(element *to, floats value) { memcpy(to, &value, sizeof value); }

EVERYWHERE void store_wide(element *to, wide value) {
    store(to, value.first);
    store(to + LANES, value.second);
}
#endif

EVERYWHERE float sum(floats value) {
    value += REORDER(value, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
    value += REORDER(value, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11);
    value += REORDER(value, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
    value += REORDER(value, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14);
    return value[0];
}

/* e^x for x <= 0, within 2 units in the last place; 0 below -87. Cody-Waite reduction and Cephes' polynomial. */
EVERYWHERE floats exponential(floats x) {
    ints visible = x >= -87.0f; /* all bits set where true */
    ints power = __builtin_convertvector(x * 1.44269504088896341f - 0.5f, ints);
    floats whole = __builtin_convertvector(power, floats);
    floats rest = x - whole * 0.693359375f + whole * 2.12194440e-4f;
    floats series = (floats){} + 1.9875691500e-4f;
    series = series * rest + 1.3981999507e-3f;
    series = series * rest + 8.3334519073e-3f;
    series = series * rest + 4.1665795894e-2f;
    series = series * rest + 1.6666665459e-1f;
    series = series * rest + 5.0000001201e-1f;
    series = series * rest * rest + rest + 1.0f;
    return (floats)((ints)(series * (floats)((power + 127) << 23)) & visible);
}

/* One row `x` [width] times `weight` [width] over its root mean square. */
EVERYWHERE void normalise(const element *x, const element *weight, float epsilon, int64_t width, element *out) {
    floats squares = {};
    for (int64_t i = 0; i < width; i += LANES) squares += load(x + i) * load(x + i);
    float scale = 1.0f / sqrtf(sum(squares) / (float)width + epsilon);
    for (int64_t i = 0; i < width; i += LANES) store(out + i, load(x + i) * scale * load(weight + i));
}

/* `x` [n, d] row by row. */
void rms_norm(const element *x, const element *weight, double epsilon, int64_t n, int64_t d, int64_t threads,
              element *out) {
#pragma omp parallel for schedule(static) num_threads(threads) if (n * d >= WORTH_A_FORK)
    for (int64_t row = 0; row < n; row++) normalise(x + row * d, weight, (float)epsilon, d, out + row * d);
}

/* What one call of `attend` reads and writes beside its rows; laid out as `AttentionArguments` of native.py. */
typedef struct {
    const element *cosine, *signed_sine;     /* [K, D] */
    const element *query_norm, *key_norm;    /* [D] each, or null */
    element *keys, *values;                  /* [S, H, K, D] each: one layer of the cache */
    int64_t slot_tokens, query_heads, heads, width;
    double epsilon;
} attention;

EVERYWHERE void turn(const attention *a, const element *head, const element *norm, int64_t position, element *out) {
    element normed[MAX_WIDTH];
    if (norm) {
        normalise(head, norm, (float)a->epsilon, a->width, normed);
        head = normed;
    }
    const element *cosine = a->cosine + position * a->width, *sine = a->signed_sine + position * a->width;
    int64_t half = a->width / 2;
    float plain[MAX_WIDTH], swapped[MAX_WIDTH];
    for (int64_t i = 0; i < a->width; i += LANES) {
        floats value = load(head + i);
        memcpy(plain + i, &value, sizeof value);
    }
    memcpy(swapped, plain + half, half * sizeof(float));
    memcpy(swapped + half, plain, half * sizeof(float));
    for (int64_t i = 0; i < a->width; i += LANES) {
        floats value, other;
        memcpy(&value, plain + i, sizeof value);
        memcpy(&other, swapped + i, sizeof other);
        store(out + i, value * load(cosine + i) + other * load(sine + i));
    }
}

/* Ask for a row of `width` elements ahead of its use: the processor's own prefetch stops at every page. */
EVERYWHERE void fetch(const element *row, int64_t width) {
    for (int64_t i = 0; i < width; i += CACHE_LINE / (int64_t)sizeof(element)) __builtin_prefetch(row + i);
}

/* Attention of the R queries [R, D] that share one key/value head over its first `length` tokens, tile by tile with a
   running maximum (Milakov and Gimelshein 2018; Dao et al. 2022). */
EVERYWHERE void attend_head(const element *queries, const element *keys, const element *values, int64_t length,
                            int64_t group, int64_t width, element *out) {
    const floats none = {};
    float scale = 1.0f / sqrtf((float)width), highest[group];
    wide mixed[group][MAX_WIDTH / WIDE];
    floats total[group], scores[group][TILE / LANES];
    for (int64_t r = 0; r < group; r++) {
        highest[r] = -INFINITY;
        total[r] = none;
        for (int64_t i = 0; i < width / WIDE; i++) mixed[r][i] = (wide){none, none};
    }
    for (int64_t start = 0; start < length; start += TILE) {
        int64_t seen = length - start < TILE ? length - start : TILE;
        int64_t padded = (seen + LANES - 1) / LANES * LANES;
        for (int64_t r = 0; r < group; r++) {
            float *score = (float *)scores[r], before = highest[r];
            for (int64_t t = 0; t < seen; t++) {
                wide products = {none, none};
                if (!r) fetch(values + (start + t) * width, width);
                for (int64_t i = 0; i < width; i += WIDE) {
                    wide query = load_wide(queries + r * width + i), key = load_wide(keys + (start + t) * width + i);
                    products.first += query.first * key.first;
                    products.second += query.second * key.second;
                }
                score[t] = sum(products.first + products.second) * scale;
                highest[r] = score[t] > highest[r] ? score[t] : highest[r];
            }
            for (int64_t t = seen; t < padded; t++) score[t] = -INFINITY;
            float fade = exponential(none + (before - highest[r]))[0];
            total[r] *= fade;
            for (int64_t i = 0; i < width / WIDE; i++)
                mixed[r][i] = (wide){mixed[r][i].first * fade, mixed[r][i].second * fade};
            for (int64_t t = 0; t < padded / LANES; t++) {
                scores[r][t] = exponential(scores[r][t] - highest[r]);
                total[r] += scores[r][t];
            }
            for (int64_t t = 0; t < seen; t++) {
                if (!r) fetch(keys + (start + TILE + t) * width, width);
                for (int64_t i = 0; i < width / WIDE; i++) {
                    wide value = load_wide(values + (start + t) * width + i * WIDE);
                    mixed[r][i].first += score[t] * value.first;
                    mixed[r][i].second += score[t] * value.second;
                }
            }
        }
    }
    for (int64_t r = 0; r < group; r++) {
        float share = 1.0f / sum(total[r]);
        for (int64_t i = 0; i < width / WIDE; i++)
            store_wide(out + r * width + i * WIDE, (wide){mixed[r][i].first * share, mixed[r][i].second * share});
    }
}

/* Turn the new token's query and key by its position, keep its key and value, and attend.

   `projected` [n, (Hq + 2 H) * D] holds queries, keys and values of the new token of each row, `positions` [n] where
   it stands; `out` [n, Hq * D]. Row i looks at slot i, up to and with its own position. */
void attend(const attention *a, const element *projected, const int64_t *positions, int64_t n, int64_t threads,
            element *out) {
    int64_t width = a->width, group = a->query_heads / a->heads, stride = a->slot_tokens;
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads)
    for (int64_t row = 0; row < n; row++)
        for (int64_t head = 0; head < a->heads; head++) {
            const element *own = projected + row * (a->query_heads + 2 * a->heads) * width;
            const element *key = own + (a->query_heads + head) * width;
            int64_t position = positions[row], first = head * group;
            element *keys = a->keys + (row * a->heads + head) * stride * width;
            element *values = a->values + (row * a->heads + head) * stride * width;
            turn(a, key, a->key_norm, position, keys + position * width);
            memcpy(values + position * width, key + a->heads * width, width * sizeof(element));
            element queries[group * MAX_WIDTH];
            for (int64_t r = 0; r < group; r++)
                turn(a, own + (first + r) * width, a->query_norm, position, queries + r * width);
            element *mixed = out + (row * a->query_heads + first) * width;
            switch (width) { /* the usual widths, unrolled */
                case 32: attend_head(queries, keys, values, position + 1, group, 32, mixed); break;
                case 64: attend_head(queries, keys, values, position + 1, group, 64, mixed); break;
                case 128: attend_head(queries, keys, values, position + 1, group, 128, mixed); break;
                default: attend_head(queries, keys, values, position + 1, group, width, mixed);
            }
        }
}
