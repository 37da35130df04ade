"""`atmanrl export`: a checkpoint as a Hugging Face folder, or as one file that any number of processes can resume."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from atmanrl.commands.options.argparser import OptionParser
from atmanrl.commands.run import say_loading
from atmanrl.errors import UserError
from atmanrl.io import escape
from atmanrl.io.files import user_path


def main(args: Sequence[str]) -> int:
    """Export a checkpoint and return the exit status."""
    options = _parser().parse_args(args)
    if options.out.exists():
        raise UserError(f"{options.out} exists already; choose another --out.")
    if not options.ckpt.exists() and not options.ckpt.parent.is_dir():
        raise UserError(f"there is no checkpoint {options.ckpt}.")
    say_loading()
    from transformers.utils import logging as transformers_logging

    from atmanrl.commands.exporting import export_checkpoint, export_policy, policy_of

    transformers_logging.disable_progress_bar()
    path = _existing(options.ckpt)
    if options.out.suffix == ".ckpt":
        export_checkpoint(path, options.out)
    else:
        merge = None if options.merge_lora is None else options.merge_lora == "true"
        policy = policy_of(path, options.config, options.policy, merge, options.trust_remote_code)
        export_policy(path, options.out, policy, options.dtype)
    print(escape.terminal(f"{options.out} written."))
    return 0


def _existing(path: Path) -> Path:
    from atmanrl.checkpoint.files import checkpoint_path

    path = checkpoint_path(path)
    if not path.exists():
        raise UserError(f"there is no checkpoint {path}.")
    return path


def _parser() -> OptionParser:
    parser = OptionParser(
        prog="atmanrl export",
        description="Write the policy of a checkpoint, sharded or full, as a Hugging Face folder with its tokenizer. "
        "With --out NAME.ckpt a sharded checkpoint becomes one file, which can be resumed on any number of processes.",
    )
    parser.add_argument("--ckpt", type=user_path, required=True, help="RUN/checkpoints/NAME.ckpt, a file or a folder")
    parser.add_argument("--out", type=user_path, required=True, help="a new folder, or a file that ends in .ckpt")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), help="of the weights (default: as they are)"
    )
    parser.add_argument(
        "--merge_lora", choices=("true", "false"), help="merge adapters, or write them alone (default: as configured)"
    )
    parser.add_argument("--config", type=user_path, help="the run's config.yaml (default: RUN/config.yaml)")
    parser.add_argument(
        "--trust_remote_code", action="store_true", help="let code that comes with the model run (default: never)"
    )
    parser.add_argument("--policy", help="the model's folder, where it is no longer where the config says")
    return parser
