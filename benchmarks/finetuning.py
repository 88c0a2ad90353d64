"""Fine-tuning the embedder on Korean statutes: what it gains on questions it never saw.

Questions are split by a hash of their id: 36 % judge, the rest train. Further training pairs are
holdings of the precedents with the articles the court lists for them, without any decision that a
judging question is from, and without any holding that repeats a judging question's words. Dense and
hybrid, base and tuned, on the same collection; then the tuned model is ingested and evaluated as any
other. Run: ``python benchmarks/finetuning.py [--minutes 20] [--epochs 1] [--only-questions]``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import data_set, ondol, report, table, working_home

SHARE = 0.4
SHINGLE = 8
COPIED = 0.5
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=0.0)
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--rate", type=float, default=5e-5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only-questions", action="store_true", help="no holdings as pairs")
    options = parser.parse_args()
    home = home_of_its_own()
    statutes = data_set("ko_law_statutes")
    judged = judgements(statutes)
    queries = rows(statutes / "queries.jsonl")
    test = [q for q in queries if place(q["_id"]) < SHARE]
    train = [q for q in queries if place(q["_id"]) >= SHARE]
    holdings = [] if options.only_questions else precedents(test)
    pairs = [pair(q["_id"], q["text"], judged[q["_id"]]) for q in train] + holdings
    write(home / "pairs.jsonl", pairs)
    write(home / "judge.jsonl", [pair(q["_id"], q["text"], judged[q["_id"]]) for q in test])
    folder = test_folder(home, statutes, test, judged)
    before = ondol("eval", "retrieval", "--dataset", str(folder), "--all-modes", home=home)
    made = ondol(
        *("models", "finetune", "law-e5", "-c", f"eval-{folder.name}"),
        *("--pairs", str(home / "pairs.jsonl"), "--judge", str(home / "judge.jsonl")),
        *("--epochs", str(options.epochs), "--seed", str(options.seed)),
        *("--layers", str(options.layers), "--rate", str(options.rate)),
        *(("--minutes", str(options.minutes)) if options.minutes else ()),
        home=home,
    )
    if "error" in made:
        raise SystemExit(made["error"]["message"])
    # A second home: a collection belongs to one embedder.
    again = working_home("finetuning-tuned")
    (again / "models").unlink()
    (again / "models").symlink_to(home / "models")
    after = ondol(
        *("--set", "models.embedder=law-e5", "eval", "retrieval"),
        *("--dataset", str(folder), "--all-modes"),
        home=again,
    )
    show(before, after, made, pairs=len(pairs), options=vars(options))


def home_of_its_own() -> Path:
    """Return a scratch home in which the tuned model stays, apart from the default home's models."""
    home = working_home("finetuning")
    shared = (home / "models").resolve()
    (home / "models").unlink()
    (home / "models").mkdir()
    for folder in shared.iterdir():
        if folder.is_dir() and not folder.name.startswith("."):
            (home / "models" / folder.name).symlink_to(folder)
    return home


def show(before: Row, after: Row, made: Row, *, pairs: int, options: Row) -> None:
    found = []
    for mode in ("dense", "lexical", "hybrid"):
        base, tuned = (side["modes"][mode] for side in (before, after))
        found.append(
            (
                mode,
                round(base["ndcg_at_10"], 4),
                round(tuned["ndcg_at_10"], 4),
                round(tuned["ndcg_at_10"] - base["ndcg_at_10"], 4),
                round(base["recall_at_10"], 4),
                round(tuned["recall_at_10"], 4),
            )
        )
    table(("search", "nDCG@10 base", "tuned", "gain", "recall@10 base", "tuned"), found)
    gate = made["gate"]
    report(
        {
            "ndcg_at_10": {row[0]: {"base": row[1], "tuned": row[2]} for row in found},
            "recall_at_10": {row[0]: {"base": row[4], "tuned": row[5]} for row in found},
            "gain_intervals": {m: one["difference"] for m, one in gate["modes"].items()},
            "questions": gate["questions"],
            "pairs": pairs,
            "training": made["training"],
            "form_loss": made["form_loss"],
        },
        settings={**options, "recipe": made["recipe"]},
    )


def precedents(test: Sequence[Row]) -> list[Row]:
    """Return holdings with the articles they rest on, none of them near a judging question."""
    cases = {q["metadata"]["case"] for q in test}
    wordings = [shingles(q["text"]) for q in test]
    articles = {row["_id"] for row in rows(data_set("ko_law_statutes") / "corpus.jsonl")}
    found = []
    for row in rows(data_set("ko_law_precedents") / "corpus.jsonl"):
        cited = [one for one in row["metadata"]["statutes"] if one in articles]
        if not cited or row["metadata"]["case"] in cases:
            continue
        own = shingles(row["text"])
        if max(len(own & one) / len(one) for one in wordings) < COPIED:
            found.append(pair(row["_id"], row["text"], cited))
    return found


def test_folder(
    home: Path, source: Path, test: Sequence[Row], judged: dict[str, list[str]]
) -> Path:
    """Write a BEIR folder of the judging questions over the whole corpus."""
    folder = home / "ko_law_statutes_test"
    folder.mkdir()
    (folder / "corpus.jsonl").symlink_to(source / "corpus.jsonl")
    write(folder / "queries.jsonl", test)
    lines = [f"{q['_id']}\t{d}\t1" for q in test for d in judged[q["_id"]]]
    (folder / "qrels.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *lines]), "utf-8")
    return folder


def judgements(folder: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in (folder / "qrels.tsv").read_text("utf-8").splitlines()[1:]:
        query, document, _ = line.split("\t")
        found.setdefault(query, []).append(document)
    return found


def place(identity: str) -> float:
    digest = hashlib.blake2b(f"split:{identity}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def shingles(text: str) -> set[str]:
    squeezed = "".join(text.split())
    return {squeezed[i : i + SHINGLE] for i in range(max(1, len(squeezed) - SHINGLE + 1))}


def pair(identity: str, text: str, documents: Sequence[str]) -> Row:
    return {"id": identity, "query": text, "documents": list(documents)}


def rows(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]


def write(path: Path, lines: Sequence[Row]) -> None:
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), "utf-8")


if __name__ == "__main__":
    main()
