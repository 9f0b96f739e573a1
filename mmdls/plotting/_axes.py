"""Axes, styles and a colour-blind safe palette for all figures."""

from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any

import numpy as np
import pandas as pd

from mmdls.cohort import align_rows

__all__ = ["PALETTE", "axes", "finish", "interval_text", "joined", "named", "style"]

# Okabe M, Ito K. Color universal design, 2008; without its yellow.
PALETTE = ("#0072B2", "#E69F00", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#000000")
_DASHES = ("-", (0, (6, 2)), (0, (2, 1)), "-.")


def axes(ax: Any, size: tuple[float, float] = (5.5, 4.5)) -> Any:
    """The given axes, or those of a new figure."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError('figures need matplotlib: pip install "mmdls[plot]".') from error
    return plt.subplots(figsize=size, layout="constrained")[1] if ax is None else ax


def finish(ax: Any) -> Any:
    """Open frame, light grid behind the curves."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(color="0.9", linewidth=0.6)
    ax.set_axisbelow(True)
    return ax


def named(models: Any) -> list[tuple[str, Any]]:
    """Pairs of model name and predictions; a single model without a name is called ``""``."""
    if isinstance(models, Mapping):
        if not models:
            raise ValueError("there is no model to draw: the dict of predictions is empty.")
        return list(models.items())
    return [("", models)]


def joined(values: Any, reference: Any, name: str) -> Any:
    """Values in the order of the reference, by patient id where both carry ids."""
    if isinstance(values, pd.Series | pd.DataFrame) and isinstance(reference, pd.Series | pd.DataFrame):
        return align_rows(values, reference.index, name)
    return values


def style() -> Iterator[dict[str, Any]]:
    """A line style for each model; dashes distinguish models in print without colour."""
    for k in count():
        dashes = _DASHES[(k + k // len(PALETTE)) % len(_DASHES)]
        yield {"color": PALETTE[k % len(PALETTE)], "linestyle": dashes, "linewidth": 1.8}


def interval_text(value: float, low: float = np.nan, high: float = np.nan) -> str:
    """``0.72 [0.68, 0.76]``, without the brackets where there is no interval."""
    if np.isnan(value):
        return "not defined"
    return f"{value:.2f}" if np.isnan(low) else f"{value:.2f} [{low:.2f}, {high:.2f}]"
