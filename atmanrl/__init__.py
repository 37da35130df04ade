"""AtManRL: train language models whose chain of thought really drives the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from atmanrl.probe.explain import explain
    from atmanrl.probe.explanation import Explanation

__version__ = "0.1.0"
__all__ = ["Explanation", "__version__", "explain"]


def __getattr__(name: str) -> Any:
    """`explain` and `Explanation` on first use: torch takes seconds to import, and `atmanrl --help` needs none of it."""
    if name in ("Explanation", "explain"):
        from atmanrl.probe import explain, explanation

        return explain.explain if name == "explain" else explanation.Explanation
    raise AttributeError(f"module 'atmanrl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
