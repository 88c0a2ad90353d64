/* A BERT encoder in 8-bit integers for CPUs with AVX512-VNNI and AVX512-BF16.
 *
 * Owns the arithmetic of one batch and nothing else: no file, no tokenizer, no queue. Weights are
 * read where they lie (memory-mapped by the caller, packed by kernels/packed_weights.py) and never
 * copied. Texts are packed one after the other without padding, and each token's activations are
 * quantised by that token's own range, so a text's vector does not depend on its batch mates.
 *
 * Matrix multiplication: u8 x s8 -> i32 tiles of 6 rows x 64 columns held in registers (the usual
 * outer-product kernel, Goto & van de Geijn 2008). Attention: bf16 products, fp32 softmax.
 * Threads take groups of texts, longest first, and run each group through all layers by themselves:
 * no thread ever waits for another, and a group's activations stay in its core's cache. A batch of
 * too few texts for that is shared by rows; its threads meet once a layer.
 */
#define _GNU_SOURCE
#include <immintrin.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define PANEL 64 /* columns of one packed weight panel */
#define TILE 6   /* rows of one register tile */
#define BLOCK 48 /* rows that go through a layer together; their activations stay in L2 */
#define MAX_THREADS 256
#define LEAST_GROUP 48 /* rows of the smallest and the largest group of texts */
#define LARGEST_GROUP 256

/* Weights (out, in) packed as [out/64][in/4][64][4] signed bytes.
 * y[n] = scale[n] * (row_scale * sum_k q[k] w[n][k] + row_low * sum[n]) + bias[n]. */
typedef struct {
    const int8_t *weights;
    const float *scale;
    const float *sum;
    const float *bias;
} linear;

typedef struct {
    linear qkv, attended, wide;
    const linear *narrow; /* ffn / hidden of them, one a group of inputs with ranges of its own */
    /* factors on the inputs, channel by channel; the weights hold their inverses */
    const float *qkv_in, *attended_in, *wide_in, *narrow_in;
    const float *attended_norm_w, *attended_norm_b, *output_norm_w, *output_norm_b;
} layer;

/* word_kind: 0 fp16 rows, 1 4-bit blocks of 32 (two's-complement-free: nibble - 8) with fp16 scales */
typedef struct {
    int32_t hidden, layers, heads, ffn, word_kind, first_token_only;
    float eps;
    const void *words;
    const uint16_t *word_scales;
    const float *positions; /* (positions, hidden) */
    const float *types;     /* (types, hidden) */
    const float *norm_w, *norm_b;
    const layer *layer;
} model;

typedef struct {
    const int32_t *offsets, *ids, *types;
    int32_t texts, tokens;
    float *out;
} batch;

struct encoder;
typedef struct {
    struct encoder *owner;
    int32_t index;
    void *scratch;
    size_t scratch_bytes;
} worker;

typedef struct encoder {
    model m;
    int32_t threads;
    pthread_t handles[MAX_THREADS];
    worker workers[MAX_THREADS];
    pthread_mutex_t lock;
    pthread_cond_t wake, done;
    uint64_t generation;
    int32_t running, active;
    int closing;
    batch job;
    float *hidden;    /* (tokens, hidden): the residual stream */
    float *context;   /* (tokens, hidden): attention's output */
    uint16_t *qkv[2]; /* (tokens, 3 hidden) bf16; two, so that one meeting a layer is enough */
    int32_t *text_of; /* which text a row belongs to */
    size_t room;      /* tokens the buffers hold */
    /* texts are laid out longest first: */
    float *pooled;      /* (texts, hidden): the results, in this order */
    int32_t *order;     /* the caller's number of each text */
    int32_t *starts;    /* (texts + 1): the first row of each text */
    int32_t *groups;    /* (groups + 1): the first text of each group */
    size_t text_room;   /* texts the buffers hold */
    int32_t group_count; /* 0: shared by rows */
    atomic_int next_group;
    atomic_int arrived;
    atomic_uint phase;
} encoder;

/* ---- quantisation, norms, activations ---------------------------------------------------- */

typedef struct {
    float scale, low;
} range;

/* Quantise one row of x * factors to 0..255 between its own least and largest value. */
INLINE range quantise_row(const float *x, const float *factors, int32_t n, uint8_t *q) {
    __m512 least = _mm512_set1_ps(3e38f), largest = _mm512_set1_ps(-3e38f);
    for (int32_t i = 0; i < n; i += 16) {
        __m512 v = _mm512_mul_ps(_mm512_loadu_ps(x + i), _mm512_loadu_ps(factors + i));
        least = _mm512_min_ps(least, v);
        largest = _mm512_max_ps(largest, v);
    }
    range r;
    r.low = _mm512_reduce_min_ps(least);
    float span = _mm512_reduce_max_ps(largest) - r.low;
    r.scale = span > 1e-12f ? span / 255.0f : 1.0f;
    __m512 low = _mm512_set1_ps(r.low), inverse = _mm512_set1_ps(1.0f / r.scale);
    for (int32_t i = 0; i < n; i += 16) {
        __m512 v = _mm512_mul_ps(_mm512_loadu_ps(x + i), _mm512_loadu_ps(factors + i));
        __m512i u = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_sub_ps(v, low), inverse));
        _mm_storeu_si128((__m128i *)(q + i), _mm512_cvtusepi32_epi8(u));
    }
    return r;
}

INLINE void normalise_row(float *x, const float *w, const float *b, int32_t n, float eps) {
    __m512 sum = _mm512_setzero_ps(), squares = _mm512_setzero_ps();
    for (int32_t i = 0; i < n; i += 16) sum = _mm512_add_ps(sum, _mm512_loadu_ps(x + i));
    __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(sum) / (float)n);
    for (int32_t i = 0; i < n; i += 16) {
        __m512 d = _mm512_sub_ps(_mm512_loadu_ps(x + i), mean);
        squares = _mm512_fmadd_ps(d, d, squares);
    }
    float variance = _mm512_reduce_add_ps(squares) / (float)n;
    __m512 inverse = _mm512_set1_ps(1.0f / __builtin_sqrtf(variance + eps));
    for (int32_t i = 0; i < n; i += 16) {
        __m512 d = _mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(x + i), mean), inverse);
        _mm512_storeu_ps(x + i, _mm512_fmadd_ps(d, _mm512_loadu_ps(w + i), _mm512_loadu_ps(b + i)));
    }
}

/* x Phi(x), with Phi(x) = 0.5 + x P(x^2) and P fitted (Lawson) so that the product's largest error on
 * |x| <= 4.2 is least: below 3e-5 there, below 9e-5 beyond, where x is held at the edge. */
INLINE __m512 gelu(__m512 x) {
    const __m512 edge = _mm512_set1_ps(4.2f);
    __m512 c = _mm512_max_ps(_mm512_min_ps(x, edge), _mm512_sub_ps(_mm512_setzero_ps(), edge));
    __m512 s = _mm512_mul_ps(c, c);
    static const float coefficients[] = {
        4.923819157e-11f, -4.795662092e-09f, 2.072476338e-07f, -5.289564523e-06f, 8.983594349e-05f,
        -1.086459013e-03f, 9.740940171e-03f, -6.622207670e-02f, 3.988345783e-01f};
    __m512 p = _mm512_set1_ps(coefficients[0]);
#pragma GCC unroll 16
    for (unsigned i = 1; i < sizeof coefficients / sizeof *coefficients; i++)
        p = _mm512_fmadd_ps(p, s, _mm512_set1_ps(coefficients[i]));
    return _mm512_mul_ps(x, _mm512_fmadd_ps(p, c, _mm512_set1_ps(0.5f)));
}

/* 2^x for x <= 0, relative error below 8e-5: what it becomes, bf16, is fifty times coarser. */
INLINE __m512 power_of_two(__m512 x) {
    __m512 n = _mm512_roundscale_ps(x, 8);
    __m512 r = _mm512_sub_ps(x, n);
    __m512 p = _mm512_set1_ps(5.517166876e-02f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(2.426111328e-01f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(6.932609864e-01f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(9.999280729e-01f));
    return _mm512_scalef_ps(p, n);
}

INLINE void store_bf16(uint16_t *to, __m512 v) {
    _mm256_storeu_si256((__m256i *)to, (__m256i)_mm512_cvtneps_pbh(v));
}

/* acc += a . b by fours of bytes, or by pairs of bf16. As assembly, since compilers given the
 * intrinsics copy and spill the accumulators and lose half the speed. */
INLINE void dot_bytes(__m512i *acc, __m512i a, __m512i b) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(*acc) : "v"(a), "v"(b));
}
INLINE void dot_pairs(__m512 *acc, __m512i a, __m512i b) {
    __asm__("vdpbf16ps %2, %1, %0" : "+v"(*acc) : "v"(a), "v"(b));
}

/* ---- matrix multiplication --------------------------------------------------------------- */

typedef enum { TO_FLOAT, TO_FLOAT_PLUS, TO_GELU, TO_BF16 } result;

/* One tile: ROWS rows of quantised activations times one panel of 64 columns. */
INLINE void tile(const int rows, const result kind, const uint8_t *q, int32_t k, const range *ranges,
                 const linear *l, int32_t panel, float *y, uint16_t *half, int32_t stride) {
    __m512i acc[TILE][4];
    const int8_t *w = l->weights + (size_t)panel * PANEL * k;
#pragma GCC unroll 6
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) acc[i][j] = _mm512_setzero_si512();
    for (int32_t step = 0; step < k; step += 4, w += 4 * PANEL) {
        __m512i b0 = _mm512_loadu_si512(w), b1 = _mm512_loadu_si512(w + 64);
        __m512i b2 = _mm512_loadu_si512(w + 128), b3 = _mm512_loadu_si512(w + 192);
#pragma GCC unroll 6
        for (int i = 0; i < rows; i++) {
            int32_t four;
            memcpy(&four, q + (size_t)i * k + step, 4);
            __m512i a = _mm512_set1_epi32(four);
            dot_bytes(&acc[i][0], a, b0);
            dot_bytes(&acc[i][1], a, b1);
            dot_bytes(&acc[i][2], a, b2);
            dot_bytes(&acc[i][3], a, b3);
        }
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        int32_t column = panel * PANEL + 16 * j;
        __m512 scale = _mm512_loadu_ps(l->scale + column), sum = _mm512_loadu_ps(l->sum + column);
        __m512 bias = _mm512_loadu_ps(l->bias + column);
#pragma GCC unroll 6
        for (int i = 0; i < rows; i++) {
            __m512 v = _mm512_mul_ps(_mm512_cvtepi32_ps(acc[i][j]), _mm512_set1_ps(ranges[i].scale));
            v = _mm512_fmadd_ps(_mm512_set1_ps(ranges[i].low), sum, v);
            v = _mm512_fmadd_ps(v, scale, bias);
            size_t at = (size_t)i * stride + column;
            if (kind == TO_GELU) v = gelu(v);
            if (kind == TO_FLOAT_PLUS) v = _mm512_add_ps(v, _mm512_loadu_ps(y + at));
            if (kind == TO_BF16) store_bf16(half + at, v);
            else _mm512_storeu_ps(y + at, v);
        }
    }
}

/* y[rows][panels] = act(q x weights); TO_FLOAT_PLUS adds to what y holds. */
INLINE void multiply(const result kind, const uint8_t *q, int32_t rows, int32_t k,
                     const range *ranges, const linear *l, int32_t first_panel, int32_t last_panel,
                     float *y, uint16_t *half, int32_t stride) {
    for (int32_t panel = first_panel; panel < last_panel; panel++)
        for (int32_t row = 0; row < rows;) {
            int32_t left = rows - row, n = left >= 2 * TILE || left == TILE ? TILE : left;
            if (n > TILE) n = left / 2; /* two even tiles rather than a full and a thin one */
            const uint8_t *a = q + (size_t)row * k;
            float *to = y ? y + (size_t)row * stride : 0;
            uint16_t *to_half = half ? half + (size_t)row * stride : 0;
            switch (n) {
            case 6: tile(6, kind, a, k, ranges + row, l, panel, to, to_half, stride); break;
            case 5: tile(5, kind, a, k, ranges + row, l, panel, to, to_half, stride); break;
            case 4: tile(4, kind, a, k, ranges + row, l, panel, to, to_half, stride); break;
            case 3: tile(3, kind, a, k, ranges + row, l, panel, to, to_half, stride); break;
            case 2: tile(2, kind, a, k, ranges + row, l, panel, to, to_half, stride); break;
            default: tile(1, kind, a, k, ranges + row, l, panel, to, to_half, stride); break;
            }
            row += n;
        }
}

static void multiply_float_plus(const uint8_t *q, int32_t rows, int32_t k, const range *r,
                                const linear *l, int32_t panels, float *y, int32_t stride) {
    multiply(TO_FLOAT_PLUS, q, rows, k, r, l, 0, panels, y, 0, stride);
}
static void multiply_gelu(const uint8_t *q, int32_t rows, int32_t k, const range *r,
                          const linear *l, int32_t panels, float *y, int32_t stride) {
    multiply(TO_GELU, q, rows, k, r, l, 0, panels, y, 0, stride);
}
static void multiply_bf16(const uint8_t *q, int32_t rows, int32_t k, const range *r,
                          const linear *l, int32_t first, int32_t last, uint16_t *y, int32_t stride) {
    multiply(TO_BF16, q, rows, k, r, l, first, last, 0, y, stride);
}

/* ---- attention --------------------------------------------------------------------------- */

/* Where one worker keeps what it needs; sized for the longest text of the batch. */
typedef struct {
    uint8_t *q;        /* (BLOCK, hidden) */
    float *wide;       /* (BLOCK, ffn) */
    uint32_t *keys;    /* [length/64][head/2][64] pairs of bf16 */
    uint32_t *values;  /* [length/2][head] pairs of bf16 */
    float *scores;     /* (TILE, length) */
    uint16_t *shares;  /* (TILE, length) bf16 */
} scratch;

static size_t aligned(size_t bytes) { return (bytes + 63) & ~(size_t)63; }

static size_t lay_out(scratch *s, uint8_t *base, const model *m, int32_t longest) {
    size_t length = ((size_t)longest + 63) & ~(size_t)63, head = m->hidden / m->heads, at = 0;
    s->q = base + at; at += aligned((size_t)BLOCK * m->hidden);
    s->wide = (float *)(base + at); at += aligned((size_t)BLOCK * m->ffn * 4);
    s->keys = (uint32_t *)(base + at); at += aligned(length * head / 2 * 4);
    s->values = (uint32_t *)(base + at); at += aligned(length / 2 * head * 4);
    s->scores = (float *)(base + at); at += aligned(TILE * length * 4);
    s->shares = (uint16_t *)(base + at); at += aligned(TILE * length * 2);
    return at;
}

INLINE void transpose_16x16(__m512i r[16]) {
    __m512i t[16];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
        r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
        r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
        r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0x88);
        t[4 + i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0xdd);
        t[8 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0x88);
        t[12 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0xdd);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0x88);
        r[8 + i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0xdd);
        r[4 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0x88);
        r[12 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0xdd);
    }
}

/* Lay one head's keys out so that 16 keys of one pair of dimensions are one register. */
static void pack_keys(const uint16_t *k, int32_t length, int32_t stride, int32_t head, uint32_t *to) {
    int32_t pairs = head / 2;
    for (int32_t j = 0; j < length; j += 16)
        for (int32_t p = 0; p < pairs; p += 16) {
            __m512i r[16];
#pragma GCC unroll 16
            for (int32_t i = 0; i < 16; i++)
                r[i] = j + i < length
                           ? _mm512_loadu_si512(k + (size_t)(j + i) * stride + 2 * p)
                           : _mm512_setzero_si512();
            transpose_16x16(r);
            uint32_t *panel = to + (size_t)(j / 64) * pairs * 64 + (j % 64);
#pragma GCC unroll 16
            for (int32_t i = 0; i < 16; i++) _mm512_storeu_si512(panel + (size_t)(p + i) * 64, r[i]);
        }
}

/* Lay one head's values out so that two keys' values of a dimension are one pair. */
static void pack_values(const uint16_t *v, int32_t length, int32_t stride, int32_t head, uint32_t *to) {
    for (int32_t j = 0; j < length; j += 2)
        for (int32_t c = 0; c < head; c += 16) {
            __m256i even = _mm256_loadu_si256((const __m256i *)(v + (size_t)j * stride + c));
            __m256i odd = j + 1 < length
                              ? _mm256_loadu_si256((const __m256i *)(v + (size_t)(j + 1) * stride + c))
                              : _mm256_setzero_si256();
            __m512i pair = _mm512_or_si512(_mm512_cvtepu16_epi32(even),
                                           _mm512_slli_epi32(_mm512_cvtepu16_epi32(odd), 16));
            _mm512_storeu_si512(to + (size_t)(j / 2) * head + c, pair);
        }
}

INLINE __m512i pair_of(const uint16_t *at) {
    int32_t two;
    memcpy(&two, at, 4);
    return _mm512_set1_epi32(two);
}

/* Scores of `rows` queries against `vectors` x 16 keys of one panel. */
INLINE void score_tile(const int rows, const int vectors, const uint16_t *q, int32_t stride,
                       int32_t pairs, const uint32_t *panel, float *scores, size_t length) {
    __m512 acc[TILE][4];
#pragma GCC unroll 6
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int j = 0; j < vectors; j++) acc[i][j] = _mm512_setzero_ps();
    for (int32_t p = 0; p < pairs; p++) {
        __m512i b[4];
#pragma GCC unroll 4
        for (int j = 0; j < vectors; j++) b[j] = _mm512_loadu_si512(panel + (size_t)p * 64 + 16 * j);
#pragma GCC unroll 6
        for (int i = 0; i < rows; i++) {
            __m512i a = pair_of(q + (size_t)i * stride + 2 * p);
#pragma GCC unroll 4
            for (int j = 0; j < vectors; j++)
                dot_pairs(&acc[i][j], a, b[j]);
        }
    }
#pragma GCC unroll 6
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int j = 0; j < vectors; j++) _mm512_storeu_ps(scores + i * length + 16 * j, acc[i][j]);
}

INLINE void mix_tile(const int rows, const int vectors, const uint16_t *shares, size_t length,
                     const uint32_t *values, int32_t pairs, int32_t head, const float *inverse,
                     float *out, int32_t stride) {
    __m512 acc[TILE][4];
#pragma GCC unroll 6
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int j = 0; j < vectors; j++) acc[i][j] = _mm512_setzero_ps();
    for (int32_t p = 0; p < pairs; p++) {
        __m512i b[4];
#pragma GCC unroll 4
        for (int j = 0; j < vectors; j++) b[j] = _mm512_loadu_si512(values + (size_t)p * head + 16 * j);
#pragma GCC unroll 6
        for (int i = 0; i < rows; i++) {
            __m512i a = pair_of(shares + i * length + 2 * p);
#pragma GCC unroll 4
            for (int j = 0; j < vectors; j++)
                dot_pairs(&acc[i][j], a, b[j]);
        }
    }
#pragma GCC unroll 6
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int j = 0; j < vectors; j++)
            _mm512_storeu_ps(out + (size_t)i * stride + 16 * j,
                             _mm512_mul_ps(acc[i][j], _mm512_set1_ps(inverse[i])));
}

/* Turn one row of scores (times log2 e already) into shares (bf16, not yet divided by their sum);
 * return 1 / sum. */
INLINE float soften(const float *scores, int32_t length, uint16_t *shares) {
    int32_t whole = length & ~15;
    __mmask16 rest = (__mmask16)((1u << (length & 15)) - 1);
    __m512 top = _mm512_set1_ps(-3e38f), sum = _mm512_setzero_ps();
    for (int32_t j = 0; j < whole; j += 16) top = _mm512_max_ps(top, _mm512_loadu_ps(scores + j));
    if (rest) top = _mm512_mask_max_ps(top, rest, top, _mm512_loadu_ps(scores + whole));
    top = _mm512_set1_ps(_mm512_reduce_max_ps(top));
    for (int32_t j = 0; j < whole; j += 16) {
        __m512 e = power_of_two(_mm512_sub_ps(_mm512_loadu_ps(scores + j), top));
        sum = _mm512_add_ps(sum, e);
        store_bf16(shares + j, e);
    }
    if (rest) {
        __m512 e = power_of_two(_mm512_sub_ps(_mm512_loadu_ps(scores + whole), top));
        e = _mm512_maskz_mov_ps(rest, e);
        sum = _mm512_add_ps(sum, e);
        store_bf16(shares + whole, e);
    }
    return 1.0f / _mm512_reduce_add_ps(sum);
}

INLINE void attend_rows(const int rows, const int vectors, const scratch *s, const uint16_t *q,
                        int32_t stride, int32_t head, int32_t length, float *out, int32_t out_stride) {
    size_t padded = ((size_t)length + 63) & ~(size_t)63;
    int32_t pairs = head / 2;
    for (int32_t j = 0; j < length; j += 64) {
        const uint32_t *panel = s->keys + (size_t)(j / 64) * pairs * 64;
        int32_t left = length - j;
        if (left > 48) score_tile(rows, 4, q, stride, pairs, panel, s->scores + j, padded);
        else if (left > 32) score_tile(rows, 3, q, stride, pairs, panel, s->scores + j, padded);
        else if (left > 16) score_tile(rows, 2, q, stride, pairs, panel, s->scores + j, padded);
        else score_tile(rows, 1, q, stride, pairs, panel, s->scores + j, padded);
    }
    float inverse[TILE];
    for (int i = 0; i < rows; i++)
        inverse[i] = soften(s->scores + i * padded, length, s->shares + i * padded);
    for (int32_t c = 0; c < head; c += 16 * vectors)
        mix_tile(rows, vectors, s->shares, padded, s->values + c, (length + 1) / 2, head, inverse,
                 out + c, out_stride);
}

/* Attention of `rows` queries of one head over a text whose keys and values are packed. */
static void attend(const scratch *s, const uint16_t *q, int32_t rows, int32_t stride, int32_t head,
                   int32_t length, float *out, int32_t out_stride) {
    for (int32_t row = 0; row < rows; row += TILE, q += (size_t)TILE * stride, out += (size_t)TILE * out_stride) {
        int32_t n = rows - row < TILE ? rows - row : TILE;
#define ATTEND(N)                                                                                   \
    case N:                                                                                         \
        if (head % 64 == 0) attend_rows(N, 4, s, q, stride, head, length, out, out_stride);         \
        else attend_rows(N, 2, s, q, stride, head, length, out, out_stride);                        \
        break;
        switch (n) { ATTEND(6) ATTEND(5) ATTEND(4) ATTEND(3) ATTEND(2) default: ATTEND(1) }
#undef ATTEND
    }
}

/* ---- the layers -------------------------------------------------------------------------- */

INLINE __m512 word_16(const model *m, int32_t id, int32_t i) {
    if (m->word_kind == 0) {
        const uint16_t *row = (const uint16_t *)m->words + (size_t)id * m->hidden;
        return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(row + i)));
    }
    const uint8_t *row = (const uint8_t *)m->words + (size_t)id * (m->hidden / 2);
    uint16_t half = m->word_scales[(size_t)id * (m->hidden / 32) + i / 32];
    __m512 scale = _mm512_cvtph_ps(_mm256_set1_epi16((short)half));
    __m128i bytes = _mm_loadl_epi64((const __m128i *)(row + i / 2)); /* element 2i low, 2i+1 high */
    __m128i low = _mm_and_si128(bytes, _mm_set1_epi8(15));
    __m128i high = _mm_and_si128(_mm_srli_epi16(bytes, 4), _mm_set1_epi8(15));
    __m512i v = _mm512_cvtepu8_epi32(_mm_unpacklo_epi8(low, high));
    return _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_sub_epi32(v, _mm512_set1_epi32(8))), scale);
}

static void embed(const encoder *e, int32_t row) {
    const model *m = &e->m;
    int32_t text = e->text_of[row], h = m->hidden, place = row - e->starts[text];
    int32_t token = e->job.offsets[e->order[text]] + place;
    const float *position = m->positions + (size_t)place * h;
    const float *type = m->types + (size_t)e->job.types[token] * h;
    float *x = e->hidden + (size_t)row * h;
    for (int32_t i = 0; i < h; i += 16) {
        __m512 v = _mm512_add_ps(word_16(m, e->job.ids[token], i), _mm512_loadu_ps(position + i));
        _mm512_storeu_ps(x + i, _mm512_add_ps(v, _mm512_loadu_ps(type + i)));
    }
    normalise_row(x, m->norm_w, m->norm_b, h, m->eps);
}

/* What follows attention, for up to BLOCK rows: projection, norm, feed-forward, norm. x is both
 * the residual that comes in and the result. */
static void finish_block(const model *m, const layer *l, const scratch *s, const float *context,
                         float *x, int32_t rows) {
    int32_t h = m->hidden, f = m->ffn;
    range r[BLOCK];
    for (int32_t i = 0; i < rows; i++)
        r[i] = quantise_row(context + (size_t)i * h, l->attended_in, h, s->q + (size_t)i * h);
    multiply_float_plus(s->q, rows, h, r, &l->attended, h / PANEL, x, h);
    for (int32_t i = 0; i < rows; i++) {
        normalise_row(x + (size_t)i * h, l->attended_norm_w, l->attended_norm_b, h, m->eps);
        r[i] = quantise_row(x + (size_t)i * h, l->wide_in, h, s->q + (size_t)i * h);
    }
    multiply_gelu(s->q, rows, h, r, &l->wide, f / PANEL, s->wide, f);
    for (int32_t group = 0; group < f / h; group++) {
        for (int32_t i = 0; i < rows; i++)
            r[i] = quantise_row(s->wide + (size_t)i * f + group * h, l->narrow_in + group * h, h,
                                s->q + (size_t)i * h);
        multiply_float_plus(s->q, rows, h, r, l->narrow + group, h / PANEL, x, h);
    }
    for (int32_t i = 0; i < rows; i++)
        normalise_row(x + (size_t)i * h, l->output_norm_w, l->output_norm_b, h, m->eps);
}

/* Queries, keys and values of rows x (columns from first panel on). */
static void project(const model *m, const layer *l, const scratch *s, const float *x, int32_t rows,
                    int32_t first, int32_t last, uint16_t *to, int32_t stride) {
    range r[BLOCK];
    int32_t h = m->hidden;
    for (int32_t i = 0; i < rows; i++)
        r[i] = quantise_row(x + (size_t)i * h, l->qkv_in, h, s->q + (size_t)i * h);
    multiply_bf16(s->q, rows, h, r, &l->qkv, first, last, to, stride);
}

static void meet(encoder *e) {
    if (e->active == 1 || e->group_count) return;
    unsigned phase = atomic_load_explicit(&e->phase, memory_order_acquire);
    if (atomic_fetch_add_explicit(&e->arrived, 1, memory_order_acq_rel) == e->active - 1) {
        atomic_store_explicit(&e->arrived, 0, memory_order_relaxed);
        atomic_fetch_add_explicit(&e->phase, 1, memory_order_release);
        return;
    }
    for (int spins = 0; atomic_load_explicit(&e->phase, memory_order_acquire) == phase; spins++) {
        if (spins < 4000) _mm_pause();
        else sched_yield();
    }
}

static int32_t least(int32_t a, int32_t b) { return a < b ? a : b; }

/* What one worker runs: rows [first, last), and of the results texts [from, to). In a group these
 * are the same texts; in a batch shared by rows a text's rows may be several workers'. */
typedef struct {
    int32_t first, last, from, to;
    scratch s;
} share;

static void attend_share(encoder *e, const share *mine, const uint16_t *qkv) {
    const model *m = &e->m;
    int32_t h = m->hidden, head = h / m->heads, stride = 3 * h;
    for (int32_t row = mine->first; row < mine->last;) {
        int32_t text = e->text_of[row], start = e->starts[text], end = e->starts[text + 1];
        int32_t until = least(end, mine->last), length = end - start;
        for (int32_t n = 0; n < m->heads; n++) {
            const uint16_t *base = qkv + (size_t)start * stride + n * head;
            pack_keys(base + h, length, stride, head, mine->s.keys);
            pack_values(base + 2 * h, length, stride, head, mine->s.values);
            attend(&mine->s, qkv + (size_t)row * stride + n * head, until - row, stride, head, length,
                   e->context + (size_t)row * h + n * head, h);
        }
        row = until;
    }
}

static void full_layer(encoder *e, const share *mine, int32_t index) {
    const model *m = &e->m;
    const layer *l = m->layer + index;
    uint16_t *qkv = e->qkv[index & 1];
    int32_t h = m->hidden;
    for (int32_t row = mine->first; row < mine->last; row += BLOCK)
        project(m, l, &mine->s, e->hidden + (size_t)row * h, least(BLOCK, mine->last - row), 0,
                3 * h / PANEL, qkv + (size_t)row * 3 * h, 3 * h);
    meet(e);
    attend_share(e, mine, qkv);
    for (int32_t row = mine->first; row < mine->last; row += BLOCK)
        finish_block(m, l, &mine->s, e->context + (size_t)row * h, e->hidden + (size_t)row * h,
                     least(BLOCK, mine->last - row));
}

/* The last layer where only each text's first token is wanted: keys and values of all rows, the
 * rest for one row a text. */
static void last_layer_first_tokens(encoder *e, const share *mine, int32_t index) {
    const model *m = &e->m;
    const layer *l = m->layer + index;
    int32_t h = m->hidden, head = h / m->heads, stride = 3 * h;
    uint16_t *qkv = e->qkv[index & 1];
    for (int32_t row = mine->first; row < mine->last; row += BLOCK)
        project(m, l, &mine->s, e->hidden + (size_t)row * h, least(BLOCK, mine->last - row),
                h / PANEL, 3 * h / PANEL, qkv + (size_t)row * stride, stride);
    meet(e);
    /* A group's rows of the context are its own; rows shared by others are free after the meeting. */
    float *context = e->context + (size_t)(e->group_count ? mine->first : mine->from) * h;
    float *x = e->pooled + (size_t)mine->from * h;
    for (int32_t text = mine->from; text < mine->to; text++) {
        int32_t i = text - mine->from, start = e->starts[text], length = e->starts[text + 1] - start;
        uint16_t *row = qkv + (size_t)start * stride;
        memcpy(x + (size_t)i * h, e->hidden + (size_t)start * h, (size_t)h * 4);
        project(m, l, &mine->s, x + (size_t)i * h, 1, 0, h / PANEL, row, stride);
        for (int32_t n = 0; n < m->heads; n++) {
            pack_keys(row + h + n * head, length, stride, head, mine->s.keys);
            pack_values(row + 2 * h + n * head, length, stride, head, mine->s.values);
            attend(&mine->s, row + n * head, 1, stride, head, length,
                   context + (size_t)i * h + n * head, h);
        }
    }
    for (int32_t i = 0; i < mine->to - mine->from; i += BLOCK)
        finish_block(m, l, &mine->s, context + (size_t)i * h, x + (size_t)i * h,
                     least(BLOCK, mine->to - mine->from - i));
}

static void average(const encoder *e, int32_t text) {
    int32_t h = e->m.hidden, start = e->starts[text], end = e->starts[text + 1];
    __m512 inverse = _mm512_set1_ps(1.0f / (float)(end - start));
    for (int32_t i = 0; i < h; i += 16) {
        __m512 sum = _mm512_setzero_ps();
        for (int32_t row = start; row < end; row++)
            sum = _mm512_add_ps(sum, _mm512_loadu_ps(e->hidden + (size_t)row * h + i));
        _mm512_storeu_ps(e->pooled + (size_t)text * h + i, _mm512_mul_ps(sum, inverse));
    }
}

static void run_share(encoder *e, const share *mine) {
    const model *m = &e->m;
    for (int32_t row = mine->first; row < mine->last; row++) embed(e, row);
    int32_t full = m->first_token_only ? m->layers - 1 : m->layers;
    for (int32_t i = 0; i < full; i++) full_layer(e, mine, i);
    if (m->first_token_only) last_layer_first_tokens(e, mine, full);
    else {
        meet(e);
        for (int32_t text = mine->from; text < mine->to; text++) average(e, text);
    }
    for (int32_t text = mine->from; text < mine->to; text++)
        memcpy(e->job.out + (size_t)e->order[text] * m->hidden, e->pooled + (size_t)text * m->hidden,
               (size_t)m->hidden * 4);
}

static void work_on(encoder *e, int32_t index) {
    share mine;
    lay_out(&mine.s, e->workers[index].scratch, &e->m, e->starts[1]);
    if (!e->group_count) {
        int64_t tokens = e->job.tokens, texts = e->job.texts;
        mine.first = (int32_t)(tokens * index / e->active);
        mine.last = (int32_t)(tokens * (index + 1) / e->active);
        mine.from = (int32_t)(texts * index / e->active);
        mine.to = (int32_t)(texts * (index + 1) / e->active);
        run_share(e, &mine);
        return;
    }
    int32_t group;
    while ((group = atomic_fetch_add(&e->next_group, 1)) < e->group_count) {
        mine.from = e->groups[group];
        mine.to = e->groups[group + 1];
        mine.first = e->starts[mine.from];
        mine.last = e->starts[mine.to];
        run_share(e, &mine);
    }
}

/* ---- workers and the interface ----------------------------------------------------------- */

static void *serve(void *argument) {
    worker *w = argument;
    encoder *e = w->owner;
    uint64_t seen = 0;
    for (;;) {
        pthread_mutex_lock(&e->lock);
        while (e->generation == seen && !e->closing) pthread_cond_wait(&e->wake, &e->lock);
        if (e->closing) {
            pthread_mutex_unlock(&e->lock);
            return 0;
        }
        seen = e->generation;
        int mine = w->index < e->active;
        pthread_mutex_unlock(&e->lock);
        if (!mine) continue;
        work_on(e, w->index);
        pthread_mutex_lock(&e->lock);
        if (--e->running == 0) pthread_cond_signal(&e->done);
        pthread_mutex_unlock(&e->lock);
    }
}

static int make_room(encoder *e, const batch *job, int32_t longest) {
    const model *m = &e->m;
    size_t rows = (size_t)job->tokens, texts = (size_t)job->texts, h = m->hidden;
    if (rows > e->room) {
        free(e->hidden); free(e->context); free(e->qkv[0]); free(e->qkv[1]); free(e->text_of);
        e->room = 0;
        e->hidden = aligned_alloc(64, aligned(rows * h * 4));
        e->context = aligned_alloc(64, aligned(rows * h * 4));
        e->qkv[0] = aligned_alloc(64, aligned(rows * 3 * h * 2 + 64));
        e->qkv[1] = aligned_alloc(64, aligned(rows * 3 * h * 2 + 64));
        e->text_of = aligned_alloc(64, aligned(rows * 4));
        if (!e->hidden || !e->context || !e->qkv[0] || !e->qkv[1] || !e->text_of) return -1;
        e->room = rows;
    }
    if (texts > e->text_room) {
        free(e->pooled); free(e->order); free(e->starts); free(e->groups);
        e->text_room = 0;
        e->pooled = aligned_alloc(64, aligned(texts * h * 4));
        e->order = aligned_alloc(64, aligned(texts * 4));
        e->starts = aligned_alloc(64, aligned(texts * 4 + 4));
        e->groups = aligned_alloc(64, aligned(texts * 4 + 4));
        if (!e->pooled || !e->order || !e->starts || !e->groups) return -1;
        e->text_room = texts;
    }
    scratch s;
    size_t bytes = lay_out(&s, 0, m, longest);
    for (int32_t i = 0; i < e->threads; i++) {
        worker *w = e->workers + i;
        if (w->scratch_bytes >= bytes) continue;
        free(w->scratch);
        w->scratch_bytes = 0;
        w->scratch = aligned_alloc(64, aligned(bytes));
        if (!w->scratch) return -1;
        w->scratch_bytes = bytes;
    }
    return 0;
}

/* Lay the texts out longest first (a counting sort by length). */
static void arrange(encoder *e, const batch *job, int32_t longest, int32_t *counts) {
    memset(counts, 0, ((size_t)longest + 2) * 4);
    for (int32_t t = 0; t < job->texts; t++)
        counts[longest - (job->offsets[t + 1] - job->offsets[t]) + 1]++;
    for (int32_t i = 1; i <= longest; i++) counts[i] += counts[i - 1];
    for (int32_t t = 0; t < job->texts; t++)
        e->order[counts[longest - (job->offsets[t + 1] - job->offsets[t])]++] = t;
    int32_t row = 0;
    for (int32_t t = 0; t < job->texts; t++) {
        int32_t original = e->order[t], length = job->offsets[original + 1] - job->offsets[original];
        e->starts[t] = row;
        for (int32_t i = 0; i < length; i++) e->text_of[row++] = t;
    }
    e->starts[job->texts] = row;
}

/* Form groups that shrink towards the end, so that the workers finish together; none where the
 * longest text alone would keep one worker busy while the others are done. */
static void form_groups(encoder *e, const batch *job) {
    e->group_count = 0;
    atomic_store(&e->next_group, 0);
    if (e->active > 1 && (int64_t)e->starts[1] * e->active * 2 > job->tokens) return;
    int32_t text = 0;
    while (text < job->texts) {
        int32_t left = job->tokens - e->starts[text], goal = left / (2 * e->active);
        if (goal > LARGEST_GROUP) goal = LARGEST_GROUP;
        if (goal < LEAST_GROUP) goal = LEAST_GROUP;
        e->groups[e->group_count++] = text;
        int32_t first = e->starts[text];
        do text++;
        while (text < job->texts && e->starts[text + 1] - first <= goal);
    }
    e->groups[e->group_count] = job->texts;
}

void ondol_encoder_close(encoder *e) {
    if (!e) return;
    pthread_mutex_lock(&e->lock);
    e->closing = 1;
    pthread_cond_broadcast(&e->wake);
    pthread_mutex_unlock(&e->lock);
    for (int32_t i = 1; i < e->threads; i++) pthread_join(e->handles[i], 0);
    for (int32_t i = 0; i < e->threads; i++) free(e->workers[i].scratch);
    free(e->hidden); free(e->context); free(e->qkv[0]); free(e->qkv[1]); free(e->text_of);
    free(e->pooled); free(e->order); free(e->starts); free(e->groups);
    free((void *)e->m.layer);
    free(e);
}

/* Open an encoder whose weights stay where `m` points to. Returns 0 when memory or threads are short. */
encoder *ondol_encoder_open(const model *m, int32_t threads) {
    encoder *e = calloc(1, sizeof *e);
    layer *layers = malloc(sizeof(layer) * (size_t)m->layers);
    if (!e || !layers) {
        free(e); free(layers);
        return 0;
    }
    memcpy(layers, m->layer, sizeof(layer) * (size_t)m->layers);
    e->m = *m;
    e->m.layer = layers;
    e->threads = threads < 1 ? 1 : threads > MAX_THREADS ? MAX_THREADS : threads;
    pthread_mutex_init(&e->lock, 0);
    pthread_cond_init(&e->wake, 0);
    pthread_cond_init(&e->done, 0);
    for (int32_t i = 0; i < e->threads; i++) {
        e->workers[i].owner = e;
        e->workers[i].index = i;
        if (i && pthread_create(e->handles + i, 0, serve, e->workers + i)) {
            e->threads = i;
            break;
        }
    }
    return e;
}

/* Encode `texts` texts packed one after the other: text i is ids[offsets[i] .. offsets[i + 1]).
 * out is (texts, hidden): the mean of the tokens, or the first token. Returns 0, or -1 when memory
 * is short. One call at a time. */
int32_t ondol_encoder_run(encoder *e, int32_t texts, const int32_t *offsets, const int32_t *ids,
                          const int32_t *types, float *out) {
    batch job = {offsets, ids, types, texts, offsets[texts], out};
    int32_t longest = 0;
    for (int32_t t = 0; t < texts; t++) {
        int32_t length = offsets[t + 1] - offsets[t];
        if (length > longest) longest = length;
    }
    int32_t *counts = malloc(((size_t)longest + 2) * 4);
    if (!counts || make_room(e, &job, longest)) {
        free(counts);
        return -1;
    }
    arrange(e, &job, longest, counts);
    free(counts);
    e->job = job;
    /* a thread is worth waking for a tile of rows of its own */
    int32_t active = least(e->threads, job.tokens / TILE);
    e->active = active < 1 ? 1 : active;
    form_groups(e, &job);
    if (e->active > 1) {
        pthread_mutex_lock(&e->lock);
        e->running = e->active - 1;
        e->generation++;
        pthread_cond_broadcast(&e->wake);
        pthread_mutex_unlock(&e->lock);
    }
    work_on(e, 0);
    if (e->active > 1) {
        pthread_mutex_lock(&e->lock);
        while (e->running) pthread_cond_wait(&e->done, &e->lock);
        pthread_mutex_unlock(&e->lock);
    }
    return 0;
}
