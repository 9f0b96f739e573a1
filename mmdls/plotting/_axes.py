"""What all figures share: their axes, and one palette that colour-blind readers can tell apart."""

from typing import Any

__all__ = ["PALETTE", "axes", "finish"]

# Okabe M, Ito K. Color universal design, 2008; without its yellow.
PALETTE = ("#0072B2", "#E69F00", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#000000")


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
