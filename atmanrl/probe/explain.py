"""`explain`: the probe by itself, for any Hugging Face causal language model and one chain of thought."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from atmanrl.errors import UserError
from atmanrl.models.devices import DtypeName, check_device, choose_device, choose_dtype, cudnn_attention
from atmanrl.models.modes import plain_outputs
from atmanrl.models.policy import Policy, PolicyError
from atmanrl.probe import MaskProbe, PaperSolver, ProbeError, ProbeResult, Solver
from atmanrl.probe.explanation import Explanation
from atmanrl.probe.mask import Entries, Orientation, Shape
from atmanrl.probe.module import Attention, SolverName
from atmanrl.probe.reference_check import ReferenceCheck, SolvedTwice, check_possible
from atmanrl.probe.target import Target, target_of
from atmanrl.probe.writing import Written, say_unmarked, scored_answer, write
from atmanrl.rollouts.split import DEFAULT, Splitter, splitter_of
from atmanrl.rollouts.token_texts import token_texts


def explain(
    model: Any,
    tokenizer: Any,
    prompt: str,
    cot: str | None = None,
    answer: str | None = None,
    *,
    max_new_tokens: int = 512,
    solver: SolverName | Solver = "adaptive",
    init_value: float = -0.4,
    scale: float = 10.0,
    orientation: Orientation = "restored",
    shape: Shape = "full",
    chat_template: bool | Literal["written"] | None = None,
    separator: str = "\n",
    delimiter: str | Splitter | None = None,
    include_eos: bool = False,
    attention: Attention = "auto",
    cache_prompts: bool = True,
    device: str = "auto",
    dtype: DtypeName = "auto",
    check: int | None = None,
) -> Explanation:
    """Measure how much each token of a chain of thought matters to the right answer, by `MaskProbe`.

    Without a chain of thought the model writes one, always by its likeliest token.

    Args:
        model: a Hugging Face causal language model, which is not changed or moved; or a folder or name to load.
        tokenizer: the model's; None where `model` is a folder or name.
        prompt: the user's turn.
        cot: the chain of thought, exactly as the model would write it (a leading space included), without delimiter; None
            lets the model write it.
        answer: the gold answer, as the model would write it after the delimiter; None, where the model writes, for its own.
        max_new_tokens: the most that the model may write.
        solver: `adaptive`, `paper` (200 gradients), or a `Solver` with options of its own.
        init_value: c, the mask's initial value, below 0.
        scale: the bias is `scale * min(H, 0)`.
        orientation: of the saliency: `restored` grows with what had to be re-enabled, `printed` falls.
        shape: of the mask; `full` is the paper's.
        chat_template: whether the prompt is put into the tokenizer's chat template; `written` for a prompt that has been.
            None: where there is a template whose marks the prompt does not carry yet.
        separator: what stands before the delimiter where the chain of thought does not end in white space.
        delimiter: between reasoning and answer: a text such as `</think>`, or a `Splitter` such as `BoxedSplitter()`. None
            takes `#####`, and recognises it in what the model writes (see `rollouts.marking`).
        include_eos: whether the loss includes the end-of-sequence token (Eq. 2 does not).
        attention: `lean`, `eager` or `sdpa`; `auto` takes the first that the model can run.
        cache_prompts: False for models whose cache cannot be shared.
        device: where a model is loaded to: `cpu`, `cuda`, `cuda:1`, `mps`; `auto` takes a CUDA GPU where there is one.
        dtype: of a loaded model's weights; `auto` takes float32, and bfloat16 on a GPU that has it for weights that are
            stored so. Masks are float32 in any case.
        check: 1 solves the trace by the paper's solver, too, and tells how well the two agree.

    Raises:
        UserError: `prompt`, `cot` or `answer` is empty, `cot` holds the delimiter, an option is out of its range,
            `device` or `dtype` is set for a model that is loaded already, or the model wrote no reasoning, or no answer that
            could be told from it.
        PolicyError: `model` cannot be loaded, or the text exceeds its context.
        ProbeError: no token of the answer is known, the model ignores an attention bias, or its logits are not finite.
    """
    probe = MaskProbe(
        None, solver, init_value, scale, orientation, include_eos, attention=attention, cache_prompts=cache_prompts,
        keep_masks=True, shape=shape,
    )  # fmt: skip
    check_possible(probe, check, "check")
    if check is not None and check > 1:
        raise UserError(
            f"check is {check}, and explain has one trace to check; give 1, or take `atmanrl probe` for more."
        )
    check_device(device)
    if max_new_tokens < 1:
        raise UserError(f"max_new_tokens is {max_new_tokens}; give at least 1.")
    splitter = None if delimiter is None else splitter_of(delimiter)
    _check_texts(prompt, cot, answer, splitter or DEFAULT)
    policy = _policy(model, tokenizer, device, dtype)
    prompt_ids = _prompt_ids(policy, prompt, chat_template)
    eos_id, written = probe.eos_id(policy), None
    if cot is None:
        written = write(policy, prompt_ids, max_new_tokens, splitter)
        scored, splitter = scored_answer(written, answer), written.splitter
        target = _written_target(policy, prompt_ids, written, scored, eos_id)
    else:
        assert answer is not None  # as `_check_texts` has seen to
        scored, splitter = answer, splitter or DEFAULT
        completion = splitter.join(cot, answer, "" if cot[-1:].isspace() else separator)
        target = _target(policy, prompt_ids, completion, answer, splitter, eos_id)
    with plain_outputs(policy.model.config), cudnn_attention(policy.cudnn_attention):
        result = probe.solve_targets(policy, [target])
        checked = None if check is None else _checked(probe, policy, target, result)
    settings = {
        "solver": type(probe.solver).__name__, **_options(probe.solver), "init_value": init_value, "scale": scale,
        "orientation": orientation, "shape": shape, "include_eos": include_eos, "attention": attention,
        "chat_template": chat_template, "separator": separator, "device": str(policy.device),
        "dtype": str(next(policy.model.parameters()).dtype).removeprefix("torch."), **splitter.noted,
        **({} if written is None else {"max_new_tokens": max_new_tokens}),
    }  # fmt: skip
    texts = partial(token_texts, policy.tokenizer, visible=splitter.visible(policy.tokenizer))
    explanation = replace(_explanation(policy.path, prompt, scored, target, result, settings, texts), check=checked)
    if written is None:
        return explanation
    return replace(explanation, completion=written.text, own_answer=written.parts.answer, has_gold=answer is not None)


def _check_texts(prompt: str, cot: str | None, answer: str | None, splitter: Splitter) -> None:
    if cot is not None and answer is None:
        raise UserError("answer is None: give the gold answer of the cot, or leave both to the model.")
    for name, text in (("prompt", prompt), ("cot", cot), ("answer", answer)):
        if text is None and name != "prompt":
            continue
        if not isinstance(text, str):
            raise UserError(f"{name} must be a text, not {type(text).__name__}.")
        if not text.strip():
            raise UserError(f"{name} is empty: there is nothing to explain.")
    if cot is not None and splitter.cuts(cot):
        raise UserError(f"the cot contains the delimiter {splitter.opening}: give the reasoning before it alone.")


def _written_target(policy: Policy, prompt_ids: list[int], written: Written, answer: str, eos_id: int | None) -> Target:
    """Return the target of what the model wrote: its own tokens up to the answer, or all of them where nothing marks one."""
    if written.parts.answer is None:
        say_unmarked(written)
        splitter = written.splitter
        return _target(policy, prompt_ids, splitter.join(written.text.rstrip(), answer), answer, splitter, eos_id)
    target = target_of(policy.tokenizer, prompt_ids, written.ids, written.parts, answer, eos_id)
    target.check(policy)
    return target


def _policy(model: Any, tokenizer: Any, device: str, dtype: str) -> Policy:
    """Return a policy around a loaded model, or one that is loaded by its name."""
    if isinstance(model, str | Path):
        policy, where = Policy(str(model)), choose_device(device)
        policy.dtype_name = choose_dtype(dtype, where, policy)
        loaded = policy.build().to(where)
        return loaded if tokenizer is None else Policy.around(loaded.model, tokenizer)
    if (device, dtype) != ("auto", "auto"):
        raise UserError(
            "device and dtype are for a model that is loaded by its name; this one is loaded already and stays as it is."
        )
    if isinstance(model, Policy):
        return model.build()
    model = getattr(model, "_orig_mod", model)  # `torch.compile` wraps it; the probe needs its layers
    if not hasattr(model, "config") or not hasattr(model, "get_input_embeddings"):
        raise UserError(
            f"model: {type(model).__name__} is no Hugging Face causal language model; give one, or its folder."
        )
    if tokenizer is None:
        raise UserError("tokenizer is None, and a model that is loaded already needs its tokenizer beside it.")
    return Policy.around(model, tokenizer)


def _prompt_ids(policy: Policy, prompt: str, chat_template: bool | str | None) -> list[int]:
    encoder = policy.encoder
    if chat_template is True and policy.tokenizer.chat_template is None:
        raise UserError(
            "chat_template is True, but the tokenizer has no chat template; leave it out for the plain prompt."
        )
    if chat_template not in (True, False, "written", None):
        raise UserError(f"chat_template is {chat_template!r}; give True, False, 'written' or None.")
    if chat_template is None:
        ids = policy.encode_prompt(prompt)
    elif chat_template == "written":
        ids = encoder.written(prompt)
    else:
        ids = encoder.wrapped([prompt])[0] if chat_template else encoder.bare(prompt)
    if not ids:
        raise UserError(f"the prompt {prompt!r} has no token.")
    return ids


def _target(
    policy: Policy, prompt_ids: list[int], completion: str, answer: str, splitter: Splitter, eos_id: int | None
) -> Target:
    """Return the target of a completion: the text is tokenized as one, as the policy would write it, and then split."""
    tokenizer = policy.tokenizer
    ids = policy.encoder.known(splitter.text_ids(tokenizer, completion))
    if excess := policy.excess(len(prompt_ids) + len(ids)):  # before the text is split, which takes its time
        raise PolicyError(f"{excess}.")
    parts = splitter.split(tokenizer, ids)
    if not parts.has_reasoning:
        raise UserError(f"the tokenizer leaves nothing of the cot in {completion!r} before the delimiter.")
    target = target_of(tokenizer, prompt_ids, ids, parts, answer, eos_id)
    if set(target.answer_ids) - {eos_id} <= {tokenizer.unk_token_id}:
        raise ProbeError(f"the answer {answer!r} has only tokens that the tokenizer does not know.")
    return target


def _checked(probe: MaskProbe, policy: Policy, target: Target, result: ProbeResult) -> ReferenceCheck:
    """Solve a target by the reference, too, and compare."""
    reference = probe.solve_targets(policy, [target], PaperSolver.reference(probe.solver))
    (own, expected) = (result.saliency[0], reference.saliency[0])
    assert own is not None and expected is not None
    return ReferenceCheck.of([SolvedTwice(float(result.reward[0]), own, float(reference.reward[0]), expected)])


def _options(solver: Solver) -> dict[str, Any]:
    """Return a solver's options, as far as JSON can hold them."""
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in vars(solver).items()}
    return {name: value for name, value in plain.items() if isinstance(value, bool | int | float | str | list)}


def _explanation(
    model: str, prompt: str, answer: str, target: Target, result: ProbeResult, settings: dict[str, Any],
    texts: Callable[[Sequence[int]], list[str]],
) -> Explanation:  # fmt: skip
    mask, saliency = result.masks[0], result.saliency[0]
    assert mask is not None and saliency is not None
    tokens, every = texts(target.cot_ids), texts(target.tail)
    sizes = torch.tensor([target.rows]), torch.tensor([len(tokens)])
    return Explanation(
        model=model, prompt=prompt, answer=answer, tokens=tuple(tokens), saliency=tuple(saliency),
        rows=(*tokens, *every[len(tokens) :]), mask=mask.detach().cpu(),
        entries=Entries(*sizes, settings["shape"]).where(torch.tensor([0]))[0],
        loss_initial=float(result.loss_initial[0]), loss_final=float(result.loss_final[0]),
        reward=float(result.reward[0]), losses=tuple(result.losses[0]), gradients=int(result.gradients[0]),
        seconds=result.seconds, settings=settings,
    )  # fmt: skip
