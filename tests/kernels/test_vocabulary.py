"""Trimmed vocabularies: what stays, that kept scripts are cut as before, that the rest still runs."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.kernels.synthetic_weights import HIDDEN, e5s1_bytes, random_tensors
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

from ondol.kernels.bert import BertWeights, Q4Matrix, as_float
from ondol.kernels.e5s1 import read_e5s1
from ondol.kernels.kernel_error import KernelError
from ondol.kernels.vocabulary import (
    DEFAULT_SCRIPTS,
    Script,
    kept_pieces,
    read_tokenizer,
    script_test,
    trim,
    trim_tokenizer,
    trim_weights,
)

ALPHABETS = {
    "latin": "abcdefgABC",
    "hangul": "가나다라마바사ㅋ",
    "hanja": "法人權",
    "kana": "あいカ",
    "cyrillic": "дежз",
    "common": "0179.,()-%\N{FIRE}",
}
FOREIGN = "あいカдежз\N{CJK UNIFIED IDEOGRAPH-8FD9}é\N{ARABIC LETTER ALEF}\N{THAI CHARACTER KO KAI}"
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]


def synthetic_pieces(seed: int = 5) -> list[tuple[str, float]]:
    """Single characters and random words of each alphabet, with scores as a Unigram has them."""
    rng = random.Random(seed)
    pieces: dict[str, float] = dict.fromkeys(SPECIAL, 0.0)
    pieces["▁"] = -3.5
    for letters in ALPHABETS.values():
        for letter in letters:
            pieces[letter] = -rng.uniform(6, 12)
        for _ in range(40):
            word = "".join(rng.choices(letters, k=rng.randint(2, 4)))
            pieces[rng.choice(["", "▁"]) + word] = -rng.uniform(5, 14)
    pieces["あa"] = pieces["가д"] = -5.0
    pieces["<mask>"] = 0.0
    return list(pieces.items())


def synthetic_tokenizer(path: Path, pieces: list[tuple[str, float]]) -> Path:
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3, byte_fallback=False))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t in [*SPECIAL, "<mask>"]])
    tokenizer.save(str(path))
    return path


class Cut:
    """The synthetic tokenizer full and trimmed."""

    def __init__(self, folder: Path) -> None:
        self.source = synthetic_tokenizer(folder / "tokenizer.json", synthetic_pieces())
        self.settings = read_tokenizer(self.source)
        self.kept = kept_pieces(self.settings)
        trim_tokenizer(self.settings, self.kept, target=folder / "trimmed.json")
        self.full: Any = Tokenizer.from_file(str(self.source))
        self.small: Any = Tokenizer.from_file(str(folder / "trimmed.json"))


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Cut:
    return Cut(tmp_path_factory.mktemp("tokenizers"))


def of(*names: str) -> st.SearchStrategy[str]:
    letters = "".join(ALPHABETS[name] for name in names)
    return st.text(alphabet=letters + " ", max_size=40)


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=of(*DEFAULT_SCRIPTS))
def test_a_text_of_kept_scripts_is_cut_as_before(cut: Cut, text: str) -> None:
    small, full = cut.small.encode(text), cut.full.encode(text)
    assert small.tokens == full.tokens
    assert cut.kept[small.ids].tolist() == full.ids


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=st.one_of(st.text(max_size=40), of(*ALPHABETS), st.text(alphabet=FOREIGN, max_size=20)))
def test_any_text_is_still_cut_into_known_ids(cut: Cut, text: str) -> None:
    small, full = cut.small.encode(text), cut.full.encode(text)
    assert max(small.ids) < len(cut.kept)
    assert small.ids[0] == cut.small.token_to_id("<s>")
    assert small.ids[-1] == cut.small.token_to_id("</s>")
    unknown = cut.small.token_to_id("<unk>")
    assert small.ids.count(unknown) == full.ids.count(cut.full.token_to_id("<unk>"))


def test_ids_are_dense_and_keep_their_order(cut: Cut) -> None:
    names = [cut.small.id_to_token(i) for i in range(cut.small.get_vocab_size())]
    assert names == [cut.full.id_to_token(i) for i in cut.kept]
    assert cut.small.token_to_id("<mask>") == len(names) - 1 < cut.full.token_to_id("<mask>")
    assert cut.small.encode("<mask>").ids[1:-1] == [len(names) - 1]
    pair = cut.small.encode("가나", "abc")
    assert cut.kept[pair.ids].tolist() == cut.full.encode("가나", "abc").ids
    assert pair.type_ids == cut.full.encode("가나", "abc").type_ids


def test_only_other_scripts_words_go(cut: Cut) -> None:
    kept = {cut.full.id_to_token(i) for i in cut.kept}
    gone = set(cut.full.get_vocab()) - kept
    foreign = set("".join(ALPHABETS["kana"] + ALPHABETS["cyrillic"]))
    assert foreign <= kept
    assert gone == {p for p in cut.full.get_vocab() if len(p.strip("▁")) > 1 and set(p) & foreign}


def test_more_scripts_and_a_corpus_keep_more(cut: Cut) -> None:
    settings_ = cut.settings
    wider = kept_pieces(settings_, scripts=[*DEFAULT_SCRIPTS, "kana"])
    assert set(cut.kept) < set(wider)
    used = cut.full.encode("дежз деж").ids
    assert set(kept_pieces(settings_, used=used)) == set(cut.kept) | set(used)


@pytest.mark.parametrize(
    ("character", "script"),
    [
        ("가", "hangul"), ("ㅋ", "hangul"), ("ᄒ", "hangul"), ("權", "hanja"), ("Z", "latin"),
        ("7", "common"), ("§", "common"), ("①", "common"), ("\N{FIRE}", "common"), ("\u200d", "common"),
        ("é", "latin-extended"), ("ề", "latin-extended"), ("μ", "greek"), ("я", "cyrillic"),
        ("カ", "kana"), ("这", "han"),
    ],
)  # fmt: skip
def test_a_character_s_script(character: str, script: Script) -> None:
    assert script_test([script])(character)
    others: list[Script] = [
        s for s in ("common", "hangul", "latin", "greek", "kana") if s != script
    ]
    assert not script_test(others)(character)


def test_ideographs_outside_the_korean_standard_are_no_hanja() -> None:
    assert not script_test(["hanja"])("这")


def test_digits_of_other_scripts_are_not_common() -> None:
    assert not script_test(["common"])("\N{ARABIC-INDIC DIGIT ONE}")


def e5(tmp_path: Path, *, packed: bool) -> BertWeights:
    pieces = len(synthetic_pieces())
    tensors = random_tensors(vocab=pieces)
    path = tmp_path / "tiny.bin"
    path.write_bytes(e5s1_bytes(tensors))
    weights = read_e5s1(path)
    if packed:
        return weights
    return BertWeights(
        shape=weights.shape, matrix=lambda n: as_float(weights.matrix(n)), vector=weights.vector
    )


@pytest.mark.parametrize("packed", [True, False])
def test_trimmed_weights_are_the_kept_rows(tmp_path: Path, packed: bool) -> None:
    weights = e5(tmp_path, packed=packed)
    source = synthetic_tokenizer(tmp_path / "tokenizer.json", synthetic_pieces())
    before = source.read_bytes()
    cut = trim(weights, source, target=tmp_path / "small.json", corpus=["дежз"])
    table = cut.weights.matrix("emb.word")
    assert isinstance(table, Q4Matrix) is packed
    assert table.shape == (len(cut.kept), HIDDEN)
    assert cut.weights.shape.vocab == len(cut.kept) < weights.shape.vocab
    full = as_float(weights.matrix("emb.word"))
    np.testing.assert_array_equal(as_float(table), full[cut.kept])
    np.testing.assert_array_equal(
        as_float(cut.weights.matrix("l0.q.w")), as_float(weights.matrix("l0.q.w"))
    )
    small, whole = Tokenizer.from_file(str(cut.tokenizer)), Tokenizer.from_file(str(source))
    text = "가나다 abc дежз"
    np.testing.assert_array_equal(
        as_float(table)[small.encode(text).ids], full[whole.encode(text).ids]
    )
    assert source.read_bytes() == before


def test_a_table_that_is_too_small_is_refused(tmp_path: Path) -> None:
    weights = e5(tmp_path, packed=True)
    with pytest.raises(KernelError, match=f"table of {weights.shape.vocab} rows"):
        trim_weights(weights, np.array([0, weights.shape.vocab]))


def test_a_cut_without_a_special_token_is_refused(cut: Cut, tmp_path: Path) -> None:
    target = tmp_path / "small.json"
    with pytest.raises(KernelError, match="not kept"):
        trim_tokenizer(cut.settings, cut.kept[:-1], target=target)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "data", ["", "[]", '{"model": {"type": "WordPiece", "vocab": {"a": 0}}}', '{"model": {}}']
)
def test_what_is_no_unigram_is_refused(tmp_path: Path, data: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(data, "utf-8")
    with pytest.raises(KernelError, match=r"tokenizer\.json"):
        read_tokenizer(path)


def test_other_post_processors_and_padding_are_renumbered(cut: Cut, tmp_path: Path) -> None:
    # Moved to the end, the special tokens have ids that the cut changes.
    pieces = [*synthetic_pieces()[4:-1], *synthetic_pieces()[:4], ("<mask>", 0.0)]
    source = synthetic_tokenizer(tmp_path / "t.json", pieces)
    first = len(pieces) - 5
    whole = json.loads(source.read_text("utf-8"))
    whole["model"]["unk_id"] = first + 3
    whole["padding"] = {
        "strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None,
        "pad_id": first + 1, "pad_type_id": 0, "pad_token": "<pad>",
    }  # fmt: skip
    whole["post_processor"] = {
        "type": "RobertaProcessing", "sep": ["</s>", first + 2], "cls": ["<s>", first],
        "trim_offsets": True, "add_prefix_space": True,
    }  # fmt: skip
    source.write_text(json.dumps(whole), "utf-8")
    kept = kept_pieces(read_tokenizer(source))
    trim_tokenizer(read_tokenizer(source), kept, target=tmp_path / "small.json")
    small, full = (Tokenizer.from_file(str(tmp_path / n)) for n in ("small.json", "t.json"))
    texts = ["가나 abc", "가", "\N{ETHIOPIC SYLLABLE HA} 나"]
    for ours, theirs in zip(small.encode_batch(texts), full.encode_batch(texts), strict=True):
        assert ours.tokens == theirs.tokens
        assert kept[ours.ids].tolist() == theirs.ids


@pytest.fixture(scope="module")
def real(models_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Any]:
    source = models_folder / "multilingual-e5-small" / "tokenizer.json"
    if not source.is_file():
        pytest.skip("fetch it with: ondol models pull multilingual-e5-small")
    whole = read_tokenizer(source)
    kept = kept_pieces(whole)
    target = tmp_path_factory.mktemp("real") / "tokenizer.json"
    trim_tokenizer(whole, kept, target=target)
    return Tokenizer.from_file(str(source)), Tokenizer.from_file(str(target)), kept


def texts_of(folder: Path, name: str, count: int) -> Iterable[str]:
    lines = (folder / name / "corpus.jsonl").read_text("utf-8").splitlines()[:count]
    return [json.loads(line)["text"] for line in lines]


@pytest.mark.model
def test_the_real_vocabulary_keeps_korean_and_english(
    real: tuple[Any, Any, Any], shared_data: Path
) -> None:
    full, small, kept = real
    assert len(kept) < 0.45 * full.get_vocab_size()
    belongs = script_test(DEFAULT_SCRIPTS)
    for name in ("ko_korquad", "ko_law_statutes", "en_xquad", "en_scifact_subset"):
        texts = [*texts_of(shared_data, name, 300)]
        same = 0
        for ours, theirs, text in zip(
            small.encode_batch(texts), full.encode_batch(texts), texts, strict=True
        ):
            equal = kept[ours.ids].tolist() == theirs.ids
            normal = full.normalizer.normalize_str(text)
            assert equal or not all(map(belongs, normal)), text
            same += equal
        assert same >= 0.85 * len(texts)


@pytest.mark.model
@pytest.mark.parametrize(
    "text",
    [
        "東京都に住んでいます。カタカナもひらがなも。",
        "这是一份中文合同，第三条规定了违约责任。",
        "Договор вступает в силу с момента подписания.",
        "العقد شريعة المتعاقدين ١٢٣",
        "สัญญานี้มีผลบังคับใช้",
        "❤️‍🔥👩🏽‍💻🇰🇷 ok 👍🏿",
        "근로계약(Employment — договор, 契約書) №7 ½ ㎡ ①",
        "\x00\u200b\u202e�\U000e0041 ﷽ 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 Ǆ",
        "",
    ],
)
def test_other_scripts_fall_back_to_single_characters(
    real: tuple[Any, Any, Any], text: str
) -> None:
    full, small, kept = real
    ours, theirs = small.encode(text), full.encode(text)
    assert max(ours.ids) < len(kept)
    unknown = small.token_to_id("<unk>")
    assert ours.ids.count(unknown) <= theirs.ids.count(unknown)
    assert small.decode(ours.ids) == full.decode(theirs.ids)
