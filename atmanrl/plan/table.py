"""A plan in the terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from atmanrl.io import escape
from atmanrl.io.terminal import print_whole
from atmanrl.plan.estimate import USABLE, Plan, advice
from atmanrl.plan.units import bytes_text, seconds_text


def show(plan: Plan, console: Console) -> None:
    """Print parameters, memory, time, and whether it fits."""
    for table in (_parameters(plan), _memory(plan), _time(plan)):
        print_whole(console, table)
    for line in lines(plan):
        console.print(escape.terminal(line), markup=False, highlight=False, soft_wrap=True)


def lines(plan: Plan) -> list[str]:
    """Return the lines below the tables: whether it fits, advice, and assumptions."""
    hardware, lengths = plan.hardware, plan.lengths
    limit = bytes_text(hardware.memory_bytes)
    answer = [
        f"It {'fits' if plan.fits else 'DOES NOT FIT'}: at most {bytes_text(plan.peak)} of {limit} a device, of which "
        f"{USABLE:.0%} can be used."
    ]
    answer += [f"  - {hint}" for hint in advice(plan)]
    answer.append(
        f"Assumed: {lengths.prompt:g} prompt and {lengths.completion:g} completion tokens on average (memory: the longest "
        f"completions), {hardware.efficiency:.0%} of the FLOP/s in matrix products, "
        f"{bytes_text(hardware.bandwidth_bytes_per_second)}/s from memory"
        + (f", {bytes_text(hardware.link_bytes_per_second)}/s between devices." if hardware.devices > 1 else ".")
    )
    return [*answer, *(f"Not counted: {note}." for note in plan.settings.notes)]


def _parameters(plan: Plan) -> Table:
    model = plan.model
    table = Table("parameters", title=f"{model.name}, {plan.settings.path}", title_justify="left")
    table.add_column("", justify="right")
    for name, count in {
        "embedding": model.embedding_parameters, f"{model.layers} layers": model.layer_parameters,
        "head": model.head_parameters, "other": model.other_parameters, "adapters": model.adapter_parameters,
        "trainable": model.trainable_parameters,
    }.items():  # fmt: skip
        table.add_row(name, f"{count:,}" if count or name != "head" else "shared with the embedding")
    return table


def _memory(plan: Plan) -> Table:
    return _sections(
        "memory of a device",
        {name: bytes_text(size) for name, size in plan.memory_by_part.items()},
        {f"most during {name}": bytes_text(size) for name, size in plan.peak_by_phase.items()},
    )


def _time(plan: Plan) -> Table:
    phases = {name: seconds_text(seconds) for name, seconds in plan.seconds_by_phase.items()}
    update = {"together": seconds_text(plan.update_seconds), "tokens": f"{plan.tokens_per_update:,.0f}"}
    if plan.updates is None or plan.run_seconds is None or plan.gpu_hours is None:
        return _sections("time of an update", phases, update)
    run = {
        "updates of the run": f"{plan.updates:,}", "tokens of the run": f"{plan.updates * plan.tokens_per_update:,.0f}",
        "time of the run": seconds_text(plan.run_seconds), "GPU-hours": f"{plan.gpu_hours:,.1f}",
    }  # fmt: skip
    return _sections("time of an update", phases, update, run)


def _sections(title: str, *sections: Mapping[str, str]) -> Table:
    """Return a table of names and quantities, with a line between sections."""
    table = Table(title, title_justify="left")
    table.add_column("", justify="right")
    for section in sections:
        for name, quantity in section.items():
            table.add_row(name, quantity)
        table.add_section()
    return table
