"""Runs' folders for the tests of reports: a test imports the fixture `make`."""

import json
import re

import numpy as np
import pytest

from atmanrl.__main__ import main

HEADER = "accuracy,cot/mean_length,loss,step"
SETTING = {"task": "WordProblems", "samples": 4, "temperature": 1.0, "max_new_tokens": 224, "tagger": "lexical rules"}


def rollout(problem, sample, filler, right, **options):
    """A line of `eval/test.jsonl`, with what the rollout alone adds to each metric."""
    cot = f" {problem} + {sample} = {problem + sample}." + " and so it is" * filler
    tokens = len(re.findall(r"\w+|[^\w\s]", cot))
    counts = {"numbers_pct": 3, "stop_words_pct": 4 * filler, "symbols_pct": 2}
    row = {
        "problem_id": f"sums/{problem}", "prompt": f"What is {problem} + {sample}?", "cot": cot,
        "answer": str(problem + sample), "gold": str(problem + sample), "right": right, "sample": sample,
        "cot_tokens": 8 + 4 * filler,
        "metrics": {"tokens_per_cot": [8 + 4 * filler, 1], **{key: [100 * n, tokens] for key, n in counts.items()}},
    }  # fmt: skip
    return {**row, **options}


def with_metrics_of_problems(rows):
    """The lines, the first of each problem with what all its samples add together; and the values over all."""
    problems = {}
    for row in rows:
        problems.setdefault(row["problem_id"], []).append(row)
    for group in problems.values():
        share, k = np.mean([row["right"] for row in group]), len(group)
        of_problem = {"pass_at_1": share, f"pass_at_{k}": float(share > 0), f"majority_at_{k}": float(share > 0.5)}
        group[0]["metrics"] |= {key: [value, 1] for key, value in of_problem.items()}
    keys = {key: None for row in rows for key in row["metrics"]}
    pairs = {key: [row["metrics"][key] for row in rows if key in row["metrics"]] for key in keys}
    return rows, {key: sum(a for a, _ in each) / sum(b for _, b in each) for key, each in pairs.items()}


@pytest.fixture
def make(tmp_path):
    """Makes a run's folder: `make("name", filler=3)`; what is None is left out."""

    def run(name, filler=2, problems=12, setting=None, updates=40, tested=True, rollouts=None, curve=None, **values):
        folder = tmp_path / name
        (folder / "eval").mkdir(parents=True)
        (folder / "config.yaml").write_text("")
        if updates:
            rng = np.random.default_rng(filler)
            rows = [f"{0.5 + 0.1 * rng.random()},{70 - filler + rng.random()},0.1,{step}" for step in range(updates)]
            (folder / "metrics.csv").write_text(curve or "\n".join([HEADER, *rows]) + "\n")
        if tested:
            lines, metrics = with_metrics_of_problems(rollouts or [
                rollout(p, s, filler + p % 3 + s, (p + s) % 3 != 0) for p in range(problems) for s in range(4)
            ])  # fmt: skip
            (folder / "eval" / "test.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
            test = {**metrics, "setting": {**SETTING, **(setting or {})}, **values}
            (folder / "eval" / "test.json").write_text(json.dumps(test))
        return folder

    return run


def probe(run, count=4):
    """Write what `atmanrl probe` would of the first rollouts."""
    lines = [json.loads(line) for line in (run / "eval" / "test.jsonl").read_text().splitlines()[:count]]
    (run / "probe").mkdir()
    with (run / "probe" / "traces.jsonl").open("w") as file:
        for line in lines:
            pieces = re.findall(r"\s*\S+", line["cot"])
            more = {"pieces": pieces, "saliency": [n / 10 for n in range(len(pieces))], "rewards": {"saliency": 0.5}}
            file.write(json.dumps({**line, **more, "loss_initial": 2.0, "loss_final": 0.1}) + "\n")


def report(out, *runs, **options):
    """Run `atmanrl report` and return its status."""
    options = {"examples": 1, **options}
    return main(["report", *map(str, runs), f"--out={out}", *(f"--{key}={value}" for key, value in options.items())])
