"""On which task is a policy right often enough to learn from its own answers? A few completions of each candidate.

    python -m experiments.real.candidates --model models/SmolLM2-135M-Instruct --json OUT.json [--only chain_sum_2 ...]

Figures of tasks that OUT.json holds already are kept. GRPO learns from groups in which some completions are right and some
are not: 15 to 60 % are to be right at temperature 1. `reasoning-gym` has to be installed for its candidates.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from atmanrl.io.files import atomic_write
from atmanrl.models.policy import Policy
from atmanrl.tasks import INSTRUCTION, MultiHop, ReasoningGym, Task, WordProblems
from experiments.real.evaluation import answers, test_rows

DELIMITER = "The answer is"
EXAMPLE = "Write the calculation step by step, then the answer, like this: 2 + 3 = 5, 5 + 4 = 9. The answer is 9."
"""An instruction that shows a worked answer."""
SHOWN = 3
"""Completions of each task that are written down."""


def sums(terms: int, digits: int, instruction: str = INSTRUCTION, fewest: int | None = None) -> Task:
    """Return reasoning-gym's sums of so many terms, or of `fewest` to so many, of so many digits."""
    config = {"min_terms": fewest or terms, "max_terms": terms, "min_digits": digits, "max_digits": digits}
    return ReasoningGym("chain_sum", config, 50, 12, instruction=instruction)


def chains(instruction: str) -> Task:
    """Return problems of two steps, of the seed on which settings are chosen."""
    return MultiHop(2, train_size=2000, test_size=200, seed=1, instruction=instruction)


CANDIDATES: dict[str, Callable[[], Task]] = {
    "sums of two one-digit numbers": lambda: sums(2, 1),
    "sums of two one-digit numbers, with an example": lambda: sums(2, 1, EXAMPLE),
    "sums of three one-digit numbers, with an example": lambda: sums(3, 1, EXAMPLE),
    "word problems, with an example": lambda: WordProblems(2000, 200, 1, EXAMPLE),
    "chains of two steps": lambda: chains(INSTRUCTION),
    "chains of two steps, with an example": lambda: chains(EXAMPLE),
    "chains of two steps, bare": lambda: chains(""),
    "sums of two two-digit numbers, bare": lambda: sums(2, 2, ""),
    "sums of two or three one-digit numbers, bare": lambda: sums(3, 1, "", 2),
    "sums of three one-digit numbers, bare": lambda: sums(3, 1, ""),
    "sums of four one-digit numbers, bare": lambda: sums(4, 1, ""),
    "word problems, bare": lambda: WordProblems(2000, 200, 1, ""),
}
"""By name; `bare` is without an instruction, for a policy after its warm start."""


def tried(policy: Policy, task: Task, problems: int, samples: int, new_tokens: int) -> dict[str, Any]:
    """Return how often a policy answers and is right, with its first completions."""
    began = time.perf_counter()
    rollouts = answers(policy, task, test_rows(task, problems), samples, new_tokens, DELIMITER)
    return {
        "completions": len(rollouts),
        "answered": sum(each.parts.answer is not None for each in rollouts),
        "right": sum(bool(each.correct) for each in rollouts),
        "mean tokens of the reasoning": round(sum(each.parts.cot_length for each in rollouts) / len(rollouts), 1),
        "seconds": round(time.perf_counter() - began, 1),
        "prompt": task.prompt(rollouts[0].problem),
        "gold": rollouts[0].problem.gold,
        "first completions": [each.parts.text for each in rollouts[:SHOWN]],
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Try each candidate that is not in the file yet."""
    options = argparse.ArgumentParser(prog="python -m experiments.real.candidates", description=__doc__.split("\n")[0])
    options.add_argument("--model", required=True, help="a policy's folder")
    options.add_argument("--json", type=Path, required=True)
    options.add_argument("--only", nargs="+", choices=CANDIDATES, default=list(CANDIDATES), metavar="TASK")
    options.add_argument("--problems", type=int, default=6)
    options.add_argument("--samples", type=int, default=4, help="of each problem, at temperature 1")
    options.add_argument("--new-tokens", type=int, default=64)
    args = options.parse_args(argv)
    policy = Policy(args.model).build().eval()
    known: dict[str, Any] = json.loads(args.json.read_text()) if args.json.exists() else {}
    for name in args.only:
        of_model = known.setdefault(args.model, {})
        if name in of_model:
            continue
        of_model[name] = tried(policy, CANDIDATES[name](), args.problems, args.samples, args.new_tokens)
        with atomic_write(args.json) as file:
            file.write(json.dumps(known, indent=1, ensure_ascii=False) + "\n")
        print(args.model, name, {key: of_model[name][key] for key in ("right", "answered", "completions", "seconds")})
    return 0


if __name__ == "__main__":
    sys.exit(main())
