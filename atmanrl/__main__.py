"""The entry point. It answers `--help` and `--version` at once, before torch and Lightning are imported."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable

from atmanrl import __version__
from atmanrl.commands.errors import run
from atmanrl.commands.options.help import ALL, PLAIN, help_text
from atmanrl.commands.options.plain import check_plain
from atmanrl.commands.run import say_loading
from atmanrl.errors import UserError, did_you_mean
from atmanrl.io.jsonl import is_text
from atmanrl.io.terminal import say_error

COMMANDS = {
    "fit": "train: GRPOModule by default, SFTModule for a warm start, as the config says",
    "validate": "score training problems that are held out",
    "test": "the paper's evaluation on test problems",
    "predict": "write rollouts with all their rewards",
    "explain": "let a model answer a question, and show which tokens of its reasoning matter",
    "probe": "measure the saliency of stored traces",
    "export": "write a checkpoint's policy as a Hugging Face folder, or a sharded checkpoint as one file",
    "plan": "memory, time and GPU-hours of a run, before a machine is rented for it",
    "sweep": "run many trials over a space of options, and go on with them after an interruption",
    "configs": "list the configurations that come with the package, or copy one to edit",
    "table": "print Table 1 for finished runs",
    "report": "write Table 1, figures and a page to look at for finished runs",
}

LIGHTNING = ("fit", "validate", "test", "predict")
"""Commands that Lightning's own command line carries out."""
RUNS_A_MODEL = (*LIGHTNING, "explain", "probe")
"""Commands that run a model, with whatever a user plugs in."""

HELP = """usage: atmanrl COMMAND [options]

Train language models whose chain of thought really drives the answer.

commands:
{commands}

  atmanrl fit --config laptop                     train the laptop policy
  atmanrl fit --config laptop --print_config      the config with every value
  atmanrl COMMAND --help                          the options of a command

Every value of a config can be overridden: --model.rewards.saliency.weight=0.5
"""


ALLOCATOR = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
"""What configures PyTorch's allocator of CUDA memory, and its older name, which PyTorch looks at first."""


def grow_in_place() -> None:
    """Let blocks of CUDA memory grow in place, unless the user has configured the allocator.

    The sampler's keys and values grow all the time. Without this every size leaves blocks behind that fit nothing else.
    PyTorch reads the variable when it first allocates, and on Linux alone can do so.
    """
    if sys.platform == "linux" and not any(name in os.environ for name in ALLOCATOR):
        os.environ[ALLOCATOR[0]] = "expandable_segments:True"


def main(args: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    words = sys.argv[1:] if args is None else args
    return run(lambda: _command(words))


def _command(args: list[str]) -> int:
    if odd := next((word for word in args if not is_text(word)), None):
        raise UserError(f"the argument {odd} is not UTF-8, in which a run's files are written; rename what it names.")
    if not args or args[0] in ("-h", "--help"):
        print(HELP.format(commands="\n".join(f"  {name:<10}{text}" for name, text in COMMANDS.items())))
        return 0 if args else 2
    if args[0] in ("-V", "--version"):
        print(f"atmanrl {__version__}")
        return 0
    if args[0] not in COMMANDS:
        hint = did_you_mean(args[0], COMMANDS)
        say_error(f"no command {args[0]!r}; {f'{hint} ' if hint else ''}Choose one of {', '.join(COMMANDS)}.")
        return 2
    if args[0] in RUNS_A_MODEL:
        if os.getcwd() not in sys.path:
            # a user's own tasks and rewards lie here, and `python -m atmanrl` would find them too
            sys.path.append(os.getcwd())
        grow_in_place()
    if args[0] in LIGHTNING:
        return _main_of("run")(args)
    if args[0] in PLAIN:
        text = help_text(args[0], args[1:])
        if text is not None:
            print(text)
            return 0
        if ALL not in args:
            check_plain(args[0], args[1:])
        say_loading()
        args = ["--help" if word == ALL else word for word in args]
    return _main_of(args[0])(args[1:])


def _main_of(name: str) -> Callable[[list[str]], int]:
    """The `main` of a module of `atmanrl.commands`, which is imported only now: torch takes seconds."""
    main: Callable[[list[str]], int] = importlib.import_module(f"atmanrl.commands.{name}").main
    return main


if __name__ == "__main__":
    sys.exit(main())
