"""Axes, styles and a colour-blind safe palette for all figures."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import count
from typing import Any

import numpy as np
import pandas as pd

from mmdls.cohort import align_rows

__all__ = [
    "MANY",
    "PALETTE",
    "ROW",
    "WIDTH",
    "axes",
    "finish",
    "interval_text",
    "journal_style",
    "joined",
    "legend_below",
    "named",
    "panels",
    "scale",
    "style",
    "visible",
]

# Inches at 10 points. In print, at 7 points, that is 85 mm: the column of a journal.
WIDTH = 4.78
_PANEL = 3.28  # three of them are 175 mm in print: both columns
ROW = 1.1  # of a table below the axes, in the size of the text
_LINE = 1.5  # of a legend, in its font size
MANY = 2000  # steps of a curve or marks: more are finer than a print shows, and make a file of many megabytes

# Okabe M, Ito K. Color universal design, 2008; without its yellow.
PALETTE = ("#0072B2", "#E69F00", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#000000")
_DASHES = ("-", (0, (6, 2)), (0, (2, 1)), "-.", (0, (10, 2)), (0, (1, 1)), (0, (6, 1, 1, 1, 1, 1)))


def journal_style() -> AbstractContextManager[None]:
    """Figures drawn inside have the size of a journal: one column of 85 mm, or both (175 mm), with text of 7 points.

    Save them as PDF or SVG: fonts are embedded.

    Returns
    -------
    context manager

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from mmdls import plotting
    >>> with journal_style():
    ...     ax = plotting.roc([0, 0, 1, 1], [0.1, 0.6, 0.4, 0.9], n_resamples=0)
    >>> round(ax.figure.get_figwidth() * 25.4)
    85
    """
    from matplotlib import rc_context

    ticks = {f"{axis}tick.major.{what}": size for axis in "xy" for what, size in (("width", 0.6), ("size", 2.5))}
    style: Any = {"font.size": 7, "pdf.fonttype": 42, "svg.fonttype": "path", "axes.linewidth": 0.6, **ticks}
    return rc_context(style)


def scale() -> float:
    """Text of this session relative to 10 points; sizes of figures, lines and markers follow it."""
    from matplotlib import rcParams

    return float(rcParams["font.size"]) / 10


def axes(ax: Any, size: tuple[float, float] = (WIDTH, 4.0), n_lines: int = 0) -> Any:
    """The given axes, those of an empty figure that is given its size, or those of a new figure.

    The size is that at 10 points; the lines of a legend below the axes are added to it.
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError('figures need matplotlib: pip install "mmdls[plot]".') from error
    if isinstance(ax, plt.Axes):
        return ax
    inches = [scale() * size[0], scale() * (size[1] + n_lines * _LINE * 8.33 / 72)]
    if ax is None:
        return plt.subplots(figsize=inches, layout="constrained")[1]
    if not ax.get_axes():
        ax.set_size_inches(inches)
        return ax.subplots()
    raise ValueError("ax must be axes, or a figure without any; got a figure that has some.")


def panels(ax: Any, n: int) -> list[Any]:
    """Axes side by side, one for each of n models, in the place of the given ones; the first is ``ax`` itself."""
    columns = n if n < 4 else 2 if n == 4 else 3
    rows = -(-n // columns)
    ax = axes(ax, (WIDTH, WIDTH) if n == 1 else (columns * _PANEL, rows * (_PANEL + 0.35)))
    if n == 1:
        return [ax]
    if ax.get_subplotspec() is None:
        raise ValueError("several models have one panel each, in the place of ax: give axes of plt.subplots, or none.")
    grid = ax.get_subplotspec().subgridspec(rows, columns)
    ax.set_subplotspec(grid[0])
    return [ax, *(ax.figure.add_subplot(grid[k]) for k in range(1, n))]


def legend_below(
    ax: Any, handles: Sequence[Any] = (), texts: Sequence[str] = (), rows: float = 0, indent: float = 0, **options: Any
) -> None:
    """A legend below the label of the x axis, and below so many rows of text, where it covers no data."""
    from matplotlib.transforms import ScaledTranslation

    if not handles:
        handles, texts = ax.get_legend_handles_labels()
    if not any(texts):
        return
    ax.set_anchor("N")  # square axes stay at the top, and leave the rest to the legend
    points = 10 * scale()
    place = ax.transAxes + ScaledTranslation(
        indent * points / 72, -(3.7 + ROW * rows) * points / 72, ax.figure.dpi_scale_trans
    )
    ax.legend(
        handles,
        texts,
        loc="upper left",
        bbox_to_anchor=(0, 0),
        bbox_transform=place,
        borderaxespad=0,
        borderpad=0,
        labelspacing=0.4,
        fontsize="small",
        title_fontsize="small",
        alignment="left",
        frameon=False,
        handlelength=3,
        **options,
    )


def finish(ax: Any) -> Any:
    """Open frame, light grid behind the curves."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(color="0.9", linewidth=0.6)
    ax.set_axisbelow(True)
    return ax


def visible(times: np.ndarray) -> np.ndarray:
    """Which steps of a curve are drawn: all up to 2000, then the last one in each 2000th of its span.

    Parameters
    ----------
    times : ndarray of shape (n,)
        Ascending.

    Returns
    -------
    ndarray of int, shape (n_drawn,)
    """
    if len(times) <= MANY:
        return np.arange(len(times))
    part = np.floor((times - times[0]) / (times[-1] - times[0]) * MANY)
    return np.flatnonzero(np.r_[part[1:] > part[:-1], True])


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
        yield {"color": PALETTE[k % len(PALETTE)], "linestyle": dashes, "linewidth": 1.8 * scale()}


def interval_text(value: float, low: float = np.nan, high: float = np.nan) -> str:
    """``0.72 [0.68, 0.76]``, without the brackets where there is no interval."""
    if np.isnan(value):
        return "not defined"
    return f"{value:.2f}" if np.isnan(low) else f"{value:.2f} [{low:.2f}, {high:.2f}]"
