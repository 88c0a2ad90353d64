#!/bin/sh
# The whole of Ondol in one go: models, sample documents, one question, a cited answer.
# Exits with 0 only when the answer has at least one verified citation.
set -eu
cd "$(dirname "$0")/.."
question=${QUESTION:-생활안정자금 대출의 이율은 얼마인가요?}

ondol() {
    .venv/bin/python -m ondol "$@"
}
step() {
    printf '\n==> %s\n' "$*" >&2
}

step "models: fetched once, checked against their hashes"
ondol models pull

step "documents: work rules (PDF), handbook, reviews, and Ondol's own docs"
ondol ingest --collection demo \
    examples/demo/work_rules_ko.pdf \
    examples/demo/handbook_en.md \
    examples/demo/reviews.jsonl \
    docs

step "question: $question"
ondol ask --collection demo --require-citation "$question"

step "now try: .venv/bin/ondol ask \"How often do we get a new laptop?\" -c demo, or: make serve"
