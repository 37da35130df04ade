import io
import json
import resource
import subprocess
import sys

import pytest
import torch
from rich.console import Console
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

import atmanrl
from atmanrl import Explanation, explain
from atmanrl.errors import UserError
from atmanrl.models.policy import Policy, PolicyError
from atmanrl.probe import MaskProbe, PaperSolver, ProbeError, Solver
from atmanrl.rollouts import RolloutBatch, traces
from atmanrl.rollouts.token_texts import token_texts

PROMPT, COT, GOLD = "Tom has 3 apples and buys 4.", " 3 + 4 = 7, das heißt 七 😀 apples.\n", "7"
QUICK = PaperSolver(steps=4, lr=1e-2)


def quick(policy, prompt=PROMPT, cot=COT, answer=GOLD, **options) -> Explanation:
    return explain(policy.model, policy.tokenizer, prompt, cot, answer, **{"solver": QUICK, **options})


class Failing(Solver):
    def solve(self, objective, init_value):
        objective.evaluate(self.initial(objective, init_value), torch.arange(len(objective.targets)))
        raise RuntimeError("no solution")


def state(model) -> dict:
    return {
        "parameters": [(name, p.requires_grad, p.grad, p.tolist()) for name, p in model.named_parameters()],
        "modes": [(name, m.training) for name, m in model.named_modules()],
        "hooks": [(name, len(m._forward_hooks), len(m._forward_pre_hooks)) for name, m in model.named_modules()],
        "attention": model.config._attn_implementation,
        "registry": {name: id(f) for name, f in ALL_MASK_ATTENTION_FUNCTIONS.items()},
    }


@pytest.fixture
def byte_tokenizer():
    """A byte-level tokenizer without chat template, whose letters beyond ASCII take several tokens."""
    bare = Tokenizer(models.BPE())
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bare.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bare.train_from_iterator([PROMPT], trainers.BpeTrainer(special_tokens=["<s>", "</s>"], initial_alphabet=alphabet))
    return PreTrainedTokenizerFast(tokenizer_object=bare, eos_token="</s>")


def test_equals_the_probe(tiny_policy):
    for options in ({}, {"orientation": "printed", "shape": "answer_rows", "init_value": -0.2, "scale": 20.0}):
        found = quick(tiny_policy, **options)
        trace = {"prompt": PROMPT, "completion": f"{COT}##### {GOLD}", "gold": GOLD}
        batch = RolloutBatch([traces.from_json(trace, 0, tiny_policy, "here")], 1)
        probe = MaskProbe(solver=QUICK, keep_masks=True, **options)
        expected = probe.solve(tiny_policy, batch)
        assert found.saliency == tuple(expected.saliency[0])
        assert torch.equal(found.mask, expected.masks[0])
        for name in ("reward", "loss_initial", "loss_final", "gradients"):
            assert getattr(found, name) == float(getattr(expected, name)[0])
        assert found.losses == tuple(expected.losses[0]) and len(found.losses) == found.gradients == 4
        assert len(found.tokens) == len(found.saliency) == found.mask.shape[1]
        assert len(found.rows) == found.mask.shape[0] and found.rows[: len(found.tokens)] == found.tokens
        assert torch.equal(found.entries, found.mask != 0)
        assert options.items() <= found.settings.items() and found.settings["solver"] == "PaperSolver"
        assert found.settings["steps"] == 4


def test_an_answer_with_its_end_of_sequence_has_a_row_more(tiny_policy):
    without, with_end = quick(tiny_policy), quick(tiny_policy, include_eos=True)
    assert with_end.mask.shape == with_end.entries.shape == (len(without.rows) + 1, len(without.tokens))
    assert with_end.rows == (*without.rows, "") and with_end.loss_initial != without.loss_initial
    assert len(with_end.to_json(mask=True)["mask"]) == len(with_end.rows)


def test_token_texts_join_to_the_reasoning(tiny_policy, byte_tokenizer):
    ends = quick(tiny_policy)
    assert ends.cot == "".join(ends.tokens) == COT and "".join(ends.rows) == COT + "##### 7"
    assert {"七", "😀", "ß"} <= {token.strip() for token in ends.tokens} and "" in ends.tokens
    assert quick(tiny_policy, cot=COT.rstrip()).cot == COT
    assert quick(tiny_policy, cot=COT.rstrip(), separator=" ").cot == COT.rstrip() + " "
    for tokenizer in (tiny_policy.tokenizer, byte_tokenizer):
        for text in (COT, "七", " 😀😀", "a\n\n b", "a \ufffd b", "👩‍👩‍👧 é e\u0301"):
            ids = tokenizer(text, add_special_tokens=False).input_ids
            found = token_texts(tokenizer, ids)
            assert len(found) == len(ids) and "".join(found) == text
            assert ("\ufffd" in "".join(found)) == ("\ufffd" in text)
    assert token_texts(byte_tokenizer, byte_tokenizer("a😀", add_special_tokens=False).input_ids)[-1] == "😀"
    assert token_texts(byte_tokenizer, []) == []


def test_a_name_is_loaded(tiny_folder):
    by_name = explain(str(tiny_folder), None, PROMPT, COT, GOLD, solver=QUICK)
    policy = Policy(str(tiny_folder)).build()
    assert by_name.saliency == quick(policy).saliency
    assert explain(tiny_folder, policy.tokenizer, PROMPT, COT, GOLD, solver=QUICK).saliency == by_name.saliency
    assert explain(policy, None, PROMPT, COT, GOLD, solver=QUICK).saliency == by_name.saliency
    with pytest.raises(PolicyError, match="no tokenizer could be loaded"):
        explain(str(tiny_folder / "absent"), None, PROMPT, COT, GOLD)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("interrupted", [True, False])
def test_the_model_is_left_as_found(tiny_policy, training, interrupted):
    model = tiny_policy.model.train(training)
    model.model.layers[0].eval()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("mlp" in name)
    before = state(model)
    if interrupted:
        with pytest.raises(RuntimeError, match="no solution"):
            quick(tiny_policy, solver=Failing())
    else:
        quick(tiny_policy)
    assert state(model) == before and model.training == training


def test_training_mode_changes_nothing(tiny_policy):
    expected = quick(tiny_policy).saliency
    tiny_policy.model.train()
    assert quick(tiny_policy).saliency == expected


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"cot": ""}, "cot is empty"),
        ({"cot": " \n"}, "cot is empty"),
        ({"answer": " "}, "answer is empty"),
        ({"prompt": ""}, "prompt is empty"),
        ({"answer": 7}, "answer must be a text, not int"),
        ({"cot": " 3 + 4 = 7 ##### 7"}, "the cot contains the delimiter #####"),
        ({"init_value": 0.4}, "init_value is 0.4"),
        ({"shape": "round"}, "'round' is unknown"),
        ({"delimiter": ""}, r"delimiter is '' \(in YAML, data.delimiter\)"),
        ({"solver": "fast"}, "solver 'fast' is unknown .*; choose one of paper, adaptive"),
        ({"orientation": "sideways"}, "orientation 'sideways' is unknown"),
        ({"attention": "flash"}, "attention 'flash' is unknown .*; choose one of auto, lean, eager, sdpa"),
    ],
)
def test_wrong_input(tiny_policy, wrong, message):
    with pytest.raises(UserError, match=message):
        quick(tiny_policy, **wrong)


def test_wrong_models(tiny_policy):
    with pytest.raises(UserError, match="Linear is no Hugging Face causal language model"):
        explain(torch.nn.Linear(2, 2), tiny_policy.tokenizer, PROMPT, COT, GOLD)
    with pytest.raises(UserError, match="needs its tokenizer"):
        explain(tiny_policy.model, None, PROMPT, COT, GOLD)


def test_a_text_beyond_the_context(tiny_policy):
    with pytest.raises(UserError, match="tokens exceed the model's context of 1024"):
        quick(tiny_policy, cot=COT * 100)


def test_logits_that_are_not_finite(tiny_policy):
    with torch.no_grad():
        tiny_policy.model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(ProbeError, match="logits are not finite"):
        quick(tiny_policy)


def words(*known):
    """A tokenizer of whole words, that knows few of them and has no chat template."""
    vocabulary = {word: i for i, word in enumerate(("<unk>", "</s>", "#####", *known))}
    bare = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    bare.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=bare, unk_token="<unk>", eos_token="</s>")


def test_what_the_tokenizer_does_not_know(tiny_policy):
    tokenizer = words("three", "and", "four", "seven")
    with pytest.raises(ProbeError, match="'eight' has only tokens that the tokenizer does not know"):
        explain(tiny_policy.model, tokenizer, "three and four", "three and four", "eight", solver=QUICK)
    with pytest.raises(UserError, match="leaves nothing of the cot in 'five six"):
        explain(tiny_policy.model, tokenizer, "three and four", "five six", "seven", solver=QUICK)


def test_chat_templates(tiny_policy, byte_tokenizer):
    assert quick(tiny_policy).saliency == quick(tiny_policy, chat_template=True).saliency
    plain = quick(tiny_policy, chat_template=False)
    assert plain.saliency != quick(tiny_policy).saliency
    tiny_policy.tokenizer.chat_template = None
    assert quick(tiny_policy).saliency == plain.saliency
    with pytest.raises(UserError, match="no chat template"):
        quick(tiny_policy, chat_template=True)
    assert explain(tiny_policy.model, byte_tokenizer, PROMPT, COT, GOLD, solver=QUICK).cot == COT


def test_no_end_of_sequence(tiny_policy):
    tiny_policy.model.generation_config.eos_token_id = tiny_policy.tokenizer.eos_token = None
    with pytest.raises(PolicyError, match="end-of-sequence"):
        quick(tiny_policy)


@pytest.mark.filterwarnings("ignore:Glyph")
def test_it_shows_itself(tiny_policy, tmp_path):
    found = quick(tiny_policy)
    for colours in (True, False):
        console = Console(
            file=io.StringIO(), force_terminal=True, color_system="truecolor" if colours else None, width=500
        )
        console.print(found)
        assert all(token in console.file.getvalue() for token in found.tokens)
        assert ("\x1b[30;48;2;" in console.file.getvalue()) == colours
    shown = str(found)
    assert "七 😀" in shown and f"{found.reward:.3f}" in shown and "\x1b" not in shown and "gold 7" in shown
    assert repr(found).startswith(f"Explanation({len(found.tokens)} tokens")
    assert "😀" in found._repr_html_() and "<html" not in found._repr_html_()
    found.to_html(tmp_path / "new" / "page.html")
    assert "😀" in (tmp_path / "new" / "page.html").read_text(encoding="utf-8")
    found.figure(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 5000


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_it_prints_in_any_encoding(tiny_policy, monkeypatch, encoding):
    """From a script of the user's own, whose standard output refuses what its encoding lacks."""
    found = quick(tiny_policy)
    stdout = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="")
    monkeypatch.setattr(sys, "stdout", stdout)
    print(found)
    Console(file=stdout, width=500).print(found)
    stdout.flush()
    said = stdout.buffer.getvalue().decode(encoding)
    assert said.count("gold 7") == 2
    assert ("七 😀" if encoding == "utf-8" else r"\u4e03 \U0001f600") in said
    lines = said.split("\n")
    above = next(i for i, line in enumerate(lines) if "u0001f600" in line.lower() or "😀" in line)
    assert not set(lines[above + 1]) - (set(" .-+#") if encoding != "utf-8" else set(" ▁▂▃▄▅▆▇█"))


def test_html_of_hostile_texts(tiny_policy, tmp_path):
    evil = "<script>alert(1)</script>"
    found = quick(tiny_policy, prompt=evil, cot=f" 3 {evil}", answer=f"7 {evil}")
    found.to_html(tmp_path / "page.html")
    for text in ((tmp_path / "page.html").read_text(), found._repr_html_()):
        assert "<script>alert" not in text and text.count("&lt;script&gt;") >= 2
        assert "http:" not in text and "https:" not in text


def test_json(tiny_policy, tmp_path):
    found = quick(tiny_policy)
    assert json.loads(json.dumps(found.to_json())) == found.to_json() and "mask" not in found.to_json()
    found.save(tmp_path / "found.jsonl")
    ((_, stored),) = traces.read(tmp_path / "found.jsonl")
    assert stored["saliency"] == list(found.saliency) and stored["settings"]["solver"] == "PaperSolver"
    assert [v for row in stored["mask"] for v in row if v is not None] == found.mask[found.entries].tolist()
    assert (len(stored["mask"]), len(stored["mask"][0])) == tuple(found.mask.shape)
    again = traces.from_json(stored, 0, tiny_policy, "here")
    assert MaskProbe(solver=QUICK).solve(tiny_policy, RolloutBatch([again], 1)).reward == found.reward


def test_a_policy_around_a_model(tiny_policy):
    around = Policy.around(tiny_policy.model, tiny_policy.tokenizer)
    assert around.model is tiny_policy.model and around.tokenizer is tiny_policy.tokenizer
    assert (around.eos_ids, around.pad_id) == (tiny_policy.eos_ids, tiny_policy.pad_id)
    assert around.build().model is tiny_policy.model


def test_importing_the_package_is_quick():
    assert atmanrl.explain is explain and {"explain", "Explanation"} <= set(dir(atmanrl))
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        _ = atmanrl.absent
    code = "import atmanrl, sys; sys.exit('torch' in sys.modules or 'jinja2' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "atmanrl", "--help"], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime - before.ru_utime < 1  # of the processor: on a busy machine the clock says nothing


def test_the_function_is_not_hidden_by_its_module():
    __import__("atmanrl.probe.explain")
    assert callable(__import__("atmanrl").explain)
