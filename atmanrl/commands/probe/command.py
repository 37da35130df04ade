"""The command itself: options, settings, and the loop over batches."""

from __future__ import annotations

import json
import shlex
import sys
import time
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ActionYesNo
from rich.console import Console

from atmanrl.commands.errors import INTERRUPTED
from atmanrl.commands.libraries import quiet
from atmanrl.commands.parser import RunParser
from atmanrl.commands.probe import results
from atmanrl.commands.probe.folder import COMMAND, Folder, content
from atmanrl.commands.probe.progress import TraceProgress
from atmanrl.commands.probe.stored_traces import StoredTrace, StoredTraces
from atmanrl.errors import UserError
from atmanrl.io import escape
from atmanrl.io.files import user_path
from atmanrl.io.folders import locked
from atmanrl.io.terminal import say_end, say_note
from atmanrl.models.devices import DtypeName, check_device, choose_device, choose_dtype, cudnn_attention
from atmanrl.models.policy import Policy
from atmanrl.probe import MaskProbe, PaperSolver
from atmanrl.probe.reference_check import check_possible, spread_over
from atmanrl.rollouts import DelimiterSplitter, Splitter
from atmanrl.rollouts.split import splitter_of
from atmanrl.rollouts.trace_rows import Fields
from atmanrl.shipped import located
from atmanrl.tasks import DELIMITER

UNPROBED = {"skipped": "skipped", "without_saliency": "no saliency:"}
"""Traces that were not probed: their key in `summary.json`, and what the terminal says of each."""

LISTED = 20
"""Most traces of either kind that the terminal lists; `summary.json` has them all."""

DESCRIPTION = """Measure the saliency of stored traces: how much each token of the reasoning matters to the gold answer.
Writes traces.jsonl, summary.json and index.html into a folder. A run that was interrupted or killed goes on when the
same command is given again."""


def main(args: list[str]) -> int:
    """Probe stored traces, and return the exit status: 130 where the user interrupts.

    Raises:
        UserError: the folder holds results of other settings, or the traces or the model cannot be used.
    """
    quiet()
    parser = _parser()
    options = parser.parse_args(args)
    if options.batch_size < 1:
        raise UserError(f"--batch_size is {options.batch_size}; give at least 1.")
    if options.limit is not None and options.limit < 1:
        raise UserError(f"--limit is {options.limit}; give at least 1.")
    check_device(options.device)
    instances = parser.instantiate(options)
    check_possible(instances.probe, options.check, "--check")
    splitter = None if instances.delimiter is None else splitter_of(instances.delimiter)
    command = ["atmanrl", "probe", *args]
    folder = None
    try:
        options.out = user_path(str(options.out))
        path = user_path(options.traces)
        if path.is_dir() and path.resolve() == options.out.resolve():
            raise UserError(f"--out is the folder of the traces, {path}; choose another one.")
        stored = StoredTraces(path, options.limit, options.skip_bad_rows, splitter, instances.fields)
        if stored.taken:
            say_note(stored.taken)
        folder = Folder(options.out, _settings(parser, options, stored), _defaults(parser, instances.probe))
        if not folder.finished:
            with locked(options.out, COMMAND):
                _run(options, instances.probe, stored, folder, command)
        _say(folder)
    except KeyboardInterrupt:
        say_end(f"interrupted; this goes on where it stood: {shlex.join(command)}")
        return INTERRUPTED
    return 0


def _parser() -> RunParser:
    parser = RunParser(prog="atmanrl probe", description=DESCRIPTION)
    parser.add_argument("--model", type=str, required=True, help="a Hugging Face folder or a name on the hub")
    parser.add_argument(
        "--traces", type=str, required=True,
        help="a file of JSONL, JSON or Parquet, or a folder of such files, with prompt, gold (or answer), and cot or a "
        "whole completion with its delimiter; GSM8K's rows, chats, TRL's completions and lm-eval's samples are recognised",
    )  # fmt: skip
    parser.add_argument(
        "--delimiter", type=Splitter | str, default=None,  # None as a type would take ##### for a comment of YAML
        help="between reasoning and answer, in rows that do not name theirs: a text, or a Splitter by its class path; "
        "without it #####, \\boxed{}, ####, 'The answer is' and </think> are recognised",
    )  # fmt: skip
    parser.add_class_arguments(Fields, "fields")
    parser.add_argument("--out", type=Path, required=True, help="folder for traces.jsonl, summary.json and index.html")
    parser.add_argument("--limit", type=int | None, default=None, help="probe only the first so many traces")
    parser.add_argument(
        "--skip_bad_rows", action=ActionYesNo, nargs="?", default=False,
        help="leave out rows that cannot be probed, instead of stopping at the first",
    )  # fmt: skip
    parser.add_argument("--batch_size", type=int, default=64, help="traces that are probed, and written, together")
    parser.add_argument(
        "--check", type=int | None, default=None,
        help="solve so many traces by the paper's solver, too, and tell how well the two agree",
    )  # fmt: skip
    parser.add_argument(
        "--device",
        type=str,
        default="auto",
        help="cpu, cuda, cuda:1, mps; auto: a CUDA GPU where there is one, else the CPU",
    )
    parser.add_argument(
        "--dtype", type=DtypeName, default="auto",
        help="of the weights; auto: float32, and bfloat16 on a GPU that has it for weights that are stored so",
    )  # fmt: skip
    skipped = {"path", "pretrained", "dtype", "activation_checkpointing"}
    parser.add_class_arguments(Policy, "policy", skip=skipped, instantiate=False)
    parser.add_class_arguments(MaskProbe, "probe", skip={"policy", "keep_masks"})
    parser.add_argument("-c", "--config", action="config", help="a YAML file with these options")
    return parser


def _settings(parser: RunParser, options: Any, stored: StoredTraces) -> dict[str, Any]:
    """Return all options that the results depend on, with hashes of the traces and of a local model."""
    settings: dict[str, Any] = json.loads(parser.dump(options, format="json"))
    settings = {name: value for name, value in settings.items() if name not in ("out", "config")}
    if "delimiter" not in settings:  # values that are None are not dumped
        settings["delimiter"] = _class_path(stored.splitter)
    if settings["delimiter"] == DELIMITER:  # it leaves no note in traces either
        del settings["delimiter"]
    model = Path(located(options.model))
    settings["traces_sha256"] = content(*stored.files.files)
    settings["model_sha256"] = content(model) if model.is_dir() else None
    return settings


def _defaults(parser: RunParser, probe: MaskProbe) -> dict[str, Any]:
    """Return what stands for each option that a folder of an earlier version does not have."""
    given = json.loads(parser.dump(parser.get_defaults(), format="json"))
    solver = {name: each.default for name, each in signature(type(probe.solver)).parameters.items()}
    return {**given, "probe.solver.init_args": solver}


def _class_path(splitter: Splitter) -> str | dict[str, str]:
    """Return a recognised splitter as the option `--delimiter` is recorded: its text, or its class."""
    if isinstance(splitter, DelimiterSplitter):
        return splitter.opening
    return {"class_path": f"{type(splitter).__module__}.{type(splitter).__qualname__}"}


def _run(options: Any, probe: MaskProbe, stored: StoredTraces, folder: Folder, command: list[str]) -> None:
    """Probe what is left, and finish the folder."""
    size = options.batch_size
    expected = stored.lines
    if folder.progress:
        folder.check("traces", stored.total)
        unprobed = {row["line"] for name in UNPROBED for row in folder.progress[name]}
        expected = [line for line in stored.lines if line not in unprobed]
    if folder.part.exists() and folder.valid(size, expected) == len(expected):
        folder.rewind(size, expected)
    else:
        policy, device = Policy(options.model, **options.policy), choose_device(options.device)
        policy.dtype_name = choose_dtype(options.dtype, device, policy)
        policy.build().to(device)
        usable = stored.probeable(policy, probe)
        folder.begin(stored.skipped, stored.without_saliency, stored.total, str(device), policy.dtype_name)
        done = folder.rewind(size, [trace.line for trace in usable])
        if not usable:
            folder.append([], 0.0)
        checked = _checked(usable, options.check)
        with TraceProgress(len(usable), done) as bar, cudnn_attention(policy.cudnn_attention):
            for start in range(done, len(usable), size):
                began, batch = time.perf_counter(), usable[start : start + size]
                torch.manual_seed(start)  # a user's solver may draw random numbers: the same ones after a restart
                result = probe.solve_targets(policy, [trace.target for trace in batch])
                reference = _reference(probe, policy, batch, checked)
                seconds = time.perf_counter() - began
                folder.append(list(results.to_json(batch, result, policy.tokenizer, reference)), seconds)
                bar.advance(len(batch), seconds, f"saliency {float(result.reward.nanmean()):.3f}")
    assert folder.progress is not None
    summary = {"traces": folder.progress["traces"], **results.metrics(folder.done())}
    summary |= {**{name: folder.progress[name] for name in UNPROBED}, "settings": folder.settings}
    summary |= {"versions": results.versions(), "command": command}
    summary |= {name: folder.progress[name] for name in ("device", "dtype")}
    if options.check is not None and (check := results.check(folder.done())) is not None:
        summary["check"] = {**check.as_dict(), "sentence": str(check)}
    summary["seconds"] = round(folder.progress["seconds"], 3)
    folder.finish(summary, results.to_page(folder.done(), summary))
    folder.progress = summary


def _checked(usable: list[StoredTrace], count: int | None) -> set[int]:
    """Return the lines of the traces that the paper's solver solves, too."""
    if count is None:
        return set()
    if count > len(usable):
        say_note(f"--check asks for {count} traces, and {len(usable)} can be probed: all of them are checked.")
    return {usable[place].line for place in spread_over([trace.target.prompt_ids for trace in usable], count)}


def _reference(
    probe: MaskProbe, policy: Policy, batch: list[StoredTrace], checked: set[int]
) -> dict[int, tuple[float, list[float]]]:
    """Return reward and saliency by the paper's solver, by line, of those traces of a batch that are checked."""
    chosen = [trace for trace in batch if trace.line in checked]
    if not chosen:
        return {}
    result = probe.solve_targets(policy, [trace.target for trace in chosen], PaperSolver.reference(probe.solver))
    pairs = zip(result.reward.tolist(), result.saliency, strict=True)
    return {trace.line: (reward, saliency or []) for trace, (reward, saliency) in zip(chosen, pairs, strict=True)}


def _say(folder: Folder) -> None:
    """Print what a finished folder holds."""
    summary = folder.progress
    assert summary is not None
    console = Console(file=sys.stdout)
    for name, said in UNPROBED.items():
        lines = [f"{said} line {row['line']}: {row['reason']}" for row in summary[name]]
        if len(lines) > LISTED:
            lines[LISTED:] = [f"... {len(lines) - LISTED} more: {folder.summary}"]
        for line in lines:
            console.print(escape.terminal(line), highlight=False, markup=False, soft_wrap=True)
    if check := summary.get("check"):
        console.print(escape.terminal(f"check: {check['sentence']}"), highlight=False, markup=False, soft_wrap=True)
    mean, spread = summary["saliency"]["mean"], summary["saliency"]["std"]
    text = f"All done: {summary['probed']} of {summary['traces']} traces probed"
    if summary["without_saliency"]:
        text += f", {len(summary['without_saliency'])} without a saliency"
    if mean is not None:
        text += f", mean saliency {mean:.4f}" + (f" (standard deviation {spread:.4f})" if spread is not None else "")
    console.print(escape.terminal(f"{text}: {folder.page}"), highlight=False, markup=False, soft_wrap=True)
