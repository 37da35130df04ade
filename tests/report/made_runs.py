"""Runs' folders for the tests of reports: a test imports the fixture `make`."""

import json
import math

import numpy as np
import pytest

from atmanrl.report.answers import read_answers
from atmanrl.report.intervals import sums
from atmanrl.report.words import Words

HEADER = "accuracy,cot/mean_length,loss,step"
SETTING = {"task": "WordProblems", "samples": 4, "temperature": 1.0, "max_new_tokens": 224, "tagger": "lexical rules"}


def rollout(problem, sample, filler, right, **options):
    cot = f" {problem} + {sample} = {problem + sample}." + " and so it is" * filler
    given = {
        "problem_id": f"sums/{problem}", "prompt": f"What is {problem} + {sample}?", "cot": cot,
        "answer": str(problem + sample), "gold": str(problem + sample), "right": right, "sample": sample,
        "cot_tokens": 8 + 4 * filler,
    }  # fmt: skip
    return {**given, **options}


@pytest.fixture
def make(tmp_path):
    """Makes a run's folder: `make("name", filler=3)`; what is None is left out."""

    def run(name, filler=2, problems=12, setting=None, updates=40, tested=True, rollouts=None, curve=None):
        folder = tmp_path / name
        (folder / "eval").mkdir(parents=True)
        (folder / "config.yaml").write_text("")
        if updates:
            rng = np.random.default_rng(filler)
            rows = [f"{0.5 + 0.1 * rng.random()},{70 - filler + rng.random()},0.1,{step}" for step in range(updates)]
            (folder / "metrics.csv").write_text(curve or "\n".join([HEADER, *rows]) + "\n")
        if tested:
            lines = rollouts or [
                rollout(p, s, filler + p % 3 + s, (p + s) % 3 != 0) for p in range(problems) for s in range(4)
            ]
            (folder / "eval" / "test.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
            answers = read_answers(folder)
            figures = sums(answers, Words().counts([answer.cot for answer in answers])).metrics()
            figures = {key: None if math.isnan(value) else value for key, value in figures.items()}
            written = {**figures, "majority_at_4": 0.75, "setting": {**SETTING, **(setting or {})}}
            (folder / "eval" / "test.json").write_text(json.dumps(written))
        return folder

    return run
