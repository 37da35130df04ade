"""With which settings some runs were trained, from their `config.yaml`: what matters most, and in what they differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from atmanrl.report.runs import Run

SHOWN = {
    "policy": "model.policy.path",
    "updates": "trainer.max_steps",
    "problems of an update": "data.queries_per_device",
    "completions of each": "data.group_size",
    "most tokens": "data.max_new_tokens",
    "learning rate": "model.optimizer.lr",
    "seed": "data.seed",
}
"""What is told of settings that all runs share."""
_PLACES = ("trainer.default_root_dir", "ckpt_path", "trainer.logger")
_STRUCTURE = ("init_args", "class_path")
_MOST = 6


def settings_sentences(runs: Sequence[Run]) -> list[str]:
    """Return what the runs share of `SHOWN`, and the keys in which their configs differ; none where no config tells."""
    configs = {run.name: dict(_leaves(_config(run), ())) for run in runs}
    configs = {name: config for name, config in configs.items() if config}
    if not configs:
        return []
    values = {key: [config.get(key) for config in configs.values()] for each in configs.values() for key in each}
    shared = [
        f"{name} {values[key][0]}"
        for name, key in SHOWN.items()
        if key in values and all(value == values[key][0] for value in values[key])
    ]
    sentences = [f"Settings of {', '.join(configs)}: {', '.join(shared)}."] if shared else []
    differing = [key for key, each in values.items() if any(v != each[0] for v in each) and not key.startswith(_PLACES)]
    parts = _outermost(differing, configs)
    if len(configs) > 1:
        more = f" and {len(parts) - _MOST} more" if len(parts) > _MOST else ""
        sentences.append(
            f"They differ in {', '.join(parts[:_MOST])}{more}."
            if parts
            else "Their settings do not differ, but for their folders."
        )
    return sentences


def _config(run: Run) -> Any:
    path = run.folder / "config.yaml"
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8", errors="replace")) if path.is_file() else None
    except yaml.YAMLError:
        return None  # a report does not depend on it


def _leaves(node: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """Yield every value by its key as it is typed; a class stands at its object's own key."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _leaves(value, path if key in _STRUCTURE else (*path, str(key)))
    elif path:
        yield ".".join(path), node


def _outermost(keys: Sequence[str], configs: dict[str, dict[str, Any]]) -> list[str]:
    """Return keys, a whole object in place of its options where one of the runs has none of them."""
    shortened: dict[str, None] = {}
    for key in keys:
        parts = key.split(".")
        prefixes = [".".join(parts[:size]) for size in range(1, len(parts) + 1)]
        missing = next(
            (p for p in prefixes if not all(any(k == p or k.startswith(f"{p}.") for k in c) for c in configs.values())),
            key,
        )
        shortened[missing] = None
    return list(shortened)
