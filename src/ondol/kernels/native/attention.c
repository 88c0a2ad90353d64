#include "attention.h"

#include <string.h>

/* acc += a . b by pairs of bf16. As assembly, since compilers given the intrinsic copy and spill the
 * accumulators and lose half the speed. */
#ifdef __AVX512BF16__
INLINE void dot_pairs(__m512 *acc, __m512i a, __m512i b) {
    __asm__("vdpbf16ps %2, %1, %0" : "+v"(*acc) : "v"(a), "v"(b));
}
#else
INLINE void dot_pairs(__m512 *acc, __m512i a, __m512i b) {
    __m512 low = _mm512_mul_ps((__m512)_mm512_slli_epi32(a, 16), (__m512)_mm512_slli_epi32(b, 16));
    const __m512i high = _mm512_set1_epi32((int)0xffff0000u);
    *acc = _mm512_fmadd_ps((__m512)_mm512_and_si512(a, high), (__m512)_mm512_and_si512(b, high),
                           _mm512_add_ps(*acc, low));
}
#endif

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

void pack_keys(const uint16_t *k, int32_t length, int32_t stride, int32_t head, uint32_t *to) {
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

void pack_values(const uint16_t *v, int32_t length, int32_t stride, int32_t head, uint32_t *to) {
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
    __m512 acc[ATTENTION_ROWS][4];
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
    __m512 acc[ATTENTION_ROWS][4];
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

INLINE void attend_rows(const int rows, const int vectors, const head_room *s, const uint16_t *q,
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
    float inverse[ATTENTION_ROWS];
    for (int i = 0; i < rows; i++)
        inverse[i] = soften(s->scores + i * padded, length, s->shares + i * padded);
    for (int32_t c = 0; c < head; c += 16 * vectors)
        mix_tile(rows, vectors, s->shares, padded, s->values + c, (length + 1) / 2, head, inverse,
                 out + c, out_stride);
}

void attend(const head_room *s, const uint16_t *q, int32_t rows, int32_t stride, int32_t head,
            int32_t length, float *out, int32_t out_stride) {
    for (int32_t row = 0; row < rows; row += ATTENTION_ROWS) {
        int32_t n = rows - row < ATTENTION_ROWS ? rows - row : ATTENTION_ROWS;
#define ATTEND(N)                                                                                   \
    case N:                                                                                         \
        if (head % 64 == 0) attend_rows(N, 4, s, q, stride, head, length, out, out_stride);         \
        else attend_rows(N, 2, s, q, stride, head, length, out, out_stride);                        \
        break;
        switch (n) { ATTEND(6) ATTEND(5) ATTEND(4) ATTEND(3) ATTEND(2) default: ATTEND(1) }
#undef ATTEND
        q += (size_t)ATTENTION_ROWS * stride;
        out += (size_t)ATTENTION_ROWS * out_stride;
    }
}
