"""`atmanrl configs`: list the configurations that come with the package, or copy some into a folder of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from atmanrl.commands.options.argparser import OptionParser
from atmanrl.errors import UserError, did_you_mean
from atmanrl.io import escape
from atmanrl.io.files import atomic_write, user_path
from atmanrl.shipped import configs, located, needs


def main(args: Sequence[str]) -> int:
    """List or copy configurations; return the exit status.

    Raises:
        UserError: there is no configuration of that name, or the file that would be written exists.
    """
    options = _parser().parse_args(args)
    if options.action is None:
        print(_listing())
        return 0
    for target, text, paths in [_copy(name, options.to) for name in dict.fromkeys(options.names)]:
        with atomic_write(target) as file:
            file.write(text)
        print(escape.terminal(f"{target} written."))
        for path in paths:
            place = located(path)
            missing = "" if Path(place).exists() else " is missing: it comes with the repository alone"
            print(escape.terminal(f"  it names {path}{missing or f', found at {place}'}."))
    return 0


def _listing() -> str:
    files = configs()
    if not files:
        raise UserError(
            "this installation holds no configurations; install atmanrl anew, or take them from the repository."
        )
    width = max(map(len, files)) + 2
    lines = [f"{name:<{width}}{_first_comment(file)}" for name, file in files.items()]
    return "\n".join([*lines, "", "atmanrl configs copy NAME writes a copy to edit; --config NAME takes it as it is."])


def _first_comment(file: Path) -> str:
    line = file.read_text(encoding="utf-8").split("\n", 1)[0]
    return line.removeprefix("#").strip() if line.startswith("#") else ""


def _copy(name: str, folder: Path) -> tuple[Path, str, list[str]]:
    """Return the file to write, its text, whose comments name that file, and the shipped paths in it."""
    files = configs()
    name = name.removesuffix(".yaml")
    if name not in files:
        hint = did_you_mean(name, files)
        raise UserError(f"there is no configuration {name!r}; {hint or 'choose one of ' + ', '.join(files) + '.'}")
    target = folder / files[name].name
    if target.exists():
        raise UserError(f"{target} exists already and is left as it is; remove it, or give another folder by --to.")
    text = files[name].read_text(encoding="utf-8").replace(f"configs/{name}.yaml", files[name].name)
    return target, text, needs(files[name])


def _parser() -> OptionParser:
    parser = OptionParser(
        prog="atmanrl configs", description="List the configurations that come with the package, or copy some of them."
    )
    copy = parser.add_subparsers(dest="action", metavar="copy").add_parser("copy", help="write a copy to edit")
    copy.add_argument("names", nargs="+", metavar="NAME", help="as `atmanrl configs` lists them, such as laptop")
    copy.add_argument("--to", type=user_path, default=Path(), help="folder for the copies (default: this one)")
    return parser
