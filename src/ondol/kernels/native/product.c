#include "product.h"

#include <string.h>

/* acc += a . b by fours of bytes. As assembly, since compilers given the intrinsic copy and spill the
 * accumulators and lose half the speed. */
INLINE void dot_bytes(__m512i *acc, __m512i a, __m512i b) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(*acc) : "v"(a), "v"(b));
}

typedef enum { TO_FLOAT_PLUS, TO_GELU, TO_BF16 } result;

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

/* y[rows][panels] = act(q x weights): TO_FLOAT_PLUS adds to what y holds. */
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

void multiply_float_plus(const uint8_t *q, int32_t rows, int32_t k, const range *r,
                         const linear *l, int32_t panels, float *y, int32_t stride) {
    multiply(TO_FLOAT_PLUS, q, rows, k, r, l, 0, panels, y, 0, stride);
}

void multiply_gelu(const uint8_t *q, int32_t rows, int32_t k, const range *r,
                   const linear *l, int32_t panels, float *y, int32_t stride) {
    multiply(TO_GELU, q, rows, k, r, l, 0, panels, y, 0, stride);
}

void multiply_bf16(const uint8_t *q, int32_t rows, int32_t k, const range *r,
                   const linear *l, int32_t first, int32_t last, uint16_t *y, int32_t stride) {
    multiply(TO_BF16, q, rows, k, r, l, first, last, 0, y, stride);
}
