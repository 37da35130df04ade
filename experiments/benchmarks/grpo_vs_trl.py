"""Our trainer against TRL's `GRPOTrainer`: seconds and memory of the same updates, and what saliency adds to ours.

    python -m experiments.benchmarks.grpo_vs_trl --json experiments/benchmarks/results/grpo_vs_trl.json

The laptop policy, 8 problems with 8 rollouts of at most 128 tokens an update, two passes of four minibatches of 16
rollouts, the outcome as reward, float32, no KL term. The trainers take turns (A B A B ...), each turn in a process of
its own, on the same problems; its first update warms up and is not counted. TRL runs without gradient checkpointing,
which it would otherwise use and which costs it time.

- `update_ratio` is TRL's median seconds an update divided by ours, `rollout_ratio` the same for sampling alone,
  `peak_memory_ratio` for memory above the loaded model.
- Rollouts are sampled anew by either, so equal work is checked: sampled tokens an update within `--slack` of each other,
  and as many optimizer steps.
- `saliency_overhead` is our update with the saliency reward (the fast probe) divided by ours with the outcome alone.
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from atmanrl.policy import Policy
from atmanrl.rollouts import RolloutDataModule
from atmanrl.tasks import DELIMITER, Problem, WordProblems
from experiments.benchmarks.memory import peak_mib

QUERIES, GROUP, TOKENS, ITERATIONS, MINIBATCH, EPSILON, LR = 8, 8, 128, 2, 2, 0.2, 1e-6
STEPS = ITERATIONS * QUERIES // MINIBATCH
"""Optimizer steps of an update."""
TURNS = ("trl", "atmanrl", "saliency")


def data(updates: int) -> RolloutDataModule:
    """Problems for so many updates; the same ones for every trainer."""
    task = WordProblems(train_size=updates * QUERIES + 1, test_size=1, seed=5, instruction="")
    return RolloutDataModule(
        task, queries_per_device=QUERIES, group_size=GROUP, max_new_tokens=TOKENS, val_problems=1, test_problems=1
    )


def run_atmanrl(path: str, updates: int, saliency: bool) -> dict[str, Any]:
    """Our trainer: seconds of each update and of its sampling, tokens sampled, optimizer steps, peak memory."""
    from lightning import Callback, Trainer

    from atmanrl.grpo import GRPOModule
    from atmanrl.probe import AdaptiveSolver, MaskProbe
    from atmanrl.rewards import OutcomeReward, Reward, SaliencyReward

    ended, sampling, tokens = [time.perf_counter()], [], []

    class Clock(Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            ended.append(time.perf_counter())
            sampling.append(batch.seconds)
            tokens.append(sum(len(r.completion.ids) for r in batch.rollouts))

    rewards: dict[str, Reward] = {"outcome": OutcomeReward()}
    if saliency:
        rewards["saliency"] = SaliencyReward(10.0, MaskProbe(solver=AdaptiveSolver(0.008)))
    steps = 0

    def optimizer(parameters: Any) -> torch.optim.Optimizer:
        def count(*_: Any) -> None:
            nonlocal steps
            steps += 1

        made = torch.optim.AdamW(parameters, lr=LR, weight_decay=0.0)
        made.register_step_post_hook(count)
        return made

    policy = Policy(path)
    policy.build()
    module = GRPOModule(
        policy, rewards, optimizer, num_iterations=ITERATIONS, minibatch_queries=MINIBATCH, epsilon=EPSILON
    )
    trainer = Trainer(
        accelerator="cpu", devices=1, max_steps=updates, limit_val_batches=0, logger=False, callbacks=[Clock()],
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    peak = peak_mib(lambda: trainer.fit(module, datamodule=data(updates)))
    return turn(ended, sampling, tokens, steps, peak)


def run_trl(path: str, updates: int) -> dict[str, Any]:
    """TRL's trainer; as `run_atmanrl`."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    module = data(updates)
    module.setup("fit")
    problems: dict[str, Problem] = {problem.id: problem for _, problem in module.rows["train"]}
    ended, sampling, tokens = [], [], []

    def outcome(completions: Any, problem_id: list[str], **_: Any) -> list[float]:
        answers = [(c[0]["content"] if isinstance(c, list) else c).partition(DELIMITER) for c in completions]
        return [
            0.0 if mark and module.task.is_right(answer, problems[row]) else -1.0
            for (_, mark, answer), row in zip(answers, problem_id, strict=True)
        ]

    class Clock(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            ended.append(time.perf_counter())

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step % STEPS == 0:
                ended.append(time.perf_counter())

    class Timed(GRPOTrainer):
        def _generate(self, prompts: Any, *args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            made = super()._generate(prompts, *args, **kwargs)
            sampling.append(time.perf_counter() - began)
            tokens.append(sum(map(len, made[1])))
            return made

    with tempfile.TemporaryDirectory() as folder:
        config = GRPOConfig(
            output_dir=folder, per_device_train_batch_size=MINIBATCH * GROUP, steps_per_generation=QUERIES // MINIBATCH,
            num_generations=GROUP, num_iterations=ITERATIONS, max_completion_length=TOKENS, max_steps=updates * STEPS,
            learning_rate=LR, lr_scheduler_type="constant", weight_decay=0.0, temperature=1.0, beta=0.0, epsilon=EPSILON,
            loss_type="grpo", scale_rewards="none", bf16=False, gradient_checkpointing=False, use_cpu=True, seed=0,
            save_strategy="no", report_to="none", logging_steps=STEPS, disable_tqdm=True,
        )  # fmt: skip
        rows = [{"prompt": [{"role": "user", "content": p.question}], "problem_id": key} for key, p in problems.items()]
        trainer = Timed(
            AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32), outcome, config, Dataset.from_list(rows),
            processing_class=AutoTokenizer.from_pretrained(path), callbacks=[Clock()],
        )  # fmt: skip
        peak = peak_mib(trainer.train)
    return turn(ended, sampling, tokens, trainer.state.global_step, peak)


def turn(ended: list[float], sampling: list[float], tokens: list[int], steps: int, peak: float) -> dict[str, Any]:
    """What one process reports; the first update is left out."""
    took = [later - earlier for earlier, later in zip(ended, ended[1:], strict=False)]
    return {
        "update_s": took[1:], "rollout_s": sampling[1:], "tokens": tokens[1:], "optimizer_steps": steps // len(took),
        "peak_mib": peak,
    }  # fmt: skip


def child(who: str, args: argparse.Namespace) -> dict[str, Any]:
    """A turn in a process of its own."""
    command = [sys.executable, "-m", "experiments.benchmarks.grpo_vs_trl", "--turn", who, "--policy", args.policy]
    done = subprocess.run([*command, "--updates", str(args.updates)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{who} failed:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    shown = {key: statistics.median(value) if isinstance(value, list) else value for key, value in found.items()}
    print(who, shown, flush=True)
    return found


def pooled(turns: list[dict[str, Any]]) -> dict[str, Any]:
    """All turns of one trainer."""
    together = {key: [x for each in turns for x in each[key]] for key in ("update_s", "rollout_s", "tokens")}
    steps = {each["optimizer_steps"] for each in turns}
    return {
        **{f"{key}_median": statistics.median(together[key]) for key in ("update_s", "rollout_s")},
        "update_s_range": [min(together["update_s"]), max(together["update_s"])],
        "tokens_an_update": statistics.mean(together["tokens"]),
        "optimizer_steps": steps.pop() if len(steps) == 1 else sorted(steps),
        "peak_mib": statistics.median(each["peak_mib"] for each in turns),
        **together,
    }  # fmt: skip


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description="GRPO updates: ours against TRL's, in turn.")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--policy", default="experiments/laptop/policy")
    parser.add_argument("--updates", type=int, default=6, help="updates of a turn, the first of which warms up")
    parser.add_argument("--turns", type=int, default=3, help="turns of each trainer")
    parser.add_argument("--slack", type=float, default=0.1, help="how much the tokens an update may differ")
    parser.add_argument("--turn", choices=TURNS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.manual_seed(0)
    if args.turn:
        if args.turn == "trl":
            found = run_trl(args.policy, args.updates)
        else:
            found = run_atmanrl(args.policy, args.updates, saliency=args.turn == "saliency")
        print(json.dumps(found))
        return
    turns: dict[str, list[dict[str, Any]]] = {who: [] for who in TURNS}
    for _ in range(args.turns):
        for who in TURNS:
            turns[who].append(child(who, args))
    theirs, ours, salient = (pooled(turns[who]) for who in TURNS)
    tokens = theirs["tokens_an_update"] / ours["tokens_an_update"]
    if theirs["optimizer_steps"] != ours["optimizer_steps"] or abs(tokens - 1) > args.slack:
        raise SystemExit(
            f"the work is not equal: TRL sampled {tokens:.2f} times our tokens, in {theirs['optimizer_steps']} optimizer "
            f"steps an update against {ours['optimizer_steps']}; run more updates."
        )
    results = {
        "command": shlex.join(["python", "-m", "experiments.benchmarks.grpo_vs_trl", *sys.argv[1:]]),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "versions": {
            "python": platform.python_version(), **{n: version(n) for n in ("torch", "transformers", "trl", "lightning")}
        },
        "policy": args.policy,
        "update_ratio": theirs["update_s_median"] / ours["update_s_median"],
        "rollout_ratio": theirs["rollout_s_median"] / ours["rollout_s_median"],
        "peak_memory_ratio": theirs["peak_mib"] / ours["peak_mib"],
        "tokens_ratio": tokens,
        "saliency_overhead": salient["update_s_median"] / ours["update_s_median"],
        "trl": theirs,
        "atmanrl": ours,
        "atmanrl_saliency": salient,
    }  # fmt: skip
    print(json.dumps({key: value for key, value in results.items() if isinstance(value, float)}, indent=2))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
