"""Tables, figures, numbers and names as HTML."""

import base64
import html
import io
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mmdls import metrics, plotting
from mmdls.metrics._comparison import p_text
from mmdls.plotting._axes import WIDTH, scale

_COLUMNS = 175 / 85  # both columns of a journal, in widths of one
_INTERVAL = re.compile(r"\[([-+\d.]+), ([-+\d.]+|not reached)\]")
_ONE_PAGE = 45  # rows of a table in print
LEVEL = "\u200b"  # before the name of a row that belongs to the one above
OPEN = "OPEN: for the author"
_NAMES = {
    "concordance_index": "Harrell's C",
    "concordance_index_ipcw": "Uno's C",
    "concordance_index_antolini": "Antolini's C",
    "cumulative_dynamic_auc": "Time-dependent AUC",
    "brier_score": "Brier score",
    "index_of_prediction_accuracy": "Index of prediction accuracy",
    "calibration_slope": "Calibration slope",
    "calibration_intercept": "Calibration intercept",
    "observed_expected_ratio": "Observed / expected",
    "calibration_ici": "Calibration error, mean (ICI)",
    "calibration_e50": "Calibration error, median (E50)",
    "calibration_e90": "Calibration error, 90th percentile (E90)",
    "integrated_brier_score": "Integrated Brier score",
    "integrated_ipa": "Integrated prediction accuracy",
    "log_likelihood": "Log-likelihood per patient",
    "d_calibration_p": "D-calibration, p",
    "auc": "AUC",
    "r2": "R²",
    "log_loss": "Log loss",
}
# Metrics that have another name among competing risks
_CAUSE_NAMES = {"concordance_index": "Wolbers' C", "concordance_index_ipcw": "Wolbers' C, weighted for censoring"}


def figure(
    draw: Callable[..., Any],
    caption: str,
    size: tuple[float, float] | None = None,
    folder: Path | None = None,
    title: str = "",
) -> str:
    """A figure as an SVG image inside the page; its text is drawn as paths, so no font is needed.

    ``draw`` takes the empty figure as ``ax``, or axes of the size, which is that at 10 points; the figure is drawn as
    journals print it. A folder also gets it as PDF and SVG, numbered in the order of the page.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('the figures of a report need matplotlib: pip install "mmdls[report]".') from error

    # A dollar sign in the name of a category must not start a formula.
    style: Any = {"text.parse_math": False, "svg.hashsalt": "mmdls"}
    with warnings.catch_warnings(), plotting.journal_style(), rc_context(style):
        warnings.simplefilter("ignore", metrics.UndefinedMetricWarning)
        figure, column = Figure(layout="constrained"), scale() * WIDTH
        if size is not None:
            figure.set_size_inches(scale() * size[0], scale() * size[1])
        drawn = draw(ax=figure if size is None else figure.subplots())
        if title:
            drawn.set_title(title, loc="left", fontsize="medium")
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
        if folder is not None:
            _keep(figure, caption, file.getvalue(), folder)
    data = base64.b64encode(file.getvalue()).decode()
    text, columns = html.escape(caption), figure.get_figwidth() / column
    wide, width = (' class="wide"', f' style="width: {min(columns / _COLUMNS, 1):.0%}"') if columns > 1.05 else ("", "")
    image = f'<img alt="{text}"{width} src="data:image/svg+xml;base64,{data}">'
    return f"<figure{wide}>{image}<figcaption>{text}</figcaption></figure>"


def _keep(figure: Any, caption: str, svg: bytes, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    number = 1 + sum(path.suffix == ".svg" for path in folder.iterdir())
    name = f"{number:02d}-{re.sub('-+', '-', anchor(caption)).strip('-')[:60]}"
    (folder / f"{name}.svg").write_bytes(svg)
    figure.savefig(folder / f"{name}.pdf", metadata={"CreationDate": None})


def html_table(table: pd.DataFrame, index: bool = False) -> str:
    """A table without its empty columns, whose intervals stay in one line."""
    table = table.loc[:, ~table.map(lambda value: isinstance(value, str) and not value).all() | table.empty]
    shown = table.to_html(index=index, border=0, escape=True, na_rep="")
    shown = shown.replace(f"<th>{LEVEL}", '<th class="level">').replace(OPEN, f'<span class="open">{OPEN}</span>')
    shown = (
        _INTERVAL.sub(r"[\1,&nbsp;\2]", shown)
        .replace("not reached]", "not&nbsp;reached]")
        .replace("&lt; .001", "&lt;&nbsp;.001")
    )
    long = " long" if len(table) > _ONE_PAGE else ""
    return f'<div class="wide{long}">{shown}</div>'


def html_list(notes: list[str]) -> str:
    items = "".join(f"<li>{html.escape(note)}</li>" for note in dict.fromkeys(notes))
    return f'<ul class="notes">{items}</ul>' if items else ""


def cell(value: float, low: float = np.nan, high: float = np.nan) -> str:
    if np.isnan(value):
        return "not defined"
    return f"{value:.3f}" if np.isnan(low) else f"{value:.3f} [{low:.3f}, {high:.3f}]"


def number(value: float, form: str) -> str:
    return "" if pd.isna(value) else format(value, form)


def p_value(value: float) -> str:
    return "" if pd.isna(value) else p_text(value)


def metric_name(metric: str) -> str:
    if metric.startswith("auc_"):
        return f"AUC, {metric.removeprefix('auc_')} against the rest"
    metric, _, cause = metric.partition("_cause")
    if cause:
        return f"{_CAUSE_NAMES.get(metric) or metric_name(metric)}, cause {cause}"
    return _NAMES.get(metric, metric.replace("_", " ").capitalize())


def anchor(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name.lower())


STYLE = """
:root { color-scheme: light; background: #fff; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2430; margin: 0 auto; max-width: 1180px; padding: 0 24px 60px; }
h1 { font-size: 28px; margin: 28px 0 8px; }
h2 { font-size: 21px; margin: 44px 0 8px; padding-bottom: 4px; border-bottom: 2px solid #0072B2; }
h3 { font-size: 16px; margin: 24px 0 8px; }
nav { display: flex; flex-wrap: wrap; gap: 4px 18px; } nav a { color: #0072B2; text-decoration: none; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { text-align: left !important; padding: 3px 16px 3px 0; border-bottom: 1px solid #e3e7ec; vertical-align: top; }
thead th { border-bottom: 1.5px solid #1c2430; white-space: nowrap; } tbody th { font-weight: 500; }
tbody th.level { font-weight: 400; padding-left: 16px; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(440px, 100%), 1fr)); gap: 22px; }
.figures { grid-auto-flow: dense; }
figure { margin: 0; break-inside: avoid; } figure img { width: 100%; max-width: 480px; }
figure.wide { grid-column: 1 / -1; } figure.wide img { max-width: 960px; }
figcaption, .notes { font-size: 12.5px; color: #4a5562; }
.open { color: #A33E00; font-weight: 600; }
.flow { display: flex; flex-direction: column; align-items: flex-start; gap: 8px; }
.flow div div, .flow .in, .flow .out { border: 1px solid #8996a5; border-radius: 4px; padding: 6px 14px; }
.flow .in { background: #eef5fa; } .flow .out { margin-left: 60px; }
.flow .leaves { display: flex; flex-wrap: wrap; gap: 8px; margin-left: 30px; }
@page { size: A4; margin: 15mm; }
@media print {
  body { max-width: none; padding: 0; font-size: 11pt; } .wide { overflow: visible; } table { font-size: 8pt; }
  th, td { padding: 1.5px 8px 1.5px 0; overflow-wrap: break-word; } thead th { white-space: normal; }
  #settings--versions--data td, #model-card td { overflow-wrap: anywhere; }
  thead { display: table-header-group; } table, tr, figure, .flow, p { break-inside: avoid; }
  .long table { break-inside: auto; } h2, h3, h2 + p, h3 + p, p + p { break-after: avoid; }
  .figures { grid-template-columns: 1fr 1fr; gap: 12px; }
}
"""
PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{style}</style></head>
<body><h1>{title}</h1><nav>{links}</nav>{body}</body></html>
"""
