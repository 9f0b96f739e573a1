"""The report: one self-contained HTML file with all that a reviewer asks for."""

from mmdls.report._report import data_hash, report

__all__ = ["data_hash", "report"]
