"""The documents: links that lead somewhere, commands whose options there are, and a reference for every package."""

import pkgutil
import re
import shlex

import pytest
from conftest import ROOT

import atmanrl
from atmanrl.__main__ import main

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RUNS = ("fit", "validate", "test", "predict")


def commands() -> list[list[str]]:
    """The commands of all pages that train or evaluate, each once."""
    blocks = [b for page in PAGES for b in re.findall(r"```bash\n(.*?)```", page.read_text(), re.S)]
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    words = [shlex.split(line, comments=True) for line in lines if "atmanrl " in line]
    arguments = [line[line.index("atmanrl") + 1 :] for line in words if "atmanrl" in line]
    return [list(each) for each in dict.fromkeys(tuple(each) for each in arguments if each[0] in RUNS)]


@pytest.mark.parametrize("arguments", commands(), ids=" ".join)
def test_a_commands_options_are_there(arguments, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    if any("brevity.Brevity" in argument for argument in arguments):
        pytest.skip("run as a whole in test_plugins")
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--print_config"])
    assert stop.value.code == 0, capsys.readouterr().err


@pytest.mark.parametrize("page", [p for p in ROOT.glob("*.md")], ids=lambda p: p.name)
def test_links_of_the_repositorys_pages_lead_somewhere(page):
    """Those of `docs/` are checked by `make docs`."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not target.startswith("http"):
            assert (ROOT / target.split("#")[0]).exists(), target


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_every_package_has_its_reference():
    internal = {"commands"}  # `atmanrl --help` is their reference
    packages = {m.name for m in pkgutil.iter_modules(atmanrl.__path__) if m.ispkg} - internal
    reference = "".join(page.read_text() for page in (ROOT / "docs/api").glob("*.md"))
    assert packages and all(f"atmanrl.{name}" in reference for name in packages)
