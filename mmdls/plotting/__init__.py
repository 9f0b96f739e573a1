"""Figures: each function draws on ``ax`` and returns it. Needs matplotlib (``pip install "mmdls[plot]"``)."""

from mmdls.plotting._kaplan_meier import kaplan_meier

__all__ = ["kaplan_meier"]
