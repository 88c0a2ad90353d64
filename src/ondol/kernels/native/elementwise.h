/* What is done to single values and rows: quantise, normalise, GELU, powers of two, bfloat16. */
#ifndef ONDOL_ELEMENTWISE_H
#define ONDOL_ELEMENTWISE_H

#include <immintrin.h>
#include <stdint.h>

#define INLINE static inline __attribute__((always_inline))
#define INTERNAL __attribute__((visibility("hidden")))

/* A row's quantised value q stands for scale * q + low. */
typedef struct {
    float scale, low;
} range;

/* Quantise one row of x * factors to 0..255 between its own least and largest value. */
INTERNAL range quantise_row(const float *x, const float *factors, int32_t n, uint8_t *q);

/* Layer normalisation of one row, in place. */
INTERNAL void normalise_row(float *x, const float *w, const float *b, int32_t n, float eps);

/* Write the mean of `rows` rows of n values. */
INTERNAL void average_rows(const float *x, int32_t rows, int32_t n, float *mean);

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

/* Without the instructions (to test elsewhere; slow) the products are rounded a little otherwise. */
#ifdef __AVX512BF16__
INLINE void store_bf16(uint16_t *to, __m512 v) {
    _mm256_storeu_si256((__m256i *)to, (__m256i)_mm512_cvtneps_pbh(v));
}
#else
INLINE void store_bf16(uint16_t *to, __m512 v) {
    __m512i bits = (__m512i)v;
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    bits = _mm512_add_epi32(_mm512_add_epi32(bits, odd), _mm512_set1_epi32(0x7fff));
    _mm256_storeu_si256((__m256i *)to, _mm512_cvtepi32_epi16(_mm512_srli_epi32(bits, 16)));
}
#endif

#endif
