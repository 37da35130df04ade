"""`atmanrl probe`: the saliency of stored traces, by `MaskProbe` alone."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from lightning import Trainer
from rich.console import Console

from atmanrl.callbacks import UpdateProgress
from atmanrl.cli_parser import RunParser
from atmanrl.errors import UserError
from atmanrl.files import written_aside
from atmanrl.policy import Policy
from atmanrl.probe import MaskProbe
from atmanrl.rollouts import Rollout, RolloutDataModule, traces


def main(args: list[str]) -> None:
    """Probe a file of traces; write `traces.jsonl` and `summary.json` into a folder.

    Raises:
        UserError: the folder already holds results, or the traces or the model cannot be used.
    """
    parser = RunParser(prog="atmanrl probe", description="Measure the saliency of stored traces.")
    parser.add_argument("--model", type=str, required=True, help="a Hugging Face folder or a name on the hub")
    parser.add_argument(
        "--traces", type=str, required=True, help="JSONL with prompt, gold (or answer) and cot or completion"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for traces.jsonl and summary.json")
    parser.add_argument("--batch_size", type=int, default=64, help="traces that are probed together")
    parser.add_argument("--accelerator", type=str, default="auto", help="as Lightning names it: cpu, gpu, auto")
    parser.add_class_arguments(Policy, "policy", skip={"path", "pretrained"}, instantiate=False)
    parser.add_class_arguments(MaskProbe, "probe", skip={"policy", "keep_masks"})
    parser.add_argument("-c", "--config", action="config", help="a YAML file with these options")
    given = parser.parse_args(args)
    made = parser.instantiate_classes(given)
    result, summary = given.out / "traces.jsonl", given.out / "summary.json"
    if result.exists():
        raise UserError(f"{result} exists already; choose another --out.")
    if given.batch_size < 1:
        raise UserError("--batch_size must be at least 1.")
    made.probe.policy = Policy(given.model, **given.policy)
    data = RolloutDataModule(traces=given.traces, eval_queries=given.batch_size)
    trainer = Trainer(
        accelerator=given.accelerator, devices=1, default_root_dir=given.out, callbacks=[UpdateProgress()], logger=False,
        enable_checkpointing=False, enable_model_summary=False,
    )  # fmt: skip
    batches = trainer.predict(made.probe, data)
    rollouts: list[Rollout] = [rollout for batch in batches or [] for rollout in batch]
    traces.write(rollouts, result)
    figures = _summary(rollouts)
    with written_aside(summary) as file:
        file.write(json.dumps({**figures, "command": ["atmanrl", "probe", *args]}, indent=2) + "\n")
    Console(file=sys.stdout).print(
        f"{figures['probed']} of {figures['traces']} traces probed, mean saliency {figures['saliency']}: {result}",
        highlight=False, soft_wrap=True,
    )  # fmt: skip


def _summary(rollouts: list[Rollout]) -> dict[str, int | float | None]:
    rewards = [r.rewards["saliency"] for r in rollouts if r.saliency is not None]
    return {
        "traces": len(rollouts),
        "probed": len(rewards),
        "saliency": round(sum(rewards) / len(rewards), 6) if rewards else None,
    }
