"""`atmanrl plan`: what a configuration takes on given devices. No weights are loaded."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from atmanrl.commands.options.argparser import OptionParser
from atmanrl.commands.options.sections import kinds
from atmanrl.commands.run import prepared, say_loading
from atmanrl.errors import UserError, did_you_mean
from atmanrl.io.files import atomic_write, user_path
from atmanrl.plan.hardware import CPU, GPU, Hardware, Lengths
from atmanrl.plan.units import parse_bytes, parse_flops
from atmanrl.shipped import config_file, configs, located

if TYPE_CHECKING:
    from atmanrl.plan.estimate import Plan


def main(args: Sequence[str]) -> int:
    """Plan a run; return the exit status."""
    parser = _parser()
    options, overrides = parser.parse_known_args(args)
    of_fit = [f"--{name}" for name in kinds("fit")]
    parser.refuse([each for each in overrides if not each.startswith((*of_fit, "-c"))][:1], of_fit)
    planned = plan_of(options, overrides)
    from rich.console import Console

    from atmanrl.plan.table import show

    if options.json is not None:
        with atomic_write(options.json) as file:
            file.write(json.dumps(planned.as_dict(), indent=2) + "\n")
    show(planned, Console())
    return 0


def plan_of(options: argparse.Namespace, overrides: Sequence[str]) -> Plan:
    """Return the plan that a command asks for.

    Args:
        options: of `atmanrl plan`.
        overrides: options of `atmanrl fit`, which override its config.

    Raises:
        UserError: an option or the config cannot be used, or `fit` would refuse it.
    """
    lengths = Lengths(options.prompt_tokens, options.completion_tokens)
    if min(lengths.prompt, lengths.completion) < 1:
        raise UserError("--prompt_tokens and --completion_tokens must be at least 1.")
    for path in options.config:
        if not path.is_file():
            hint = did_you_mean(str(path), configs())
            raise UserError(f"--config: there is no file {path}{f'; {hint}' if hint else '.'}")
    _hardware(options, None)  # refuses what cannot be, before anything is imported
    _, of_fit = prepared("fit", [*(f"--config={path}" for path in options.config), *overrides], begins=False)
    say_loading()
    from atmanrl.commands.planned_run import PlannedRun
    from atmanrl.models.loading import Source
    from atmanrl.plan.estimate import plan
    from atmanrl.plan.settings import settings_of
    from atmanrl.plan.shape import read_config, shape_of

    run = PlannedRun(of_fit)
    hardware = _hardware(options, run.accelerator)
    settings, policy = settings_of(run.model, run.datamodule, run.trainer, run.strategy), run.model.policy
    if options.problems is not None:
        settings = replace(settings, problems=options.problems)
    if settings.reinforcement and lengths.completion > settings.max_new_tokens:
        lengths = replace(lengths, completion=float(settings.max_new_tokens))
    trusted = policy.trust_remote_code
    source = Source(located(policy.path), revision=policy.revision, trust_remote_code=trusted)
    shape = shape_of(read_config(source, options.model_config), policy.lora, trusted)
    return plan(shape, settings, hardware, lengths)


def _hardware(options: argparse.Namespace, accelerator: object) -> Hardware:
    kind = CPU if accelerator == "cpu" else GPU
    speed = parse_flops(options.flops, "--flops")
    bandwidth = (
        speed / kind.flops_per_byte if options.bandwidth is None else parse_bytes(options.bandwidth, "--bandwidth")
    )
    launch = kind.launch_seconds if options.launch_us is None else options.launch_us * 1e-6
    return Hardware(
        options.devices, parse_bytes(options.memory, "--memory"), speed, bandwidth, parse_bytes(options.link, "--link"),
        kind.efficiency if options.efficiency is None else options.efficiency, launch, kind.overlaps, kind.probe_efficiency,
    )  # fmt: skip


def _parser() -> OptionParser:
    parser = OptionParser(
        prog="atmanrl plan", usage="atmanrl plan --config FILE --devices N --memory 80GB --flops 989T [options]",
        description="Parameters, memory by part, time by phase, tokens and GPU-hours of a run, from its config and the "
        "model's configuration alone. Options of `atmanrl fit` override the config: --model.policy.path=...",
        allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument(
        "-c", "--config", type=lambda name: user_path(config_file(name)), action="append", required=True,
        help="of `atmanrl fit`",
    )  # fmt: skip
    parser.add_argument("--devices", type=int, required=True, help="how many, over all nodes")
    parser.add_argument("--memory", required=True, help="of a device, such as 80GB or 80GiB")
    parser.add_argument("--flops", required=True, help="FLOP/s of a device without sparsity, such as 989T (H100, bf16)")
    parser.add_argument("--bandwidth", help="of a device's memory, such as 3.35TB/s (default: by the FLOP/s)")
    parser.add_argument("--link", default="50GB/s", help="between devices (default: 50GB/s)")
    parser.add_argument(
        "--efficiency",
        type=float,
        help=f"share of the FLOP/s reached (default: {GPU.efficiency}; CPU {CPU.efficiency})",
    )
    launches = f"{GPU.launch_seconds * 1e6:.0f}; CPU {CPU.launch_seconds * 1e6:.0f}"
    parser.add_argument("--launch_us", type=float, help=f"least time of a kernel, in us (default: {launches})")
    parser.add_argument("--prompt_tokens", type=float, default=160.0, help="on average (default: 160)")
    parser.add_argument("--completion_tokens", type=float, default=250.0, help="on average (default: 250)")
    parser.add_argument("--problems", type=int, help="training problems, where the task does not say")
    parser.add_argument("--model_config", type=user_path, help="the model's config.json, in place of the hub's")
    parser.add_argument("--json", type=user_path, help="also write the plan to this file")
    return parser
