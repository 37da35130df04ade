"""`--help` on one screen, and `--data.help` for the options of one object, with defaults from the source."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

from atmanrl.commands.options.errors import OptionError, did_you_mean
from atmanrl.commands.options.sections import DEFAULTS, defaults_of, kinds
from atmanrl.commands.options.signatures import Kind, Signature, constant, is_abstract, signature
from atmanrl.commands.options.source import find, subclasses
from atmanrl.commands.options.typed import Node, pairs, read
from atmanrl.shipped import configs

ALL = "--help_all"
WIDTH = 118


class Entry(NamedTuple):
    """An option on the screen.

    Attributes:
        example: as it may be typed.
        about: what it is.
        default: what it is without; None takes that of the signature.

    Example:
        `Entry("--data.group_size=8", "rollouts of each problem", None)`
    """

    example: str
    about: str
    default: str | None = None


POLICY = Entry(
    "--model.policy.path=Qwen/Qwen2.5-0.5B-Instruct", "a folder in Hugging Face format, or a name on the hub", "needed"
)
TASK = Entry("--data.task=GSM8K", "one of GSM8K, MMLU, MixtureTask, MultiHop, WordProblems, or your own", "needed")
FOLDER = Entry("--trainer.default_root_dir=runs/mine", "the run's folder", "runs/unnamed")
TOKENS = Entry("--data.max_new_tokens=512", "longest completion; longer ones are cut off, and count as wrong")
SAMPLES = Entry("--data.eval_samples=4", "completions of each problem: pass@1 to pass@4")
WEIGHTS = Entry("--ckpt_path=runs/mine/checkpoints/last.ckpt", "takes a checkpoint's weights", "the policy's own")
SCREENS = {
    "fit": (
        "Train a policy: by GRPO, or with --model=SFTModule by worked solutions.",
        POLICY, TASK,
        Entry("--model.rewards.saliency=SaliencyReward", "adds a reward, by any name", "outcome alone"),
        Entry("--model.rewards.saliency.weight=0.5", "a reward's weight in the total", "1.0"),
        Entry("--model.rewards.saliency.probe.solver=AdaptiveSolver", "a sixth of the gradients of `paper`", "paper"),
        Entry("--model.rewards.saliency.probe.solver.tolerance=0.007", "of AdaptiveSolver: coarser is faster", "0.001"),
        Entry("--model.optimizer=AdamW", "any optimizer of torch.optim, with its options, such as ...", "AdamW"),
        Entry("--model.optimizer.lr=1e-6", "learning rate", "8e-7"),
        Entry("--trainer.max_steps=100", "updates; or epochs: --trainer.max_epochs=5", "1000 epochs"),
        Entry("--data.queries_per_device=8", "problems of an update"),
        Entry("--data.group_size=8", "completions of each problem"),
        TOKENS,
        Entry("--trainer.val_check_interval=20", "updates between evaluations", "an epoch"),
        FOLDER,
        Entry("--ckpt_path=last", "goes on with the run in that folder", "a new run"),
    ),
    "validate": (
        "Score problems that are held out of the training split.",
        POLICY, TASK, Entry("--data.val_problems=100", "how many"), SAMPLES, TOKENS, WEIGHTS, FOLDER,
    ),
    "test": (
        "Evaluate on test problems, as in the paper.",
        POLICY, TASK, Entry("--data.test_problems=500", "how many"), SAMPLES, TOKENS,
        Entry("--data.temperature=1.0", "of sampling"), WEIGHTS, FOLDER,
    ),
    "predict": (
        "Write rollouts of test problems with all their rewards.",
        POLICY, TASK, Entry("--data.test_problems=500", "how many"), SAMPLES, TOKENS,
        Entry("--model.rewards.saliency=SaliencyReward", "adds a reward", "outcome alone"), WEIGHTS, FOLDER,
    ),
}  # fmt: skip
"""What each command does, and its options that people change."""


def help_text(command: str, args: Sequence[str]) -> str | None:
    """Return the help that the arguments ask for; None where they ask for none, or only the parser has it.

    Raises:
        OptionError: an option without a place is asked for.
    """
    for option, text in pairs(args):
        if option.endswith(".help") and option.startswith("--"):
            return _of_object(command, args, option[2:].removesuffix(".help").split("."), text)
    if not {"-h", "--help"} & set(args):
        return None
    root = read([each for each in args if each not in ("-h", "--help")])
    about, *entries = SCREENS[command]
    rows = [_row(entry, root, command) for entry in entries if isinstance(entry, Entry)]
    example = "laptop --trainer.max_steps=20" if command == "fit" else "laptop --model.policy.path=runs/laptop/policy"
    shipped = ", ".join(name for name in configs() if "/" not in name)
    values = "the config's value" if any(option in ("-c", "--config") for option, _ in pairs(args)) else "the default"
    return "\n".join([
        f"usage: atmanrl {command} [--config NAME] [--OPTION=VALUE ...]", "", f"{about}", "",
        f"  --config=NAME  a YAML file, or one that comes along: {shipped}", "",
        f"Options that people change, with an example and, in brackets, {values}:", "", *rows, "",
        f"  atmanrl {command} --config {example}", "",
        f"  atmanrl {command} --data.task.help      a choice and its options; so for every other option that has some",
        f"  atmanrl {command} --help_all            every option, Lightning's included",
        f"  atmanrl {command} --config laptop --print_config   every value",
    ])  # fmt: skip


def _row(entry: Entry, root: Node, command: str) -> str:
    path = entry.example[2:].partition("=")[0].split(".")
    value = _shown(root.at(*path)) or entry.default or _default_of(command, path)
    left = f"  {entry.example}"
    gap = " " * (45 - len(left)) if len(left) < 45 else f"\n{' ' * 45}"
    return f"{left}{gap} [{value}] {entry.about}"


def _shown(node: Node | None) -> str | None:
    """Return what a command sets an option to."""
    if node is None or (node.value is None and node.class_path is None):
        return None
    return str(node.class_path or node.value).rpartition("." if node.class_path else "\0")[2]


def _default_of(command: str, path: Sequence[str]) -> str:
    kind: Kind | None = kinds(command)[path[0]]
    default: object = None
    class_path = DEFAULTS.get(path[0])
    for name in path[1:]:
        takes = signature(kind.class_names[class_path] if kind and class_path else (kind.classes[0] if kind else ""))
        parameter = takes.parameters[name]
        kind, class_path = parameter.kind, None
        default = constant(takes.path.rpartition(".")[0], parameter.default)
    return str(default)


def _of_object(command: str, args: Sequence[str], path: list[str], chosen: str | None) -> str | None:
    """Return the options of one object, or the objects among which there is a choice."""
    root = read([each for each in args if not each.partition("=")[0].endswith(".help") and each != chosen])
    for name, class_path in defaults_of(root).items():
        root.set((name,), class_path, "")
    kind, node = kinds(command).get(path[0]), root.at(path[0])
    if kind is None:
        hint = did_you_mean(path[0], kinds(command), "--", ".help") or ""
        raise OptionError(f"--{'.'.join(path)}.help: there is no option {path[0]!r}; {hint}")
    for depth, name in enumerate(path[1:], start=1):
        if kind.values is not None:
            kind = kind.values
        else:
            takes = _taken(kind, node)
            if takes is None:
                return None
            if name not in takes.parameters:
                before = f"--{'.'.join(path[:depth])}."
                hint = (
                    did_you_mean(name, takes.parameters, before, ".help") or f"options: {', '.join(takes.parameters)}."
                )
                raise OptionError(f"--{'.'.join(path)}.help: {takes.name} has no option {name!r}; {hint}")
            kind = takes.parameters[name].kind
        node = None if node is None else node.at(name)
    if chosen is not None:
        node = Node(class_path=chosen)
    takes = _taken(kind, node)
    option = f"--{'.'.join(path)}"
    if takes is not None and takes.known:
        return _options(takes, option)
    named = {name: each for name, each in kind.class_names.items() if not subclasses(each)}
    return _choice(option, named) if named and chosen is None else None


def _taken(kind: Kind, node: Node | None) -> Signature | None:
    """Return what the object at an option takes, by the class that is named or the only one there is."""
    if node is not None and node.class_path:
        path = node.class_path if "." in node.class_path else kind.class_names.get(node.class_path, "")
        return signature(path) if find(path) is not None else None
    return signature(kind.classes[0]) if len(kind.classes) == 1 and _is_all(kind) else None


def _is_all(kind: Kind) -> bool:
    return find(kind.classes[0]) is not None and not is_abstract(kind.classes[0])


def _options(takes: Signature, option: str) -> str:
    lines = [f"{option}: {takes.name} ({takes.path})", *textwrap.wrap(takes.doc, WIDTH), ""]
    for parameter in takes.parameters.values():
        default = "needed" if parameter.default is None else constant(takes.path.rpartition(".")[0], parameter.default)
        head = f"  {option}.{parameter.name}  [{'null' if default is None else default}]"
        lines += [
            head,
            *textwrap.wrap(
                _about(parameter.doc, parameter.kind), WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6
            ),
        ]
    return "\n".join(lines)


def _about(doc: str, kind: Kind) -> str:
    names = [name for name, path in kind.class_names.items() if not subclasses(path)]
    more = [f"One of {', '.join(map(str, kind.choices))}."] if kind.choices and not kind.classes else []
    if len(names) > 1 and kind.known:
        more.append(f"Classes: {', '.join(names)}.")
    return " ".join([doc, *more])


def _choice(option: str, named: dict[str, str]) -> str:
    rows = [f"  {name:<24} {signature(path).doc}" for name, path in named.items()]
    return "\n".join(
        [
            f"{option}: one of",
            *rows,
            "",
            f"{option}.help=NAME lists the options of one; yours is named with its module.",
        ]
    )
