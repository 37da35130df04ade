"""The program that runs on a GPU in minutes: what it decides, and what it writes down."""

import json
import math
import time

import pytest
from tiny_gguf import tiny_llama, write

from experiments.real import cpu, gpu, summarise
from experiments.real.instrument import solvers
from experiments.real.processes import Child, wait
from experiments.real.scale import FULL, TINY
from experiments.real.solved import Column, Solved
from experiments.real.tasks import HELD, STORIES, TRAIN, choose, split_data, task_of


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    rows = [{"question": f"{n}?", "answer": "\n".join(["1 + 1 = 2."] * (n % 4 + 1) + [f"#### {n}"])} for n in range(40)]
    for split in ("train", "test"):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_what_is_held_out_is_never_trained_on(data, tmp_path):
    split_data(data, tmp_path)
    trained, held = ({p.question for p in task_of("gsm8k", tmp_path, f).problems("train")} for f in (TRAIN, HELD))
    assert (len(trained), len(held), trained & held) == (30, 10, set())
    assert all(p.solution.count("\n") < 2 for p in task_of("gsm8k_2_steps", tmp_path).problems("train"))
    stories = [task_of(STORIES, tmp_path, folder).problems("train") for folder in (TRAIN, HELD)]
    assert stories[0] != stories[1]


@pytest.mark.parametrize(
    ("accuracy", "task"),
    [((0.2, 0.3, 0.4), "hard"), ((0.1, 0.15, 0.4), "middle"), ((0.1, 0.12, 0.05), "middle"), ((0.0, 0.0, 0.0), "easy")],
)
def test_the_hardest_task_with_enough_right_answers_is_chosen(accuracy, task):
    assert choose(dict(zip(("hard", "middle", "easy"), accuracy, strict=True))) == task


class Arm:
    def __init__(self, work, name, seconds=None, at=()):
        self.name, self.seconds = name, seconds
        (work / f"curve.{name}.jsonl").write_text("".join(json.dumps({"at": each}) + "\n" for each in at))


def test_all_arms_make_as_many_updates_as_the_slowest_has_time_for(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    quick, slow = Arm(tmp_path, "quick", at=[980, 982, 984, 986]), Arm(tmp_path, "slow", at=[970, 980])
    ended = Arm(tmp_path, "ended", seconds=3.0)
    gpu.decide([quick, slow, ended], tmp_path, FULL, 1100.0)
    assert not (tmp_path / "updates.json").exists()
    slow = Arm(tmp_path, "slow", at=[970, 980, 990])
    gpu.decide([quick, slow, ended], tmp_path, FULL, 1100.0)
    agreed = json.loads((tmp_path / "updates.json").read_text())
    assert agreed["updates"] == 3 + int(0.95 * 100 / 10) and agreed["seconds of an update"] == [2.0, 10.0]
    gpu.decide([quick, slow, ended], tmp_path, FULL, 1300.0)
    assert json.loads((tmp_path / "updates.json").read_text()) == agreed


def test_a_gguf_file_in_parts_becomes_the_model_that_steps_begin_from(data, tmp_path):
    write(tiny_llama(), tmp_path / "whole.gguf", "Q4_1")
    content, work = (tmp_path / "whole.gguf").read_bytes(), tmp_path / "work"
    parts = [tmp_path / "a", tmp_path / "b"]
    parts[0].write_bytes(content[:5000])
    parts[1].write_bytes(content[5000:])
    work.mkdir()
    options = ["--gguf", *map(str, parts), "--data", str(data), "--json", "x.json", "--tiny"]
    gpu.prepare(gpu.parser().parse_args(options), work)
    assert (work / "base/model.safetensors").exists() and not (work / "model.gguf").exists()


def test_a_process_that_fails_or_runs_out_of_time_keeps_its_figures_and_its_output(tmp_path, monkeypatch):
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho working\ntest $4 = slow && exec sleep 60\nexit 3\n")
    script.chmod(0o755)
    monkeypatch.setattr("experiments.real.processes.sys.executable", str(script))
    (tmp_path / "slow.json").write_text(json.dumps({"ended": False, "figures": {"a": 1}}))
    children = [Child("slow", [], tmp_path, time.time() + 0.5), Child("bad", [], tmp_path, time.time() + 30)]
    wait(children, lambda: None)
    slow, bad = (child.result for child in children)
    assert (slow["status"], slow["figures"], slow["output"]) == ("out of time", {"a": 1}, "working\n")
    assert (bad["status"], bad["output"]) == ("failed (3)", "working\n")


def test_solvers_are_compared_by_advantages_within_groups():
    paper, other = Column(), Column()
    paper.rewards, other.rewards = [0.1, 0.2, 0.5, 0.9], [1.1, 1.2, 2.5, 2.9]
    for column in (paper, other):
        column.groups, column.gradients, column.saliency = [0, 0, 1, 1], [200] * 4, [[0.1, 0.5, 0.2]] * 4
    figures = other.against(paper)
    assert figures["pearson"] == pytest.approx(1) and figures["slope"] == pytest.approx(1)
    assert figures["largest difference of advantages"] == pytest.approx(0, abs=1e-12)
    assert figures["token spearman"] == pytest.approx(1)
    assert next(iter(solvers(200))) == "paper"


def on_cpu(data, out, *options):
    command = ["--tiny", "--data", str(data), "--work", str(out / "work"), "--json", str(out / "cpu.json")]
    return cpu.main([*command, "--model", "experiments/laptop/policy", *options])


def test_the_instrument_on_a_cpu_goes_on_where_it_was_stopped(data, tmp_path, monkeypatch):
    real, calls = Solved.by, []

    def by(*args):
        if len(calls) == 7:
            raise KeyboardInterrupt
        calls.append(args)
        return real(*args)

    monkeypatch.setattr(Solved, "by", by)
    with pytest.raises(KeyboardInterrupt):
        on_cpu(data, tmp_path)  # within the second of two questions, of five solvers each
    monkeypatch.setattr(Solved, "by", lambda *args: calls.append(args) or real(*args))
    assert on_cpu(data, tmp_path) == 0
    assert len(calls) == 2 * len(solvers(1))
    figures = json.loads((tmp_path / "cpu.json").read_text())["steps"]["instrument"]["figures"]
    assert figures["traces"]["questions"] == 2 and figures["solvers"]["paper"]["traces"] == 4
    assert len((tmp_path / "cpu.traces.jsonl").read_text().splitlines()) == 4
    before = (tmp_path / "cpu.traces.jsonl").read_text()
    assert on_cpu(data, tmp_path) == 0 and (tmp_path / "cpu.traces.jsonl").read_text() == before


def test_another_process_solves_ahead_of_the_instrument(data, tmp_path, monkeypatch):
    real, calls = Solved.by, []
    monkeypatch.setattr(Solved, "by", lambda *args: calls.append(args) or real(*args))
    assert on_cpu(data, tmp_path, "--ahead", "1") == 0
    fixed, ahead = len(solvers(1)) - 1, len(calls)  # the calibrated solver is left to the instrument
    assert ahead == fixed and not (tmp_path / "cpu.json").exists()
    assert on_cpu(data, tmp_path) == 0
    assert len(calls) - ahead == len(solvers(1)) + 1
    figures = json.loads((tmp_path / "cpu.json").read_text())["steps"]["instrument"]["figures"]
    assert {solver["traces"] for solver in figures["solvers"].values()} == {4}


def test_the_instrument_takes_no_folder_with_results_of_another_model(data, tmp_path, capsys):
    assert on_cpu(data, tmp_path, "--model", str(tmp_path)) == 1
    assert "holds no model" in capsys.readouterr().err
    (tmp_path / "work").mkdir()
    (tmp_path / "work/settings.json").write_text("{}")
    assert on_cpu(data, tmp_path) == 1
    assert "another model or of other sizes" in capsys.readouterr().err
    assert on_cpu(data, tmp_path, "--ahead", "2") == 1
    assert "--ahead is 2; of 2 questions give one from 0 to 1." in capsys.readouterr().err


def test_json_has_no_nan():
    assert gpu.finite({"a": [1.0, math.nan], "b": math.inf}) == {"a": [1.0, None], "b": None}


def test_the_summary_has_means_over_seeds_and_the_composition_of_the_texts(tmp_path):
    texts = tmp_path / "real.eval.jsonl"
    texts.write_text("".join(json.dumps({"arm": f"outcome-{seed}", "cot": "3 + 4 = 7"}) + "\n" for seed in (0, 1)))
    shares = summarise.compositions(texts, None)
    assert shares["outcome-0"] == {"numbers_pct": 60.0, "stop_words_pct": 0.0, "symbols_pct": 40.0}
    steps = {
        f"outcome-{seed}": {"figures": {"training": {"updates": 9}, "test": {"accuracy": 0.1 + seed / 10}}}
        for seed in (0, 1)
    }
    page = summarise.tables({"device": "a GPU", "date": "today", "steps": steps}, shares)
    assert "| | outcome (2) |" in page and "| accuracy | 0.15 ± 0.0707 |" in page
    assert "| numbers_pct | 60 ± 0 |" in page and "| cir_gold |  |" in page


def test_the_summary_has_the_curves_by_five_updates_and_nothing_of_what_was_not_measured():
    curve = [{"update": n, "accuracy": n / 10, "cot/mean_length": 40.0} for n in range(1, 8)]
    steps = {"outcome-0": {"figures": {}, "curve": curve}}
    page = summarise.tables({"device": "two cores", "date": "today", "steps": steps}, {})
    assert "| outcome-0 | 1-5 | 0.3 | 40 |" in page and "| outcome-0 | 6-7 | 0.65 | 40 |" in page
    assert page.startswith("two cores, today\n")  # which has no seconds, as what went on after a stop
    assert "solver" not in page and "warm start" not in page
    assert summarise.curves({"before": {"figures": {}, "curve": []}}) == []


@pytest.mark.gpu
def test_the_whole_program_runs(device, shared_data, tmp_path):
    out = tmp_path / "real.json"
    command = ["--model", "experiments/laptop/policy", "--data", str(shared_data / "gsm8k"), "--minutes", "5", "--tiny"]
    monkey = pytest.MonkeyPatch()
    monkey.setattr("sys.argv", ["gpu", *command, "--json", str(out), "--device", device.type])
    assert gpu.main() == 0
    monkey.undo()
    steps = json.loads(out.read_text())["steps"]
    assert {step["status"] for step in steps.values()} == {"done"} and len(steps) == 3 + 2 * len(TINY.seeds)
    assert out.with_suffix(".traces.jsonl").exists() and out.with_suffix(".eval.jsonl").exists()
