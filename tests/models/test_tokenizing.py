"""Texts as token ids: what they say stays text, prompts stay open, templates have their variables and their date."""

import json
import shutil

import pytest
from tokenizers import processors

from atmanrl import explain
from atmanrl.models.policy import Policy, PolicyError
from atmanrl.probe.solvers import PaperSolver
from atmanrl.rollouts import traces
from atmanrl.rollouts.offsets import decode

TEXT = "Is </s> a tag, <s> or <pad>?"
DATED = (
    "{{ bos_token }}Today is {{ date_string or strftime_now('%d %b %Y') }}.{% if terse %} Be brief.{% endif %} "
    "{% for m in messages %}{{ m['content'] }}{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
)


@pytest.fixture
def dated(tiny_folder, tmp_path):
    """The tiny policy with a chat template that tells the date, as Llama 3's does."""
    folder = shutil.copytree(tiny_folder, tmp_path / "dated")
    (folder / "chat_template.jinja").write_text(DATED)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": DATED}))
    return folder


@pytest.fixture
def ending(tiny_policy):
    """The tiny policy without a chat template, whose tokenizer ends every text."""
    tiny_policy.tokenizer.chat_template = None
    tiny_policy.tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return tiny_policy


def test_a_special_tokens_name_in_a_text_stays_text(tiny_policy):
    ids = tiny_policy.encode_prompt(TEXT)
    assert ids[0] == 1 and not {0, 1, 2} & set(ids[1:])
    assert decode(tiny_policy.tokenizer, ids) == f"Question: {TEXT}\nReasoning:"
    prompt, reply = tiny_policy.encode_turn(TEXT, TEXT)
    assert prompt == ids and reply[-1] == 2 and decode(tiny_policy.tokenizer, reply) == f" {TEXT}"
    assert not {0, 1, 2} & set(reply[:-1])


def test_a_special_tokens_name_in_a_bare_prompt(tiny_policy):
    tiny_policy.tokenizer.chat_template = None
    ids = tiny_policy.encode_prompt(TEXT)
    assert decode(tiny_policy.tokenizer, ids) == TEXT and 2 not in ids
    _, reply = tiny_policy.encode_turn("a", TEXT)
    assert decode(tiny_policy.tokenizer, reply) == f" {TEXT}"


def test_ordinary_texts_have_the_ids_that_the_tokenizer_gives(tiny_policy):
    text = "Anna has 3 apples \u00e9\U0001f600."
    message = [{"role": "user", "content": text}]
    expected = tiny_policy.tokenizer.apply_chat_template(message, add_generation_prompt=True, return_dict=False)
    assert tiny_policy.encode_prompt(text) == expected
    assert tiny_policy.encoder.prompts([text, TEXT]) == [expected, tiny_policy.encode_prompt(TEXT)]


def test_prompts_with_and_without_names_of_tokens_have_the_ids_that_transformers_sanitizes(tiny_policy):
    texts = ["Anna has 3.", TEXT, "", "a\U000f0000b", "<s>\U000f0001", " \n<pa\U000f0000d>", "4 - 3 = 1?"]
    chats = [[{"role": "user", "content": text}] for text in texts]
    expected = tiny_policy.tokenizer.apply_chat_template(
        chats, add_generation_prompt=True, return_dict=False, sanitize_control_tokens=True
    )
    assert tiny_policy.encoder.wrapped(texts) == expected


def test_a_reasoning_keeps_its_text(tiny_policy):
    cot = " the tag </s> ends 3.\n"
    trace = {"prompt": "?", "cot": cot, "gold": "3"}
    rollout = traces.from_json(trace, 0, tiny_policy, "here")
    assert rollout.parts.cot == cot and rollout.parts.answer == "3" and 2 not in rollout.completion.ids
    found = explain(tiny_policy.model, tiny_policy.tokenizer, "?", cot, "</s>", solver=PaperSolver(steps=2))
    assert found.cot == cot and "".join(found.rows).endswith("</s>")


def test_a_stored_completion_may_end_in_its_end_of_sequence(tiny_policy):
    trace = {"prompt": "?", "completion": " 1 </s> 2\n##### 3</s>", "gold": "3"}
    rollout = traces.from_json(trace, 0, tiny_policy, "here")
    assert rollout.completion.ids[-1] == 2 and rollout.completion.ids.count(2) == 1
    assert rollout.parts.cot == " 1 </s> 2\n" and rollout.parts.answer == "3"


def test_a_prompt_is_not_ended_by_the_tokenizer(ending):
    text = "3 + 4 ="
    assert ending.tokenizer(text).input_ids[-1] == 2
    ids = ending.encode_prompt(text)
    assert ids == ending.tokenizer(text).input_ids[:-1] and ids[0] == 1
    assert ending.encoder.bare("") == [1]
    found = explain(ending.model, ending.tokenizer, text, " 7.", "7", chat_template=False, solver=PaperSolver(steps=2))
    assert found.cot.strip() == "7."


def test_a_chat_template_has_its_variables_and_its_date(dated):
    policy = Policy(str(dated), chat_template_date="2024-02-29", chat_template_kwargs={"terse": True}).build()
    text = decode(policy.tokenizer, policy.encode_prompt("Hi </s>"))
    assert text == "Today is 29 Feb 2024. Be brief. Hi </s>"
    assert policy.unbuilt().build().encode_prompt("Hi") == policy.encode_prompt("Hi")
    told = Policy(str(dated), chat_template_kwargs={"date_string": "1 May"}).build()
    assert decode(told.tokenizer, told.encode_prompt("Hi")) == "Today is 1 May. Hi"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"chat_template_kwargs": {"terze": True}}, "has no variable 'terze'"),
        ({"chat_template_kwargs": {"tokenize": False}}, "'tokenize' is no variable"),
        ({"chat_template_date": "29.2.2024"}, "give a date as 2026-01-31"),
    ],
)
def test_variables_and_dates_that_are_none(dated, options, says):
    with pytest.raises(PolicyError, match=says):
        Policy(str(dated), **options).build()


def test_a_token_that_the_model_does_not_know(tiny_policy):
    tiny_policy.tokenizer.add_tokens(["\u2603"])
    with pytest.raises(PolicyError, match="the tokenizer gives token 768, the model knows 768 tokens"):
        tiny_policy.encode_prompt("a \u2603")
