"""`atmanrl plan`: what a configuration takes on given devices. No weights are loaded."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from atmanrl.errors import UserError
from atmanrl.io.files import atomic_write, user_path
from atmanrl.plan.estimate import Plan, plan
from atmanrl.plan.hardware import Hardware, Lengths
from atmanrl.plan.settings import from_config
from atmanrl.plan.shape import read_config, shape_of
from atmanrl.plan.table import show
from atmanrl.plan.units import parse_bytes, parse_flops
from atmanrl.shipped import config_file

FLOPS_PER_BYTE = 295.0
"""FLOP/s for each byte/s of memory bandwidth where none is given: 989 TFLOP/s and 3.35 TB/s of an H100 SXM."""


def main(args: Sequence[str]) -> int:
    """Plan a run; returns the exit status."""
    given, overrides = _parser().parse_known_args(args)
    found = made(given, overrides)
    if given.json is not None:
        with atomic_write(given.json) as file:
            file.write(json.dumps(found.as_dict(), indent=2) + "\n")
    show(found, Console())
    return 0


def made(given: argparse.Namespace, overrides: Sequence[str]) -> Plan:
    """The plan of parsed options, and options of the run that override its config."""
    hardware = _hardware(given)
    lengths = Lengths(given.prompt_tokens, given.completion_tokens)
    if min(lengths.prompt, lengths.completion) < 1:
        raise UserError("--prompt_tokens and --completion_tokens must be at least 1.")
    settings = from_config(run_config(given.config, overrides))
    if given.problems is not None:
        settings = replace(settings, problems=given.problems)
    if settings.reinforcement and lengths.completion > settings.max_new_tokens:
        lengths = replace(lengths, completion=float(settings.max_new_tokens))
    config = read_config(settings.path, given.model_config, settings.revision, settings.trust_remote_code)
    return plan(shape_of(config, settings.lora), settings, hardware, lengths)


def run_config(paths: Sequence[Path], overrides: Sequence[str]) -> dict[str, Any]:
    """A `fit` configuration with all its defaults, read by the parser of `fit` itself.

    Raises:
        UserError: no such file.
    """
    for path in paths:
        if not path.is_file():
            raise UserError(f"--config: there is no file {path}.")
    from atmanrl.commands.libraries import quiet
    from atmanrl.commands.run import RunCLI

    class Read(RunCLI):
        """The command line up to where objects are made."""

        def instantiate_classes(self) -> None:
            """Nothing is made."""

        def _run_subcommand(self, subcommand: str) -> None:
            """Nothing is run."""

    quiet()
    found = Read(["fit", *(f"--config={path}" for path in paths), *overrides]).config
    config: dict[str, Any] = found["fit"].as_dict()
    return config


def _hardware(given: argparse.Namespace) -> Hardware:
    speed = parse_flops(given.flops, "--flops")
    bandwidth = parse_bytes(given.bandwidth, "--bandwidth") if given.bandwidth else speed / FLOPS_PER_BYTE
    return Hardware(
        given.devices, parse_bytes(given.memory, "--memory"), speed, bandwidth, parse_bytes(given.link, "--link"),
        given.efficiency, given.launch_us * 1e-6,
    )  # fmt: skip


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
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
    parser.add_argument("--bandwidth", help="of a device's memory, such as 3.35TB/s (default: one byte for 295 FLOPs)")
    parser.add_argument("--link", default="50GB/s", help="between devices (default: 50GB/s)")
    parser.add_argument("--efficiency", type=float, default=0.4, help="share of the FLOP/s reached (default: 0.4)")
    parser.add_argument("--launch_us", type=float, default=20.0, help="least time of a kernel, in us (default: 20)")
    parser.add_argument("--prompt_tokens", type=float, default=160.0, help="on average (default: 160)")
    parser.add_argument("--completion_tokens", type=float, default=250.0, help="on average (default: 250)")
    parser.add_argument("--problems", type=int, help="training problems, where the task does not say")
    parser.add_argument("--model_config", type=user_path, help="the model's config.json, in place of the hub's")
    parser.add_argument("--json", type=user_path, help="also write the figures to this file")
    return parser
