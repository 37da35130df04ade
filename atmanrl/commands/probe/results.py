"""What a finished probing run shows: the figures of `summary.json` and the page `index.html`, both from its traces alone."""

from __future__ import annotations

import math
import platform
from collections.abc import Iterable, Iterator
from itertools import islice
from statistics import fmean, stdev
from typing import Any

import torch
import transformers

from atmanrl import __version__
from atmanrl.commands.probe.trace_file import StoredTrace
from atmanrl.probe import ProbeResult
from atmanrl.rollouts import Rollout, traces
from atmanrl.rollouts.token_texts import token_texts
from atmanrl.views.trace_page import TraceView, page

Json = dict[str, Any]

SHOWN = 1000
"""Most traces on the page: a browser has to hold them all."""


def to_json(probed: list[StoredTrace], result: ProbeResult, tokenizer: Any) -> Iterator[Json]:
    """The probed traces as they are written: the schema of `rollouts.traces`, and what the probe found."""
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
            "line": trace.line, **traces.to_json(rollout), "pieces": texts(rollout, tokenizer),
            "loss_initial": _known(initial), "loss_final": _known(final), "gradients": gradients,
        }  # fmt: skip


def _known(value: float) -> float | None:
    """A number that JSON has: what was not measured is NaN."""
    return value if math.isfinite(value) else None


def texts(rollout: Rollout, tokenizer: Any) -> list[str]:
    """The text of each token of the reasoning; together they are the reasoning."""
    found = token_texts(tokenizer, rollout.cot_ids, rollout.parts.splitter.visible(tokenizer))
    found[-1] += rollout.parts.straddle  # the token that holds it belongs to the delimiter, and has no saliency
    return found


def metrics(done: Iterable[Json]) -> Json:
    """Mean and sample standard deviation, over the probed traces, of the reward and of what the probe did for it."""
    values: dict[str, list[float]] = {"saliency": [], "loss_initial": [], "loss_final": [], "gradients": []}
    probed = 0
    for trace in done:
        probed += 1
        for name, known in values.items():
            value = trace["rewards"]["saliency"] if name == "saliency" else trace[name]
            if value is not None:
                known.append(value)
    spread = {
        name: {"mean": fmean(known) if known else None, "std": stdev(known) if len(known) > 1 else None}
        for name, known in values.items()
    }
    return {"probed": probed, **spread}


def versions() -> dict[str, str]:
    """Of what decides the figures."""
    return {
        "atmanrl": __version__, "python": platform.python_version(), "torch": torch.__version__,
        "transformers": transformers.__version__,
    }  # fmt: skip


def to_page(done: Iterable[Json], summary: Json) -> str:
    """The page of the first `SHOWN` traces."""
    mean, spread = summary["saliency"]["mean"], summary["saliency"]["std"]
    intro = [f"{summary['probed']} of {summary['traces']} traces of {summary['settings']['traces']}"]
    intro += [f"probed with {summary['settings']['model']}"]
    if mean is not None:
        intro += [f"mean saliency {mean:.4f}" + (f", standard deviation {spread:.4f}" if spread is not None else "")]
    if summary["probed"] > SHOWN:
        intro += [f"the first {SHOWN} are shown"]
    return page("Saliency of stored traces", [_view(trace) for trace in islice(done, SHOWN)], "; ".join(intro) + ".")


def _view(trace: Json) -> TraceView:
    return TraceView(
        id=trace["problem_id"], prompt=trace["prompt"], token_texts=trace["pieces"], saliency=trace["saliency"],
        answer=trace["answer"], gold=trace["gold"], correct=trace["right"], reward=trace["rewards"]["saliency"],
        loss_initial=trace["loss_initial"], loss_final=trace["loss_final"],
        note=f"line {trace['line']}, {trace['gradients']} gradients",
    )  # fmt: skip
