"""Reports on finished runs, read from their folders alone: no torch, no Lightning, so `atmanrl report` is quick."""

from atmanrl.report.runs import ReportError, Row, load_row
from atmanrl.report.table1 import render, write_json

__all__ = ["ReportError", "Row", "load_row", "render", "write_json"]
