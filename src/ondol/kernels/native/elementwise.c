#include "elementwise.h"

range quantise_row(const float *x, const float *factors, int32_t n, uint8_t *q) {
    /* beyond any activation: float's own limit is 3.4e38 */
    __m512 least = _mm512_set1_ps(3e38f), largest = _mm512_set1_ps(-3e38f);
    for (int32_t i = 0; i < n; i += 16) {
        __m512 v = _mm512_mul_ps(_mm512_loadu_ps(x + i), _mm512_loadu_ps(factors + i));
        least = _mm512_min_ps(least, v);
        largest = _mm512_max_ps(largest, v);
    }
    range r;
    r.low = _mm512_reduce_min_ps(least);
    float span = _mm512_reduce_max_ps(largest) - r.low;
    /* a row of equal values is all low: any scale will do, and none may be 0 */
    r.scale = span > 1e-12f ? span / 255.0f : 1.0f;
    __m512 low = _mm512_set1_ps(r.low), inverse = _mm512_set1_ps(1.0f / r.scale);
    for (int32_t i = 0; i < n; i += 16) {
        __m512 v = _mm512_mul_ps(_mm512_loadu_ps(x + i), _mm512_loadu_ps(factors + i));
        __m512i u = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_sub_ps(v, low), inverse));
        _mm_storeu_si128((__m128i *)(q + i), _mm512_cvtusepi32_epi8(u));
    }
    return r;
}

void normalise_row(float *x, const float *w, const float *b, int32_t n, float eps) {
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

void average_rows(const float *x, int32_t rows, int32_t n, float *mean) {
    __m512 inverse = _mm512_set1_ps(1.0f / (float)rows);
    for (int32_t i = 0; i < n; i += 16) {
        __m512 sum = _mm512_setzero_ps();
        for (int32_t row = 0; row < rows; row++)
            sum = _mm512_add_ps(sum, _mm512_loadu_ps(x + (size_t)row * n + i));
        _mm512_storeu_ps(mean + i, _mm512_mul_ps(sum, inverse));
    }
}
