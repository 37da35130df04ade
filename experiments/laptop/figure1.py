"""The probe's picture: Figure 1 for a problem that the laptop policy answers rightly, after a reasoning that it needs.

python -m experiments.laptop.figure1 --out docs/figure1.png
"""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path

import torch

from atmanrl import Explanation, explain
from atmanrl.models.policy import Policy
from atmanrl.rollouts import split
from atmanrl.tasks import Problem, WordProblems
from atmanrl.views import figure1

POLICY = Path(__file__).parent / "policy"
TOKENS = range(24, 44)
"""Length of a reasoning whose tokens can still be read in the picture."""

LOSS = 1.0
"""Least loss of the gold answer, in nats a token, while the reasoning is suppressed."""


def needed(policy: Policy, task: WordProblems) -> tuple[Problem, Explanation]:
    """The first test problem for the picture, explained: answered rightly, greedily, after a reasoning of `TOKENS`.

    Where the answer costs less than `LOSS` with the reasoning suppressed, the mask has little to restore: passed over.
    """
    for problem in task.problems("test"):
        prompt = policy.encode_prompt(task.prompt(problem))
        ids = policy.model.generate(
            torch.tensor([prompt]), max_new_tokens=TOKENS.stop + 16, do_sample=False, pad_token_id=policy.pad_id
        )
        parts = split(policy.tokenizer, ids[0, len(prompt) :].tolist())
        if parts.cot_length in TOKENS and parts.answer is not None and task.is_right(parts.answer, problem):
            found = explain(policy, None, task.prompt(problem), parts.cot, problem.gold)
            if found.loss_initial >= LOSS:
                return problem, found
    raise SystemExit(f"{policy.path}: no test problem is answered rightly by a reasoning of such a length and need.")


def main() -> None:
    """Explain and draw."""
    parser = argparse.ArgumentParser(description="Draw Figure 1 for one problem of the laptop task.")
    parser.add_argument("--policy", type=Path, default=POLICY)
    parser.add_argument("--out", type=Path, default=Path("docs/figure1.png"))
    args = parser.parse_args()
    policy = Policy(str(args.policy)).build()
    policy.eval()
    problem, found = needed(policy, WordProblems(instruction=""))
    title = textwrap.fill(f"{problem.question} (Gold answer: {problem.gold})", 140)
    figure1.save(found.figure(title=title), args.out, dpi=140)
    print(f"{problem.question}\n\n{found}\n\n{args.out}: {problem.id}")


if __name__ == "__main__":
    main()
