"""The report: one self-contained HTML file with everything that reviewers ask for."""

from mmdls._provenance import data_hash, image_hash
from mmdls.report._report import report

__all__ = ["data_hash", "image_hash", "report"]
