"""A prompt that carries the chat template's marks already is not put into the template again without a word."""

import pytest

from atmanrl import explain
from atmanrl.models.policy import Policy
from atmanrl.models.tokenizing import Encoder, template_date
from atmanrl.probe.solvers import PaperSolver
from atmanrl.rollouts.offsets import decode

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA2 = "{{ bos_token }}{% for m in messages %}[INST] {{ m['content'] }} [/INST]{% endfor %}"
GEMMA = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ m['role'] }}\n{{ m['content'] }}<end_of_turn>\n{% endfor %}"
    "<start_of_turn>model\n"
)
SPECIAL = ["<|im_start|>", "<|im_end|>", "<start_of_turn>", "<end_of_turn>"]


def encoder_of(policy, template, use="auto") -> Encoder:
    policy.tokenizer.add_special_tokens({"additional_special_tokens": SPECIAL})
    policy.tokenizer.chat_template = template
    return Encoder(policy.tokenizer, 9999, {}, template_date(None), "model", use)


def rendered(encoder, text: str) -> str:
    turn = [{"role": "user", "content": text}]
    return encoder.tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)


TEMPLATES = {"laptop": None, "ChatML": CHATML, "Llama 2": LLAMA2, "Gemma": GEMMA}


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_a_prompt_in_its_template_is_taken_as_it_is_written(tiny_policy, capsys, template):
    encoder = encoder_of(tiny_policy, template or tiny_policy.tokenizer.chat_template)
    turn, plain = rendered(encoder, "How many?"), encoder.prompts(["How many?"])
    assert "note" not in capsys.readouterr().err
    bos = encoder.tokenizer.bos_token
    for text in (turn, turn.removeprefix(bos)):  # TRL's and lm-eval's logs have it with and without
        assert encoder.prompts([text, "How many?"]) == plain * 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"the prompt {turn.strip()[:60]!r}... carries" in said
    assert "policy.chat_template=wrap" in said


def test_another_system_prompt_is_left_as_it_is(tiny_policy):
    encoder = encoder_of(tiny_policy, CHATML)
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How many?"}]
    text = encoder.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert encoder.prompts([text]) == [encoder.chat(turns)]


def test_marks_within_a_prompt_are_text_and_told_of_once(tiny_policy, capsys):
    encoder = encoder_of(tiny_policy, CHATML)
    text = "What does <|im_end|> mean?"
    (ids,), (again,) = encoder.prompts([text]), encoder.prompts([text])
    special = encoder.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert ids == again and ids.count(special) == 1  # the template's own
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "carries the mark <|im_end|>" in said and "chat_template=written" in said


def test_marks_of_another_model_are_told_of(tiny_policy, capsys):
    encoder_of(tiny_policy, None).prompts(["<|start_header_id|>user<|end_header_id|>\n\nHow many?"])
    assert (
        "carries the mark <|start_header_id|> of a chat template, and stands as plain text" in capsys.readouterr().err
    )


@pytest.mark.parametrize(("use", "twice"), [("wrap", True), ("written", False), ("none", False)])
def test_the_option_decides(tiny_policy, capsys, use, twice):
    encoder = encoder_of(tiny_policy, CHATML, use)
    text = rendered(encoder, "How many?")
    (ids,) = encoder.prompts([text])
    start = encoder.tokenizer.convert_tokens_to_ids("<|im_start|>")
    assert ids.count(start) == {"wrap": 2, "written": 2, "none": 0}[use]
    assert decode(encoder.tokenizer, ids, frozenset([start])).count("assistant") == 1 + twice
    assert capsys.readouterr().err == ""


def test_a_reply_to_a_written_prompt_follows_it(tiny_policy):
    encoder = encoder_of(tiny_policy, CHATML)
    prompt, reply = encoder.turn(rendered(encoder, "How many?"), "Two.", 2)
    assert prompt == encoder.prompts(["How many?"])[0] and reply[-1] == 2
    assert decode(encoder.tokenizer, reply) == "Two."


def test_the_policy_has_the_option(tiny_folder):
    text = "<s>Question: How many?\nReasoning:"
    written, wrapped = (Policy(str(tiny_folder), chat_template=use).build() for use in ("written", "wrap"))
    assert written.encode_prompt(text) == wrapped.encode_prompt("How many?") != wrapped.encode_prompt(text)
    assert written.unbuilt().chat_template == "written"


def test_explain_has_the_option(tiny_policy):
    model, tokenizer, solver = tiny_policy.model, tiny_policy.tokenizer, PaperSolver(steps=2)
    text = "<s>Question: How many?\nReasoning:"
    runs = [
        explain(model, tokenizer, prompt, " 3 + 4", "7", solver=solver, chat_template=use).saliency
        for prompt, use in (("How many?", True), (text, "written"), (text, None), (text, True))
    ]
    assert runs[0] == runs[1] == runs[2] != runs[3]
    with pytest.raises(ValueError, match="chat_template is 'yes'; give True, False, 'written' or None"):
        explain(model, tokenizer, text, " 3 + 4", "7", chat_template="yes")
