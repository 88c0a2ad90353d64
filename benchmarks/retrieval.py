"""Search quality on every shared data set, vectors, keywords and both, against the prototype.

The prototype (e5-small int8 + Kiwi BM25 + RRF, whole documents) is the named baseline; its figures
were measured before this code existed. Run: ``python benchmarks/retrieval.py [SET …]``.
"""

from __future__ import annotations

import sys

from common import data_set, ondol, report, table, working_home

PROTOTYPE = {
    "ko_fire_petitions": 0.835,
    "ko_law_precedents": 0.932,
    "ko_law_statutes": 0.530,
    "ko_korquad": 0.938,
    "en_scifact_subset": None,
}


def main() -> None:
    home = working_home("retrieval")
    rows, figures = [], {}
    for name in sys.argv[1:] or PROTOTYPE:
        result = ondol(
            "eval", "retrieval", "--dataset", str(data_set(name)), "--all-modes", home=home
        )
        scores = {mode: round(result["modes"][mode]["ndcg_at_10"], 4) for mode in result["modes"]}
        target = PROTOTYPE.get(name)
        ratio = round(scores["hybrid"] / target, 3) if target else None
        figures[name] = {
            **scores,
            "recall_at_10": round(result["recall_at_10"], 4),
            "mrr_at_10": round(result["mrr_at_10"], 4),
            "prototype": target,
            "ratio": ratio,
        }
        rows.append(
            (
                name,
                scores["dense"],
                scores["lexical"],
                scores["hybrid"],
                round(result["recall_at_10"], 4),
                target,
                ratio,
            )
        )
    table(("set", "dense", "keywords", "hybrid", "recall@10", "prototype hybrid", "ratio"), rows)
    report({"ndcg_at_10": figures})


if __name__ == "__main__":
    main()
