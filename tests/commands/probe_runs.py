"""`atmanrl probe` on a few good traces, whole or half done."""

import json
from pathlib import Path

from atmanrl.__main__ import main
from atmanrl.io.folders import mark
from atmanrl.probe import MaskProbe

GOOD = [
    {"prompt": "3 + 4?", "cot": "3 + 4 = 7.", "gold": "7", "right": True, "rewards": {"outcome": 0.0, "saliency": 9.0}},
    {"prompt": "2 * <b>5</b> & x?", "completion": "so <i>2</i> * 5 = 10. ##### 11", "gold": "10", "right": False},
    {"prompt": "3 + 4?", "cot": "a longer text \u00e9\U0001f600 about 3 and 4, which make 7", "answer": "7"},
    {"prompt": "1 + 1?", "cot": "two", "gold": "2", "problem_id": "<script>alert(1)</script>"},
    {"prompt": "9 - 2?", "cot": "9 - 2 = 7", "gold": "7"},
]
OPTIONS = ["--batch_size=2", "--probe.solver=AdaptiveSolver", "--probe.solver.steps=3", "--device=cpu"]


def write(path: Path, rows) -> Path:
    lines = [
        row if isinstance(row, bytes) else (row if isinstance(row, str) else json.dumps(row)).encode() for row in rows
    ]
    path.write_bytes(b"\n".join(lines))
    return path


def probe(model, path, out, *more) -> int:
    return main(["probe", f"--model={model}", f"--traces={path}", f"--out={out}", *OPTIONS, *more])


def names(folder) -> set[str]:
    """The files in a folder but for mark and lock."""
    return {p.name for p in folder.iterdir() if not p.name.startswith(".atmanrl-probe")}


def count_solves(monkeypatch):
    """Count the batches that are probed, and fail in the one that is asked for."""

    class Counter:
        calls, fail_at, error = 0, None, RuntimeError("killed")

    real = MaskProbe.solve_targets

    def solve(self, policy, targets):
        Counter.calls += 1
        if Counter.calls - 1 == Counter.fail_at:
            raise Counter.error
        return real(self, policy, targets)

    monkeypatch.setattr(MaskProbe, "solve_targets", solve)
    return Counter


def read(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "traces.jsonl").read_text(encoding="utf-8").split("\n")[:-1]]


def half(whole, out, size: int, tail: bytes = b"") -> None:
    """A folder as it is when a run was killed after `size` bytes of its results."""
    out.mkdir(parents=True, exist_ok=True)
    for each in out.iterdir():
        each.unlink()
    mark(out, "probe")
    (out / "traces.part.jsonl").write_bytes((whole / "traces.jsonl").read_bytes()[:size] + tail)
    summary = json.loads((whole / "summary.json").read_text())
    keys = ("settings", "traces", "skipped", "without_saliency", "device", "dtype", "seconds")
    (out / "progress.json").write_text(json.dumps({k: summary[k] for k in keys}))
