"""What pyproject.toml cannot say: configurations and the laptop policy travel in the wheel (see `atmanrl/shipped.py`)."""

import runpy
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

PATHS = runpy.run_path("atmanrl/shipped.py")["PATHS"]


def shipped_files() -> list[Path]:
    """The files beneath the shipped paths, relative to the repository."""
    files = [file for path in PATHS for file in sorted(Path(path).rglob("*")) if file.is_file()]
    return [file for file in files if not any(part.startswith((".", "__")) for part in file.parts)]


class BuildWithShippedFiles(build_py):
    """Copies the shipped files into the package; an editable installation reads them from the clone."""

    def run(self) -> None:
        """Build the package."""
        super().run()
        for file in [] if self.editable_mode else shipped_files():
            target = Path(self.build_lib, "atmanrl", "shipped_files", file)
            self.mkpath(str(target.parent))
            self.copy_file(str(file), str(target))

    def get_source_files(self) -> list[str]:
        """What a source distribution must hold."""
        return [*super().get_source_files(), *map(str, shipped_files())]


setup(cmdclass={"build_py": BuildWithShippedFiles})
