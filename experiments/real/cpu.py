"""The instrument on SmolLM2-135M-Instruct on a CPU, question by question, in hours: the same call goes on where it stopped.

    python -m experiments.real.fetch
    python -m experiments.real.cpu --data DIR --json OUT/cpu.json [--questions 3] [--minutes 40]

DIR holds GSM8K's `train.jsonl` and `test.jsonl`. What is done is kept in `--work`; `OUT/cpu.json` has the figures of all
questions so far and `OUT/cpu.traces.jsonl` the texts, rewards and saliency. Three questions are 12 traces. The same call
with `--ahead N`, beside it on another core, solves the questions from number N on, which the first then finds done.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch

from atmanrl.errors import UserError
from atmanrl.io.files import atomic_write
from atmanrl.io.rows import finite
from atmanrl.io.terminal import say_error
from experiments.gpu.record import Record
from experiments.real import instrument
from experiments.real.fetch import FOLDER
from experiments.real.provenance import provenance
from experiments.real.scale import ON_CPU, TINY, Scale
from experiments.real.tasks import split_data


def parser() -> argparse.ArgumentParser:
    """Options of the command."""
    options = argparse.ArgumentParser(prog="python -m experiments.real.cpu", description=__doc__.split("\n")[0])
    options.add_argument("--model", type=Path, default=FOLDER, help=f"the model's folder (default: {FOLDER})")
    options.add_argument("--data", type=Path, required=True, help="a folder with GSM8K's train.jsonl and test.jsonl")
    options.add_argument("--work", type=Path, default=Path("runs/real"), help="what is done (default: runs/real)")
    options.add_argument("--json", type=Path, required=True, help="figures; texts are written beside it")
    options.add_argument("--questions", type=int, default=ON_CPU.questions, help="of four traces each (default: 16)")
    options.add_argument("--minutes", type=float, default=float("inf"), help="no question is begun that takes longer")
    options.add_argument(
        "--ahead", type=int, metavar="N", help="only solve the questions from number N (0 is the first) on"
    )
    options.add_argument("--tiny", action="store_true", help="tiny sizes, to try the script")
    return options


def prepare(args: argparse.Namespace, scale: Scale) -> None:
    """Put data and model where the instrument finds them, unless an earlier call has.

    Raises:
        UserError: no model there, the folder holds results of another model or of other sizes, or there is no question
            to solve ahead.
    """
    if args.ahead is not None and not 0 <= args.ahead < scale.questions:
        raise UserError(
            f"--ahead is {args.ahead}; of {scale.questions} questions give one from 0 to {scale.questions - 1}."
        )
    weights = sorted(args.model.glob("*.safetensors"))
    if not weights:
        raise UserError(f"{args.model} holds no model; `python -m experiments.real.fetch` makes {FOLDER}.")
    sizes = asdict(replace(scale, questions=0))
    settings = {"weights": [hashlib.sha256(each.read_bytes()).hexdigest() for each in weights], "sizes": sizes}
    settings = json.loads(json.dumps(settings))
    noted = args.work / "settings.json"
    if noted.exists() and json.loads(noted.read_text()) != settings:
        raise UserError(f"{args.work} holds results of another model or of other sizes; give another folder by --work.")
    args.work.mkdir(parents=True, exist_ok=True)
    if not noted.exists():
        split_data(args.data, args.work, scale.problems)
    model, link = args.model.resolve(), args.work / "base"
    if link.resolve() != model:  # else another process may be reading by it
        link.unlink(missing_ok=True)
        link.symlink_to(model)
    with atomic_write(noted) as file:
        json.dump(settings, file)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; returns the exit status, 1 where it was refused."""
    argv = sys.argv[1:] if argv is None else argv
    args = parser().parse_args(argv)
    args.device = "cpu"
    scale = TINY if args.tiny else replace(ON_CPU, questions=args.questions)
    try:
        prepare(args, scale)
    except UserError as error:
        say_error(error)
        return 1
    if args.ahead is not None:
        instrument.solve_ahead(args, scale, Record(args.work / "ahead.json", args.minutes * 60), args.ahead)
        return 0
    record = Record(args.work / "instrument.json", args.minutes * 60)
    instrument.measure(args, scale, record)
    record.end()
    head = provenance("cpu", argv, torch.get_num_threads(), ("torch", "transformers"))
    args.json.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(args.json) as file:
        file.write(json.dumps(finite({**head, "steps": {"instrument": record.as_dict()}}), indent=1) + "\n")
    texts = args.work / "traces.jsonl"
    if texts.exists():
        with atomic_write(args.json.with_suffix(".traces.jsonl")) as file:
            file.write(texts.read_text())
    print(json.dumps(record.as_dict(), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
