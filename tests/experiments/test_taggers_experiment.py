"""The tagger experiment on three sentences."""

import gzip
import json
import sys

import pytest

from experiments.taggers import composition, evaluate

CONLLU = """\
# text = She paid $5 for three.
1	She	she	PRON	PRP	_	2	nsubj	_	_
2	paid	pay	VERB	VBD	_	0	root	_	_
3	$	$	SYM	$	_	2	obj	_	SpaceAfter=No
4	5	5	NUM	CD	_	3	nummod	_	_
5	for	for	ADP	IN	_	6	case	_	_
6	three	three	NUM	CD	_	2	obl	_	SpaceAfter=No
7	.	.	PUNCT	.	_	2	punct	_	_

# text = Don't be first.
1-2	Don't	_	_	_	_	_	_	_	_
1	Do	do	AUX	VB	_	4	aux	_	_
2	n't	not	PART	RB	_	4	advmod	_	_
3	be	be	AUX	VB	_	4	cop	_	_
3.1	be	be	AUX	VB	_	_	_	_	_
4	first	first	ADJ	JJ	_	0	root	_	SpaceAfter=No
5	.	.	PUNCT	.	_	4	punct	_	_
"""


def test_the_lexical_rules_on_two_sentences(tmp_path, monkeypatch):
    (tmp_path / "gold").mkdir()
    (tmp_path / "gold/tiny.conllu").write_text(CONLLU, encoding="utf-8")
    arguments = ["--gold", str(tmp_path / "gold"), "--json", str(tmp_path / "taggers.json")]
    monkeypatch.setattr(sys, "argv", ["evaluate", *arguments])
    evaluate.main()
    found = json.loads((tmp_path / "taggers.json").read_text())["files"]["tiny.conllu"]
    assert (found["sentences"], found["words"]) == (2, 12)
    rules = found["lexical rules (default)"]
    for way in ("gold_tokens", "from_text"):  # the ordinal is a number to spaCy's rules, an adjective to gold
        assert rules[way]["NUM"] == {"precision": pytest.approx(66.67), "recall": 100, "f1": 80,
                                     "right": 2, "found": 3, "gold": 2}  # fmt: skip
        assert rules[way]["SYM"]["f1"] == 100
    assert rules["gold_tokens"]["most_frequent_errors"] == [
        {"word": "first", "gold": "ADJ", "found": "NUM", "times": 1}
    ]


def test_compositions_side_by_side(tmp_path):
    texts = {"a": ["3 + 4 = 7 apples", "and so on"], "b": ["3 + 4 = 7"], "d": ["the"]}
    for arm, cots in texts.items():
        (tmp_path / f"{arm}-0").mkdir()
        rows = [{"cot": cot, "sample": 0} for cot in cots] + [{"cot": "left out", "sample": 1}]
        with gzip.open(tmp_path / f"{arm}-0/completions.jsonl.gz", "wt", encoding="utf-8") as file:
            file.write("".join(json.dumps(row) + "\n" for row in rows))
    arms = composition.measure(tmp_path, seeds=1, samples=1, pipelines=[])
    counted = {arm: each["shares"]["lexical rules"] for arm, each in arms.items()}
    assert counted["a"]["numbers_pct"] == [100 * 3 / 9] and counted["a"]["symbols_pct"] == [100 * 2 / 9]
    assert counted["b"]["numbers_pct"] == [60] and counted["d"]["stop_words_pct"] == [100]
    assert "| outcome + saliency | 60.00 | 0.00 | 40.00 |" in composition.table(arms)
