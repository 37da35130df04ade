"""Reports on finished runs, read from their folders alone: no torch, no Lightning, so `atmanrl report` is quick.

They know no metric by name: what `eval/*.json` records of a metric says how it is shown and what it depends on.
"""

from atmanrl.report.runs import ReportError, Values, load_values
from atmanrl.report.table1 import build, in_terminal, write_json

__all__ = ["ReportError", "Values", "build", "in_terminal", "load_values", "write_json"]
