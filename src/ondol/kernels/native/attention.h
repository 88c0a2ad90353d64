/* Attention of one head over one text: bf16 products, fp32 softmax. */
#ifndef ONDOL_ATTENTION_H
#define ONDOL_ATTENTION_H

#include <stddef.h>
#include <stdint.h>

#include "elementwise.h"

/* Where one worker keeps a head's keys and values; sized for the longest text of the batch. */
typedef struct {
    uint32_t *keys;   /* [length/64][head/2][64] pairs of bf16 */
    uint32_t *values; /* [length/2][head] pairs of bf16 */
    float *scores;    /* (ATTENTION_ROWS, length) */
    uint16_t *shares; /* (ATTENTION_ROWS, length) bf16 */
} head_room;

#define ATTENTION_ROWS 6 /* queries that are worked on together, as TILE in product.h */

/* Lay one head's keys out so that 16 keys of one pair of dimensions are one register. */
INTERNAL void pack_keys(const uint16_t *k, int32_t length, int32_t stride, int32_t head, uint32_t *to);

/* Lay one head's values out so that two keys' values of a dimension are one pair. */
INTERNAL void pack_values(const uint16_t *v, int32_t length, int32_t stride, int32_t head,
                          uint32_t *to);

/* Attention of `rows` queries of one head over a text whose keys and values are packed. */
INTERNAL void attend(const head_room *s, const uint16_t *q, int32_t rows, int32_t stride, int32_t head,
                     int32_t length, float *out, int32_t out_stride);

#endif
