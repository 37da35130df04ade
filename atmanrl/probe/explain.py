"""`explain`: the probe by itself, for any Hugging Face causal language model and one chain of thought.

The module is not called `explain`: a submodule of that name would hide the function in `from atmanrl import explain`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from atmanrl.errors import UserError
from atmanrl.io.files import atomic_write
from atmanrl.io.terminal import output_encoding
from atmanrl.models.devices import DtypeName, choose_device, choose_dtype, cudnn_attention
from atmanrl.models.modes import plain_outputs
from atmanrl.models.policy import Policy
from atmanrl.probe import MaskProbe, ProbeError, ProbeResult, Solver
from atmanrl.probe.mask import Entries, Orientation, Shape
from atmanrl.probe.module import Attention, SolverName
from atmanrl.probe.target import Target, target
from atmanrl.rollouts import Rollout, RolloutBatch, traces
from atmanrl.rollouts.split import Splitter, splitter_of
from atmanrl.rollouts.token_texts import token_texts
from atmanrl.tasks import DELIMITER
from atmanrl.views import figure1, trace_page, trace_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.text import Text


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """How much each token of a chain of thought matters to the right answer.

    It shows itself: `print` (plain), `rich.print` (coloured), the last line of a notebook's cell, `to_html`, `figure`.

    Attributes:
        model: name of the model.
        prompt: the user's turn; answer: the gold answer.
        tokens: the T reasoning tokens as texts; joined they are the chain of thought, with the white space that stands
            before the delimiter. A character of several byte tokens stands at its last one, the others are empty.
        saliency: one value for each of them, in the orientation of the settings.
        rows: labels of the mask's R rows: the reasoning, the delimiter and the answer, token by token.
        mask: H after optimization, `[R, T]`, on the CPU, 0 where there is no entry.
        entries: where there is one, `[R, T]` boolean.
        loss_initial: of the gold answer in nats a token, with the reasoning suppressed by the initial mask.
        loss_final: the same under the optimized mask.
        reward: the saliency reward (Eq. 3).
        losses: (step, loss) for each gradient on the path, in order.
        gradients: how many were taken; seconds: how long all of it took.
        settings: what the probe was told, JSON-ready.
    """

    model: str
    prompt: str
    answer: str
    tokens: tuple[str, ...]
    saliency: tuple[float, ...]
    rows: tuple[str, ...]
    mask: Tensor
    entries: Tensor
    loss_initial: float
    loss_final: float
    reward: float
    losses: tuple[tuple[int, float], ...]
    gradients: int
    seconds: float
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def cot(self) -> str:
        """The chain of thought."""
        return "".join(self.tokens)

    @property
    def view(self) -> trace_page.TraceView:
        """What a page of traces shows of it; nobody has answered, so there is nothing right or wrong."""
        return trace_page.TraceView(
            id=self.model, prompt=self.prompt, token_texts=list(self.tokens), saliency=list(self.saliency), answer=None,
            gold=self.answer, correct=None, reward=self.reward, loss_initial=self.loss_initial,
            loss_final=self.loss_final,
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"Explanation({len(self.tokens)} tokens, reward={self.reward:.3f}, model={self.model!r})"

    def __str__(self) -> str:
        return trace_text.plain(self.view, output_encoding())

    def __rich__(self) -> Text:
        return trace_text.coloured(self.view, output_encoding())

    def _repr_html_(self) -> str:
        return trace_page.fragment(self.view)

    def to_html(self, path: str | Path) -> None:
        """Write a page that needs no other file and no network.

        Raises:
            OSError: the file cannot be written; an older one is then left as it was.
        """
        with atomic_write(Path(path)) as file:
            file.write(trace_page.page(f"Saliency under {self.model}", [self.view]))

    def to_json(self, mask: bool = False) -> dict[str, Any]:
        """All of it as one JSON object, with the names of a stored trace, so that `atmanrl probe` reads it too.

        Args:
            mask: whether the mask is wanted, R lists of T numbers with null where there is no entry.
        """
        found = {
            "prompt": self.prompt, "cot": self.cot, "gold": self.answer, "rewards": {"saliency": self.reward},
            "saliency": list(self.saliency), "tokens": list(self.tokens), "rows": list(self.rows),
            "loss_initial": self.loss_initial, "loss_final": self.loss_final, "losses": [list(p) for p in self.losses],
            "gradients": self.gradients, "seconds": self.seconds, "model": self.model, "settings": self.settings,
            **{name: value for name, value in self.settings.items() if name == "delimiter"},  # unless it is the default
        }  # fmt: skip
        if mask:
            pairs = zip(self.mask.tolist(), self.entries.tolist(), strict=True)
            found["mask"] = [[v if there else None for v, there in zip(*pair, strict=True)] for pair in pairs]
        return found

    def save(self, path: str | Path, mask: bool = True) -> None:
        """Write `to_json` into a file.

        Raises:
            OSError: the file cannot be written; an older one is then left as it was.
        """
        with atomic_write(Path(path)) as file:
            # escaped, so that a lone surrogate in a text can be written too
            file.write(json.dumps(self.to_json(mask), allow_nan=False) + "\n")

    def figure(self, path: str | Path | None = None, title: str | None = None) -> Figure:
        """Draw Figure 1: the loss over the steps, the mask before and after, each token's saliency.

        Args:
            path: also write it there (.png, .pdf, .svg).
            title: above the panels; None names the model, the reward and the gold answer.

        Raises:
            UserError: matplotlib is not installed.
        """
        mask = self.mask.double().masked_fill(~self.entries, torch.nan).numpy()
        if title is None:
            title = f"{self.model}: saliency reward {self.reward:.3f}, gold answer {self.answer}"
        steps = self.settings.get("steps")
        losses = self.losses if steps is None else (*self.losses, (steps, self.loss_final))
        made = figure1.draw(mask, self.saliency, losses, self.rows, init_value=self.settings["init_value"], title=title)
        if path is not None:
            figure1.save(made, Path(path))
        return made


def explain(
    model: Any,
    tokenizer: Any,
    prompt: str,
    cot: str,
    answer: str,
    *,
    solver: SolverName | Solver = "adaptive",
    init_value: float = -0.4,
    scale: float = 10.0,
    orientation: Orientation = "restored",
    shape: Shape = "full",
    chat_template: bool | None = None,
    separator: str = "\n",
    delimiter: str | Splitter = DELIMITER,
    include_eos: bool = False,
    attention: Attention = "auto",
    cache_prompts: bool = True,
    device: str = "auto",
    dtype: DtypeName = "auto",
) -> Explanation:
    """Measure how much each token of a chain of thought matters to the right answer, by `MaskProbe.solve`.

    Args:
        model: a Hugging Face causal language model, which is left as and where it was found; or a folder or name to load.
        tokenizer: the model's; None where `model` is a folder or name.
        prompt: the user's turn.
        cot: the chain of thought, exactly as the model would write it (a leading space included), without delimiter.
        answer: the gold answer, as it is written after the delimiter.
        solver: `adaptive`, `paper` (200 gradients), or a `Solver` with options of its own.
        init_value: c, the mask's initial value, below 0.
        scale: the bias is `scale * min(H, 0)`.
        orientation: of the saliency: `restored` grows with what had to be re-enabled, `printed` falls.
        shape: of the mask; `full` is the paper's.
        chat_template: whether the prompt is put into the tokenizer's chat template; None: where it has one.
        separator: put before the delimiter where the chain of thought does not end in white space.
        delimiter: between reasoning and answer: a text such as `</think>`, or a `Splitter` such as `BoxedSplitter()`.
        include_eos: whether the loss includes the end-of-sequence token (Eq. 2 does not).
        attention: `lean`, `eager` or `sdpa`; `auto` takes the first that the model can run.
        cache_prompts: False for models whose cache cannot be shared.
        device: where a model is loaded to: `cpu`, `cuda`, `cuda:1`, `mps`; `auto` takes a CUDA GPU where there is one.
        dtype: of a loaded model's weights; `auto` takes float32, and bfloat16 on a GPU that has it for weights that are
            stored so. Masks are float32 in any case.

    Raises:
        UserError: an empty prompt, reasoning or answer, a delimiter in the reasoning, a wrong option, a device or dtype
            for a model that is loaded already, or a text that exceeds the model's context.
        PolicyError: `model` is a name and cannot be loaded.
        ProbeError: no token of the answer is known, the model ignores an attention bias, or its logits are not finite.
    """
    probe = MaskProbe(
        None, solver, init_value, scale, orientation, include_eos, attention=attention, cache_prompts=cache_prompts,
        keep_masks=True, shape=shape,
    )  # fmt: skip
    _check_texts(prompt, cot, answer, splitter := splitter_of(delimiter))
    policy = _policy(model, tokenizer, device, dtype)
    completion = splitter.join(cot, answer, "" if cot[-1:].isspace() else separator)
    rollout = _rollout(policy, prompt, completion, answer, chat_template, splitter)
    aim = target(rollout, policy.tokenizer)
    if all(i == policy.tokenizer.unk_token_id for i in aim.tail[-aim.answer :]):
        raise ProbeError(f"the answer {answer!r} has only tokens that the tokenizer does not know.")
    with plain_outputs(policy.model.config), cudnn_attention(policy.cudnn_attention):
        result = probe.solve(policy, RolloutBatch([rollout], 1))
    settings = {
        "solver": type(probe.solver).__name__, **_options(probe.solver), "init_value": init_value, "scale": scale,
        "orientation": orientation, "shape": shape, "include_eos": include_eos, "attention": attention,
        "chat_template": chat_template, "separator": separator, "device": str(policy.device),
        "dtype": str(next(policy.model.parameters()).dtype).removeprefix("torch."), **splitter.noted,
    }  # fmt: skip
    return _explanation(policy, rollout, aim, result, settings)


def _check_texts(prompt: str, cot: str, answer: str, splitter: Splitter) -> None:
    for name, text in (("prompt", prompt), ("cot", cot), ("answer", answer)):
        if not isinstance(text, str):
            raise UserError(f"{name} must be a text, not {type(text).__name__}.")
        if not text.strip():
            raise UserError(f"{name} is empty: there is nothing to explain.")
    if splitter.cuts(cot):
        raise UserError(f"the cot contains the delimiter {splitter.opening}: give the reasoning before it alone.")


def _policy(model: Any, tokenizer: Any, device: str, dtype: str) -> Policy:
    """A policy around what is given, or loaded by its name."""
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
        raise UserError(f"{type(model).__name__} is no Hugging Face causal language model; give one, or its folder.")
    if tokenizer is None:
        raise UserError("a model that is loaded already needs its tokenizer beside it.")
    return Policy.around(model, tokenizer)


def _rollout(
    policy: Policy, prompt: str, completion: str, answer: str, chat: bool | None, splitter: Splitter
) -> Rollout:
    """The texts as a rollout, in the way of a stored trace."""
    if chat and policy.tokenizer.chat_template is None:
        raise UserError("the tokenizer has no chat template; leave chat_template out for the plain prompt.")
    ids = policy.encoder.bare(prompt) if chat is False else policy.encode_prompt(prompt)
    if not ids:
        raise UserError(f"the prompt {prompt!r} has no token.")
    trace = {"problem_id": "explain", "prompt": prompt, "prompt_ids": ids, "completion": completion, "gold": answer}
    rollout = traces.from_json(trace, 0, policy, "explain", splitter)
    if not rollout.can_be_probed:
        raise UserError(f"the tokenizer leaves nothing of the cot in {completion!r} before the delimiter.")
    return rollout


def _options(solver: Solver) -> dict[str, Any]:
    """What a solver was told, as far as JSON can hold it."""
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in vars(solver).items()}
    return {name: value for name, value in plain.items() if isinstance(value, bool | int | float | str | list)}


def _explanation(
    policy: Policy, rollout: Rollout, aim: Target, result: ProbeResult, settings: dict[str, Any]
) -> Explanation:
    mask, saliency = result.masks[0], result.saliency[0]
    assert mask is not None and saliency is not None
    visible = rollout.parts.splitter.visible(policy.tokenizer)
    tokens, every = (token_texts(policy.tokenizer, ids, visible) for ids in (aim.tail[: aim.cot], aim.tail))
    sizes = torch.tensor([aim.rows]), torch.tensor([aim.cot])
    return Explanation(
        model=policy.path, prompt=rollout.prompt, answer=rollout.problem.gold, tokens=tuple(tokens),
        saliency=tuple(saliency), rows=(*tokens, *every[aim.cot :]), mask=mask.detach().cpu(),
        entries=Entries(*sizes, settings["shape"]).where(torch.tensor([0]))[0],
        loss_initial=float(result.loss_initial[0]), loss_final=float(result.loss_final[0]),
        reward=float(result.reward[0]), losses=tuple(result.losses[0]), gradients=int(result.gradients[0]),
        seconds=result.seconds, settings=settings,
    )  # fmt: skip
