"""What a probing run writes: its traces, the metrics of `summary.json`, and the page `index.html`."""

from __future__ import annotations

import math
import platform
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from statistics import fmean, stdev
from typing import Any

import torch
import transformers

from atmanrl import __version__
from atmanrl.commands.probe.stored_traces import StoredTrace
from atmanrl.io.files import shown_path
from atmanrl.probe import ProbeResult
from atmanrl.probe.reference_check import ReferenceCheck, SolvedTwice, spearman
from atmanrl.rollouts import Rollout, traces
from atmanrl.rollouts.token_texts import token_texts
from atmanrl.views.trace_page import TraceView, page

Json = dict[str, Any]

SHOWN = 1000
"""Most traces on the page, all of which a browser has to hold."""


def to_json(
    probed: list[StoredTrace],
    result: ProbeResult,
    tokenizer: Any,
    reference: Mapping[int, tuple[float, list[float]]] = {},  # noqa: B006  it is read alone
) -> Iterator[Json]:
    """Yield the probed traces as they are written: by the schema of `rollouts.traces`, with the probe's result.

    Args:
        probed: the traces.
        result: of each of them.
        tokenizer: the policy's.
        reference: reward and saliency by the paper's solver, by line, of those that were checked.
    """
    numbers = (
        result.reward.tolist(),
        result.loss_initial.tolist(),
        result.loss_final.tolist(),
        result.gradients.tolist(),
    )
    for trace, saliency, reward, initial, final, gradients in zip(probed, result.saliency, *numbers, strict=True):
        rollout = trace.rollout
        rollout.saliency, rollout.rewards["saliency"] = saliency, reward
        yield {
            "line": trace.line, **({"file": trace.file} if trace.file else {}), **traces.to_json(rollout),
            "pieces": cot_texts(rollout, tokenizer), "loss_initial": _known(initial),
            "loss_final": _known(final), "gradients": gradients,
        } | ({
            "reference": {"reward": reference[trace.line][0], "saliency": reference[trace.line][1]}
        } if trace.line in reference else {})  # fmt: skip


def _known(value: float) -> float | None:
    """Return a number for JSON, which has no NaN: that is what was not measured."""
    return value if math.isfinite(value) else None


def cot_texts(rollout: Rollout, tokenizer: Any) -> list[str]:
    """Return the text of each token of the reasoning; joined they are the reasoning."""
    texts = token_texts(tokenizer, rollout.cot_ids, rollout.parts.splitter.visible(tokenizer))
    texts[-1] += rollout.parts.straddle  # the token that holds it belongs to the delimiter, and has no saliency
    return texts


def metrics(done: Iterable[Json]) -> Json:
    """Return mean and sample standard deviation of reward, losses and gradients over the probed traces."""
    values: dict[str, list[float]] = {"saliency": [], "loss_initial": [], "loss_final": [], "gradients": []}
    probed = 0
    for trace in done:
        probed += 1
        for name, column in values.items():
            value = trace["rewards"]["saliency"] if name == "saliency" else trace[name]
            if value is not None:
                column.append(value)
    spread = {
        name: {"mean": fmean(column) if column else None, "std": stdev(column) if len(column) > 1 else None}
        for name, column in values.items()
    }
    return {"probed": probed, **spread}


def check(done: Iterable[Json]) -> ReferenceCheck | None:
    """Return the agreement of the two solvers over the traces that both have solved; None where there is none."""
    traces_checked = [
        SolvedTwice(
            trace["rewards"]["saliency"], trace["saliency"], trace["reference"]["reward"],
            trace["reference"]["saliency"], trace["prompt"],
        )
        for trace in done if trace.get("reference") and trace["rewards"]["saliency"] is not None
    ]  # fmt: skip
    return ReferenceCheck.of(traces_checked) if traces_checked else None


def versions() -> dict[str, str]:
    """Return the versions of what the results depend on."""
    return {
        "atmanrl": __version__, "python": platform.python_version(), "torch": torch.__version__,
        "transformers": transformers.__version__,
    }  # fmt: skip


def to_page(done: Iterable[Json], summary: Json) -> str:
    """Return the page of the first `SHOWN` traces."""
    mean, spread = summary["saliency"]["mean"], summary["saliency"]["std"]
    intro = [f"{summary['probed']} of {summary['traces']} traces of {shown_path(summary['settings']['traces'])}"]
    intro += [f"probed with {shown_path(summary['settings']['model'])}"]
    if mean is not None:
        intro += [f"mean saliency {mean:.4f}" + (f", standard deviation {spread:.4f}" if spread is not None else "")]
    if summary["probed"] > SHOWN:
        intro += [f"the first {SHOWN} are shown"]
    said = "; ".join(intro) + "." + (f" {summary['check']['sentence']}" if "check" in summary else "")
    return page("Saliency of stored traces", [_view(trace) for trace in islice(done, SHOWN)], said)


def _view(trace: Json) -> TraceView:
    place = trace.get("file") or f"line {trace['line']}"
    note = f"{place}, {trace['gradients']} gradients"
    if reference := trace.get("reference"):
        ranks = spearman(reference["saliency"], trace["saliency"])
        note += f"; by the paper's solver {reference['reward']:.4f}, rank correlation of tokens {ranks:.4f}"
    return TraceView(
        id=trace["problem_id"], prompt=trace["prompt"], token_texts=trace["pieces"], saliency=trace["saliency"],
        answer=trace["answer"], gold=trace["gold"], correct=trace["right"], reward=trace["rewards"]["saliency"],
        loss_initial=trace["loss_initial"], loss_final=trace["loss_final"],
        note=note,
    )  # fmt: skip
