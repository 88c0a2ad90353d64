/* The interface that Python calls (packed_encoder.py mirrors it): a BERT encoder in 8-bit integers. */
#ifndef ONDOL_ENCODER_H
#define ONDOL_ENCODER_H

#include <stdint.h>

#include "product.h"

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

typedef struct encoder encoder;

/* Open an encoder whose weights stay where `m` points to. Returns 0 when memory or threads are short. */
encoder *ondol_encoder_open(const model *m, int32_t threads);

/* Encode `texts` texts packed one after the other: text i is ids[offsets[i] .. offsets[i + 1]).
 * out is (texts, hidden): the mean of the tokens, or the first token. Returns 0, or -1 when memory
 * is short. One call at a time. */
int32_t ondol_encoder_run(encoder *e, int32_t texts, const int32_t *offsets, const int32_t *ids,
                          const int32_t *types, float *out);

void ondol_encoder_close(encoder *e);

#endif
