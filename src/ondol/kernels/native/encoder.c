/* A BERT encoder in 8-bit integers for CPUs with AVX512-VNNI and AVX512-BF16.
 *
 * Owns the arithmetic of one batch and nothing else: no file, no tokenizer, no queue. Weights are
 * read where they lie (memory-mapped by the caller, packed by packed_weights.py) and never
 * copied. Texts are packed one after the other without padding, and each token's activations are
 * quantised by that token's own range, so a text's vector does not depend on its batch mates.
 *
 * Threads take groups of texts, longest first, and run each group through all layers by themselves:
 * no thread ever waits for another, and a group's activations stay in its core's cache. A batch of
 * too few texts for that is shared by rows; its threads meet once a layer.
 */
#include "encoder.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "attention.h"
#include "threads.h"

#define BLOCK 48 /* rows that go through a layer together; their activations stay in L2 */
#define LEAST_GROUP 48 /* rows of the smallest group of texts: one block */
#define LARGEST_GROUP 256 /* of the largest: 14 bytes a channel, 1.4 MB at 384, about a core's L2 */

typedef struct {
    const int32_t *offsets, *ids, *types;
    int32_t texts, tokens;
    float *out;
} batch;

struct encoder {
    model m;
    pool *workers;
    int32_t active;
    void *scratch[MAX_THREADS]; /* one a worker */
    size_t scratch_bytes;
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
};

/* Where one worker keeps a block's activations and a head. */
typedef struct {
    uint8_t *q;  /* (BLOCK, hidden) */
    float *wide; /* (BLOCK, ffn) */
    head_room room;
} scratch;

static size_t aligned(size_t bytes) { return (bytes + 63) & ~(size_t)63; }

static size_t lay_out(scratch *s, uint8_t *base, const model *m, int32_t longest) {
    size_t length = ((size_t)longest + 63) & ~(size_t)63, head = m->hidden / m->heads, at = 0;
    s->q = base + at; at += aligned((size_t)BLOCK * m->hidden);
    s->wide = (float *)(base + at); at += aligned((size_t)BLOCK * m->ffn * 4);
    s->room.keys = (uint32_t *)(base + at); at += aligned(length * head / 2 * 4);
    s->room.values = (uint32_t *)(base + at); at += aligned(length / 2 * head * 4);
    s->room.scores = (float *)(base + at); at += aligned(ATTENTION_ROWS * length * 4);
    s->room.shares = (uint16_t *)(base + at); at += aligned(ATTENTION_ROWS * length * 2);
    return at;
}

static int32_t least(int32_t a, int32_t b) { return a < b ? a : b; }

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

/* Groups never wait for each other; workers that share a batch by rows meet once a layer. */
static void meet(encoder *e) {
    if (!e->group_count) pool_meet(e->workers);
}

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
            pack_keys(base + h, length, stride, head, mine->s.room.keys);
            pack_values(base + 2 * h, length, stride, head, mine->s.room.values);
            attend(&mine->s.room, qkv + (size_t)row * stride + n * head, until - row, stride, head, length,
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
            pack_keys(row + h + n * head, length, stride, head, mine->s.room.keys);
            pack_values(row + 2 * h + n * head, length, stride, head, mine->s.room.values);
            attend(&mine->s.room, row + n * head, 1, stride, head, length,
                   context + (size_t)i * h + n * head, h);
        }
    }
    for (int32_t i = 0; i < mine->to - mine->from; i += BLOCK)
        finish_block(m, l, &mine->s, context + (size_t)i * h, x + (size_t)i * h,
                     least(BLOCK, mine->to - mine->from - i));
}

static void run_share(encoder *e, const share *mine) {
    const model *m = &e->m;
    for (int32_t row = mine->first; row < mine->last; row++) embed(e, row);
    int32_t full = m->first_token_only ? m->layers - 1 : m->layers;
    for (int32_t i = 0; i < full; i++) full_layer(e, mine, i);
    if (m->first_token_only) last_layer_first_tokens(e, mine, full);
    else {
        meet(e);
        for (int32_t text = mine->from; text < mine->to; text++) {
            int32_t start = e->starts[text];
            average_rows(e->hidden + (size_t)start * m->hidden, e->starts[text + 1] - start, m->hidden,
                         e->pooled + (size_t)text * m->hidden);
        }
    }
    for (int32_t text = mine->from; text < mine->to; text++)
        memcpy(e->job.out + (size_t)e->order[text] * m->hidden, e->pooled + (size_t)text * m->hidden,
               (size_t)m->hidden * 4);
}

static void work_on(void *context, int32_t index) {
    encoder *e = context;
    share mine;
    lay_out(&mine.s, e->scratch[index], &e->m, e->starts[1]);
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

/* ---- one batch, and the interface -------------------------------------------------------- */

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
    if (bytes > e->scratch_bytes) {
        e->scratch_bytes = 0;
        for (int32_t i = 0; i < pool_threads(e->workers); i++) {
            free(e->scratch[i]);
            e->scratch[i] = aligned_alloc(64, aligned(bytes));
            if (!e->scratch[i]) return -1;
        }
        e->scratch_bytes = bytes;
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
    if (e->workers) pool_close(e->workers);
    for (int32_t i = 0; i < MAX_THREADS; i++) free(e->scratch[i]);
    free(e->hidden); free(e->context); free(e->qkv[0]); free(e->qkv[1]); free(e->text_of);
    free(e->pooled); free(e->order); free(e->starts); free(e->groups);
    free((void *)e->m.layer);
    free(e);
}

encoder *ondol_encoder_open(const model *m, int32_t threads) {
    encoder *e = calloc(1, sizeof *e);
    if (!e) return 0;
    layer *layers = malloc(sizeof(layer) * (size_t)m->layers);
    e->m = *m;
    e->m.layer = layers;
    e->workers = pool_open(threads, work_on, e);
    if (!layers || !e->workers) {
        ondol_encoder_close(e);
        return 0;
    }
    memcpy(layers, m->layer, sizeof(layer) * (size_t)m->layers);
    return e;
}

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
    int32_t active = least(pool_threads(e->workers), job.tokens / TILE);
    e->active = active < 1 ? 1 : active;
    form_groups(e, &job);
    pool_run(e->workers, e->active);
    return 0;
}
