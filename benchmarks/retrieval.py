"""Search quality on every shared data set, vectors, keywords and both, against the better of the legs.

The same settings everywhere. Baselines: the better leg in the same run (hybrid may not fall below it by
more than 0.005), and the prototype (e5-small int8 + Kiwi BM25 + RRF, whole documents), whose figures
were measured before this code existed. Run: ``python benchmarks/retrieval.py [SET …]``.
"""

from __future__ import annotations

import sys

from common import data_set, ondol, report, table, working_home

PROTOTYPE = {
    "ko_fire_petitions": 0.835,
    "ko_korquad": 0.938,
    "ko_law_precedents": 0.932,
    "ko_law_statutes": 0.530,
    "en_cranfield": None,
    "en_scifact_subset": None,
    "en_xquad": None,
}
MARGIN = 0.005


def main() -> None:
    home = working_home("retrieval")
    rows, figures = [], {}
    for name in sys.argv[1:] or PROTOTYPE:
        result = ondol(
            "eval", "retrieval", "--dataset", str(data_set(name)), "--all-modes", home=home
        )
        scores = {mode: round(result["modes"][mode]["ndcg_at_10"], 4) for mode in result["modes"]}
        over = round(scores["hybrid"] - max(scores["dense"], scores["lexical"]), 4)
        target = PROTOTYPE.get(name)
        ratio = round(scores["hybrid"] / target, 3) if target else None
        figures[name] = {
            **scores,
            "over_better_leg": over,
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
                f"{over:+.4f}",
                round(result["recall_at_10"], 4),
                target,
                ratio,
            )
        )
    head = ("set", "dense", "keywords", "hybrid", "over the better leg", "recall@10")
    table((*head, "prototype hybrid", "ratio"), rows)
    least = min(one["over_better_leg"] for one in figures.values())
    report({"ndcg_at_10": figures, "least_over_better_leg": least, "holds": least >= -MARGIN})


if __name__ == "__main__":
    main()
