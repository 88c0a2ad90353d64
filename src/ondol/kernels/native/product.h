/* Products of quantised rows with packed int8 weights: u8 x s8 -> i32 tiles of 6 rows x 64 columns
 * held in registers (the usual outer-product kernel, Goto & van de Geijn 2008). */
#ifndef ONDOL_PRODUCT_H
#define ONDOL_PRODUCT_H

#include "elementwise.h"

#define PANEL 64 /* columns of one packed weight panel */
#define TILE 6   /* rows of one register tile: 6 x 4 sums, 4 weights and a row fit 32 registers */

/* Weights (out, in) packed as [out/64][in/4][64][4] signed bytes.
 * y[n] = scale[n] * (row_scale * sum_k q[k] w[n][k] + row_low * sum[n]) + bias[n]. */
typedef struct {
    const int8_t *weights;
    const float *scale;
    const float *sum;
    const float *bias;
} linear;

/* For `rows` rows of k quantised activations: add the product to y, write its GELU to y, or write
 * the columns of the panels [first, last) to y as bf16. `stride` is y's row length. */
INTERNAL void multiply_float_plus(const uint8_t *q, int32_t rows, int32_t k, const range *r,
                                  const linear *l, int32_t panels, float *y, int32_t stride);
INTERNAL void multiply_gelu(const uint8_t *q, int32_t rows, int32_t k, const range *r,
                            const linear *l, int32_t panels, float *y, int32_t stride);
INTERNAL void multiply_bf16(const uint8_t *q, int32_t rows, int32_t k, const range *r,
                            const linear *l, int32_t first, int32_t last, uint16_t *y,
                            int32_t stride);

#endif
