"""Reports: what a program costs on its machine, as tables, files, timelines and comparisons."""

from cimc.report.compare import compare_layers, compare_summaries
from cimc.report.constants import sweep, sweep_table
from cimc.report.files import read_report, write_report
from cimc.report.network import network_line, network_table
from cimc.report.report import BY, Report, Summary, make_report
from cimc.report.table import FORMATS, Table
from cimc.report.trace import write_trace

__all__ = [
    "BY",
    "FORMATS",
    "Report",
    "Summary",
    "Table",
    "compare_layers",
    "compare_summaries",
    "make_report",
    "network_line",
    "network_table",
    "read_report",
    "sweep",
    "sweep_table",
    "write_report",
    "write_trace",
]
