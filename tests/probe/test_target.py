from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atmanrl.probe.attention import ProbeError
from atmanrl.probe.target import target
from atmanrl.rollouts import Completion, Rollout, split
from atmanrl.tasks import Problem


class Pieces:
    """A tokenizer of given pieces of text, the longest match first; its ids are numbers in the list."""

    all_special_ids = (0,)
    added_tokens_decoder: dict[int, object] = {}

    def __init__(self, *pieces: str) -> None:
        self.pieces = ["", *pieces]

    def __call__(
        self, text: str, add_special_tokens: bool = True, split_special_tokens: bool = False
    ) -> SimpleNamespace:
        assert split_special_tokens and not add_special_tokens
        ids = []
        while text:
            piece = max((p for p in self.pieces[1:] if text.startswith(p)), key=len)
            ids.append(self.pieces.index(piece))
            text = text[len(piece) :]
        return SimpleNamespace(input_ids=ids)

    def convert_ids_to_tokens(self, token_id: int) -> str:
        return self.pieces[token_id]

    def decode(self, ids, **_) -> str:
        return "".join(self.pieces[i] for i in ids)

    def of(self, *pieces: str) -> list[int]:
        return [self.pieces.index(p) for p in pieces]


def rollout(tokenizer, ids: list[int], gold: str = "7") -> Rollout:
    completion = Completion(ids, [], True)
    return Rollout(Problem("p/0", "?", gold), 0, 0, "?", [5, 6], completion, split(tokenizer, ids))


def text_parts(tokenizer, found) -> tuple[str, str, str]:
    end = found.rows - found.answer
    tail = found.tail
    return tuple(tokenizer.decode(ids) for ids in (tail[: found.cot], tail[found.cot : end], tail[end:]))


# what the policy sampled, and what is probed: reasoning, delimiter, gold answer
SAMPLED = {
    "as_it_stands": (["a", "b", "#####", " 3"], ["a", "b"], ["#####"], [" 7"]),
    "in_parts": (["a", "##", "#", "##", "3"], ["a"], ["##", "#", "##"], [" 7"]),
    "begins_in_the_reasoning": (["a", "b", ".#####", " 3"], ["a", "b"], [".#####"], [" 7"]),
    "begins_there_in_parts": (["a", ".##", "###", " 3"], ["a"], [".##", "###"], [" 7"]),
    "ends_in_the_answer": (["a", "b", "#####3"], ["a", "b"], ["#####"], [" 7"]),
    "ends_there_in_parts": (["a", "##", "###3"], ["a"], ["#####"], [" 7"]),
    "straddles_both": (["a", ".#####3"], ["a"], [".#####"], [" 7"]),
    "more_hashes": (["a", "###", "###", " 3"], ["a"], ["#####"], [" 7"]),
    "twice": (["a", "#####", "3", "#####", "3"], ["a"], ["#####"], [" 7"]),
    "nothing_follows": (["a", "#####"], ["a"], ["#####"], [" 7"]),
}


@pytest.mark.parametrize("case", SAMPLED)
def test_the_delimiter_stands_as_sampled_where_it_can(case):
    pieces = "a b . # ## ### ##### 3 7".split() + [".##", ".#####", "#####3", "###3", ".#####3", " 3", " 7", " "]
    tokenizer = Pieces(*pieces)
    sampled, cot, delimiter, answer = (tokenizer.of(*part) for part in SAMPLED[case])
    found = target(rollout(tokenizer, sampled), tokenizer)
    assert found.prompt == (5, 6)
    assert found.tail == (*cot, *delimiter, *answer)
    assert (found.cot, found.answer, found.rows) == (len(cot), len(answer), len(cot + delimiter + answer))


@pytest.mark.parametrize("gold", ["7", " 7 ", "7\n"])
def test_a_space_that_stands_alone_belongs_to_the_delimiter(gold):
    tokenizer = Pieces("a", "#####", " ", "7", "x")
    found = target(rollout(tokenizer, tokenizer.of("a", "#####", "x"), gold), tokenizer)
    assert found.tail == tuple(tokenizer.of("a", "#####", " ", "7"))
    assert found.answer == 1


def test_the_gold_answer_replaces_the_sampled_one_and_may_end_the_sequence():
    tokenizer = Pieces("a", "#####", " x", " 1", "2", "7")
    found = target(rollout(tokenizer, tokenizer.of("a", "#####", " x"), "127"), tokenizer, eos_id=0)
    assert found.tail == tuple([*tokenizer.of("a", "#####", " 1", "2", "7"), 0])
    assert found.answer == 4


def test_another_answer_may_stand_in_its_place():
    tokenizer = Pieces("a", "#####", " x", " 1", "2", "7", " ")
    own = target(rollout(tokenizer, tokenizer.of("a", "#####", " x"), "127"), tokenizer, answer="x")
    assert own.tail == tuple(tokenizer.of("a", "#####", " x"))
    assert own.delimiter_ids == tuple(tokenizer.of("#####")) and own.answer_ids == tuple(tokenizer.of(" x"))
    with pytest.raises(ProbeError, match="p/0: the answer ' ' has no token"):
        target(rollout(tokenizer, tokenizer.of("a", "#####")), tokenizer, answer=" ")


def test_a_delimiter_without_a_reasoning_has_a_target():
    tokenizer = Pieces("#####", " 7", " x")
    bare = target(rollout(tokenizer, tokenizer.of("#####", " x")), tokenizer)
    assert bare.cot == 0 and bare.tail == tuple(tokenizer.of("#####", " 7"))


@pytest.mark.parametrize("gold", ["", " ", "\n\t"])
def test_an_empty_gold_answer_is_refused(gold):
    tokenizer = Pieces("a", "#####", " ", "\n", "\t")
    with pytest.raises(ProbeError, match="p/0"):
        target(rollout(tokenizer, tokenizer.of("a", "#####"), gold), tokenizer)


@pytest.fixture(scope="module")
def laptop(tiny_folder):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_folder)


@given(
    cot=st.text("ab1. é#", min_size=1, max_size=12),
    answer=st.text("#7 a", max_size=4),
    gold=st.sampled_from(["7", "-12 a", "1,000"]),
)
def test_the_parts_read_as_they_should_with_a_real_tokenizer(laptop, cot, answer, gold):
    sampled = rollout(laptop, laptop(cot + "#####" + answer, add_special_tokens=False).input_ids, gold)
    found = target(sampled, laptop)
    reasoning, delimiter, said = text_parts(laptop, found)
    assert (reasoning + delimiter).rstrip() == sampled.parts.cot + "#####"
    assert reasoning == sampled.parts.cot  # this tokenizer keeps hashes apart from all else
    assert said.lstrip() == gold
    assert found.tail[: found.cot] == tuple(sampled.cot_ids)


def test_a_tokenizer_that_hides_leading_spaces(tmp_path):
    """Llama 2 and Mistral decode a first token without its space: the delimiter still stands as it was sampled."""
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    pieces = ["<unk>", "▁", "▁so", "▁#####", "▁7", "7", "▁3", "#####"]
    scores = [(p, -float(i)) for i, p in enumerate(pieces)]
    backend = Tokenizer(models.Unigram(scores, unk_id=0))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    ids = [2, 3, 6]
    assert tokenizer.decode(ids) == "so ##### 3"
    assert tokenizer.decode(ids[1:]) == "##### 3"
    found = target(rollout(tokenizer, ids), tokenizer)
    assert found.tail[:2] == (2, 3)
    assert tokenizer.decode(found.tail[found.rows - found.answer :]) == "7"
