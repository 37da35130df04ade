"""Splitting at the delimiter, for two kinds of tokenizers and for any text or token ids."""

from functools import cache
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from atmanrl.rollouts import offsets
from atmanrl.rollouts.offsets import decode
from atmanrl.rollouts.split import Parts, split
from atmanrl.rollouts.token_texts import token_texts
from atmanrl.tasks import DELIMITER

LAPTOP = Path(__file__).parents[2] / "experiments/laptop/blank"
CORPUS = ["So 3 + 4 is 7.#####7", "2 * 5 is 10.#####1", "then 9 - 2 is 7\n#####7", "\u00e9\u2603.#####70", "a\n#####"]
FRAGMENTS = (DELIMITER, "#", "##", ".", "7", " ", "\n", "ab", "\u00e9", "\u2603", "\U0001f600", ".#####7")
TEXTS = st.one_of(
    st.lists(st.sampled_from(FRAGMENTS), max_size=12).map("".join),
    st.text(),
    st.tuples(st.text(), st.text()).map(DELIMITER.join),
)


@cache
def laptop():
    """It has a token of its own for the delimiter, and falls back to bytes."""
    return AutoTokenizer.from_pretrained(LAPTOP)


@cache
def straddling():
    """A byte-level BPE whose merges run across the delimiter, as they do where nothing splits the text beforehand."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, special_tokens=["<s>", "</s>"])
    tokenizer.train_from_iterator(CORPUS * 40, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


TOKENIZERS = pytest.mark.parametrize("load", [laptop, straddling])


@TOKENIZERS
@pytest.mark.parametrize(
    ("text", "cot", "answer"),
    [
        ("3 + 4 = 7. ##### 7", "3 + 4 = 7. ", "7"),
        ("3 + 4 = 7.\n#####7\n", "3 + 4 = 7.\n", "7"),
        ("no reasoning is marked", "no reasoning is marked", None),
        ("four hashes #### 7", "four hashes #### 7", None),
        ("##### 7", "", "7"),
        ("a #####", "a ", ""),
        ("a ##### 7 ##### 8", "a ", "7 ##### 8"),
        ("a ###### 7", "a ", "# 7"),
        ("\u00e9\u2603\U0001f600##### \u00e9", "\u00e9\u2603\U0001f600", "\u00e9"),
        ("", "", None),
    ],
)
def test_texts(load, text, cot, answer):
    tokenizer = load()
    ids = tokenizer(text).input_ids
    for whole in (ids, [*ids, tokenizer.eos_token_id]):
        parts = split(tokenizer, whole)
        assert (parts.text, parts.cot, parts.answer) == (text, cot, answer)
        assert decode(tokenizer, ids[: parts.cot_length]) + parts.straddle == cot
        assert answer is not None or parts.cot_length == len(ids)


@pytest.mark.parametrize(
    ("text", "token", "cot", "answer", "straddle"),
    [
        ("is 7.#####7", ".#####7", "is 7.", "7", "."),
        ("is 7.##### 7", ".#####", "is 7.", "7", "."),
        ("is 7\n#####x", "\n#####", "is 7\n", "x", "\n"),
        ("\n#####7", "\n#####7", "\n", "7", "\n"),
        ("#.#####7", ".#####7", "#.", "7", "."),
    ],
)
def test_tokens_that_straddle_the_delimiter_belong_to_it(text, token, cot, answer, straddle):
    tokenizer = straddling()
    ids = tokenizer(text).input_ids
    tokens = [decode(tokenizer, [i]) for i in ids]
    assert token in tokens, "the corpus no longer gives this merge"
    assert split(tokenizer, ids) == Parts(text, cot, answer, tokens.index(token), straddle)


@TOKENIZERS
@given(text=TEXTS)
@example(text="\u00e9#####\u00e9")
@example(text="\U0001f600.#####7#####")
@example(text="a\u2603.#####7")  # `straddling` has a token of the last byte of U+2603, the full stop and the delimiter
def test_any_text_against_the_tokenizers_own_offsets(load, text):
    tokenizer = load()
    encoded = tokenizer(text, return_offsets_mapping=True)
    ids, offsets = encoded.input_ids, encoded.offset_mapping
    parts = split(tokenizer, ids)
    assert parts.text == (text.replace("\u2581", " ") if load is laptop else text)
    before, found, after = parts.text.partition(DELIMITER)
    assert parts.cot == before and parts.answer == (after.strip() if found else None)
    start = len(before) if found else len(text)
    count = sum(end <= start for _, end in offsets)
    while (
        0 < count < len(ids) and offsets[count][0] < offsets[count - 1][1]
    ):  # the next token holds a part of a character
        count -= 1
    assert parts.cot_length == count
    assert decode(tokenizer, ids[: parts.cot_length]) + parts.straddle == before


@TOKENIZERS
@given(data=st.data())
def test_any_token_ids(load, data):
    tokenizer = load()
    bytes_ = ("<0x23>", "<0xC3>", "<0xA9>")
    hashes = [i for token, i in tokenizer.get_vocab().items() if "#" in token or token in bytes_]
    pool = st.one_of(st.sampled_from(sorted(hashes) + tokenizer.all_special_ids), st.integers(0, len(tokenizer) - 1))
    ids = data.draw(st.lists(pool, max_size=16))
    parts = split(tokenizer, ids)
    assert parts.text == decode(tokenizer, ids)
    assert (parts.answer is None) == (DELIMITER not in parts.text)
    before = decode(tokenizer, ids[: parts.cot_length])
    if parts.answer is None:
        assert before == parts.text
        assert all(i in tokenizer.all_special_ids for i in ids[parts.cot_length :])
    else:
        assert parts.cot.startswith(before) and parts.cot == before + parts.straddle
        longer = range(parts.cot_length + 1, len(ids) + 1)  # they reach into the delimiter, or end within a character
        assert not any(parts.cot.startswith(decode(tokenizer, ids[:k])) for k in longer)


def test_special_tokens_within_the_reasoning_are_counted_as_tokens():
    tokenizer = laptop()
    a, b, end = (tokenizer.convert_tokens_to_ids(token) for token in ("a", "b", "</s>"))
    hashes = tokenizer.convert_tokens_to_ids(DELIMITER)
    assert split(tokenizer, [a, 1, b, hashes, end]) == Parts("ab#####", "ab", "", 3)
    assert split(tokenizer, [a, 1, b, end, 0]) == Parts("ab", "ab", None, 3)  # tokens 3 and 4 end the text
    assert split(tokenizer, [end]) == Parts("", "", None, 0)


def test_another_delimiter():
    ids = laptop()("a b => c").input_ids
    assert split(laptop(), ids, delimiter="=>").answer == "c"


@TOKENIZERS
@given(text=TEXTS, ids=st.lists(st.integers(0, 299), max_size=30))
@example(text="\u00e9\u2603 a \U0001f600\ufffd", ids=[])
def test_token_texts_are_the_text_one_for_each_token(load, text, ids):
    tokenizer = load()
    for each in (list(tokenizer(text, add_special_tokens=False).input_ids), ids):
        found = token_texts(tokenizer, each)
        assert "".join(found) == decode(tokenizer, each) and len(found) == len(each)


@TOKENIZERS
def test_a_piece_is_a_readable_text(load):
    tokenizer = load()
    ids = [*tokenizer("so 3 \u2603 a\u00e9 ends", add_special_tokens=False).input_ids, tokenizer.eos_token_id]
    found = token_texts(tokenizer, ids)
    assert "".join(found) == "so 3 \u2603 a\u00e9 ends" and found[-1] == "" and "\ufffd" not in "".join(found)
    # each piece is what its token adds to the text before it, as soon as the character is whole
    whole = "".join(found)
    for k in range(1, len(ids)):
        prefix = decode(tokenizer, ids[:k])
        assert "".join(found[:k]) == (prefix if whole.startswith(prefix) else prefix.rstrip("\ufffd"))


@cache
def wordpiece():
    """A tokenizer whose pieces lose their `##` and whose words gain a space, but for the first."""
    vocabulary = {name: i for i, name in enumerate(["[UNK]", "[SEP]", "so", "is", "#", "###", "##ing", "#####", "7"])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", sep_token="[SEP]")


@cache
def stripping():
    """Byte fallback as in Llama 2: a space before every word, and the text's first one taken away."""
    names = ["<unk>", "</s>", "\u2581", "\u2581so", "#", "#####", "7", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, [], byte_fallback=True))
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>")


@pytest.mark.parametrize("load", [laptop, straddling, wordpiece, stripping])
@settings(max_examples=150)
@given(data=st.data())
def test_the_reasoning_is_the_longest_prefix_that_ends_before_the_delimiter(load, data):
    """Bytes beside invalid bytes change what stands before them, so every prefix is tried."""
    tokenizer = load()
    names = tokenizer.get_vocab()
    likely = [
        i for name, i in names.items() if "#" in name or name in ("<0x23>", "<0xC3>", "<0xA9>", "<0xEF>", "<0xBF>")
    ]
    pool = st.one_of(st.sampled_from(sorted(likely)), st.sampled_from(sorted(names.values())))
    ids = data.draw(st.lists(pool, max_size=14))
    parts = split(tokenizer, ids)
    assert "".join(token_texts(tokenizer, ids)) == parts.text == decode(tokenizer, ids)
    if parts.answer is not None:
        prefixes = [k for k in range(len(ids) + 1) if parts.cot.startswith(decode(tokenizer, ids[:k]))]
        assert parts.cot_length == max(prefixes)


def test_a_byte_beside_invalid_bytes_is_no_part_of_a_delimiter():
    tokenizer = laptop()
    names = ["####", "<0x23>", "<0xC3>", "a", "#####", "7"]
    ids = [token for name in names for token in tokenizer.convert_tokens_to_ids([*name] if name == "####" else [name])]
    text = decode(tokenizer, ids)
    parts = split(tokenizer, ids)
    assert parts.cot == text.partition(DELIMITER)[0] and parts.cot_length == len(ids) - 2


@pytest.mark.parametrize("load", [laptop, straddling, wordpiece, stripping])
@pytest.mark.parametrize("kind", ["special", "bytes", "any"])
def test_each_token_is_decoded_a_fixed_number_of_times(load, kind, monkeypatch):
    """Counted, not timed: the tokens in all calls of the tokenizer's decoder."""
    tokenizer = load()
    work = []
    monkeypatch.setattr(offsets, "decode", lambda *given: work.append(len(given[1])) or decode(*given))
    names = tokenizer.get_vocab()
    ids = {"special": tokenizer.all_special_ids, "bytes": [i for name, i in names.items() if not name.isascii()]}
    ids = (ids.get(kind) or sorted(names.values())) * 8000
    for function in (token_texts, split):
        work.clear()
        function(tokenizer, ids[:8000])
        assert sum(work) <= 8000 + 3 * len(names)
