"""Every form of both embedders and the reranker through the fidelity gate, on the shared sets.

Calls ``ondol eval fidelity`` once a model and language: rated pairs (STS-B, KorSTS), nDCG@10 on
SciFact and KorQuAD, and the sampled texts of the other benchmarks for the cosine.
Run: ``python benchmarks/fidelity_sets.py [--models all-minilm-l6-v2,…] [--forms onnx:int8,…]``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common import data_set, ondol, report, table
from texts import english, korean

SETS = (
    ("all-minilm-l6-v2", "en", "stsb_en_dev.tsv", "en_scifact_subset"),
    ("multilingual-e5-small", "ko", "korsts_dev.tsv", "ko_korquad"),
    ("multilingual-e5-small", "en", "stsb_en_dev.tsv", "en_scifact_subset"),
    ("ms-marco-minilm-l12-v2", "en", "", "en_scifact_subset"),
)
COLUMNS = (
    "cosine_mean",
    "cosine_p1",
    "cosine_min",
    "sts_spearman",
    "ndcg_at_10",
    "kendall_tau",
    "top1_agreement",
    "batch_mates",
    "loss",
)


def measure(model: str, sts: str, dataset: str, texts: Path, forms: str) -> dict[str, Any]:
    """Return what ``ondol eval fidelity`` says of the forms of ``model``; a failed gate too."""
    arguments = ["eval", "fidelity", "--model", model]
    if dataset:
        arguments += ["--dataset", str(data_set(dataset))]
    if sts:
        arguments += ["--sts", str(data_set("sts_pairs") / sts), "--texts", str(texts)]
    for form in forms.split(","):
        arguments += ["--form", form]
    return ondol(*arguments)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", default="", help="only these, by comma")
    parser.add_argument("--forms", default="all", help="by comma")
    parser.add_argument("--texts", type=int, default=512, help="texts for the cosine")
    parser.add_argument("--quick", action="store_true", help="one reranker form on the samples")
    options = parser.parse_args()
    if options.quick:
        options.models, options.forms = "ms-marco-minilm-l12-v2", "onnx:int8"
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for model, language, sts, dataset in SETS:
            if options.models and model not in options.models.split(","):
                continue
            texts = Path(scratch) / f"{language}.json"
            sample = (korean if language == "ko" else english)(options.texts)
            texts.write_text(json.dumps(sample, ensure_ascii=False), "utf-8")
            dataset = "" if options.quick else dataset
            answer = measure(model, sts, dataset, texts, options.forms)
            found.append({"language": language, "sts": sts, "dataset": dataset, **answer})
            _print(found[-1])
    report(
        {"benchmark": "fidelity_sets", "baseline": "the reference form", "sets": found},
        settings={"forms": options.forms, "texts": options.texts, "seed": 0},
    )


def _print(answer: Mapping[str, Any]) -> None:
    if "forms" not in answer:
        print(f"\n### {answer.get('error', answer)}")
        return
    columns = [name for name in COLUMNS if any(name in form for form in answer["forms"])]
    print(
        f"\n### {answer['model']}, {answer['language']}: against {answer['reference']} "
        f"({' and '.join(filter(None, (answer['sts'], answer['dataset']))) or 'own samples'})\n"
    )
    table(
        ("form", *columns),
        [
            (form["form"], *(_cell(form, name) for name in columns))
            if "error" not in form
            else (form["form"], form["error"], *[""] * (len(columns) - 1))
            for form in answer["forms"]
        ],
    )


def _cell(form: Mapping[str, Any], name: str) -> str:
    value = form.get(name)
    if not isinstance(value, int | float):
        return "-"
    before = form.get(f"{name}_reference")
    text = f"{value:.5f}"
    return f"{text} ({value - before:+.5f})" if isinstance(before, int | float) else text


if __name__ == "__main__":
    main()
