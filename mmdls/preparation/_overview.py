"""One page with all patients, what became of them, and their pictures."""

import html
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import pandas as pd

__all__ = ["overview"]

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 1200px; padding: 0 1em; color: #222; }
table { border-collapse: collapse; } td, th { border: 1px solid #ccc; padding: .3em .6em; text-align: left; }
td.number { text-align: right; } .done { color: #176b2c; } .partly { color: #8a5a00; } .failed { color: #b00020; }
img { max-width: 100%; height: auto; border: 1px solid #ccc; } section { margin-top: 2em; }
"""


def overview(log: pd.DataFrame, names: Mapping[str, str], settings: Mapping[str, Any]) -> str:
    """The page.

    Parameters
    ----------
    log : DataFrame
        A row a patient: status, reason, notes and measures.
    names : mapping of str to str
        Of the files of the patients with a picture, by id.
    settings : mapping

    Returns
    -------
    str
        HTML; pictures are linked, everything else stands in it.
    """
    counts = ", ".join(f"{count} {status}" for status, count in log["status"].value_counts().items())
    numbers = [name for name in log.columns if name not in ("status", "reason", "notes")]
    head = "".join(f"<th>{_text(name)}</th>" for name in ("patient", "status", *numbers, "reason", "notes"))
    rows = "\n".join(_row(str(patient), row, numbers, patient in names) for patient, row in log.iterrows())
    pictures = "\n".join(
        f'<section id="{_text(_anchor(patient))}"><h2>{_text(patient)}</h2>'
        f'<img loading="lazy" src="sheets/{quote(name)}.png" alt="slices of {_text(patient)}"></section>'
        for patient, name in names.items()
    )
    chosen = "".join(f"<tr><td>{_text(key)}</td><td>{_text(value)}</td></tr>" for key, value in settings.items())
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>Prepared cohort</title>'
        f"<style>{_STYLE}</style></head>\n<body><h1>Prepared cohort</h1>\n"
        f"<p>{len(log)} patients: {_text(counts)}.</p>\n"
        f"<table><tr>{head}</tr>\n{rows}</table>\n{pictures}\n"
        f"<section><h2>Settings</h2><table>{chosen}</table></section>\n</body></html>\n"
    )


def _row(patient: str, row: pd.Series, numbers: list[str], has_picture: bool) -> str:
    name = f'<a href="#{_text(_anchor(patient))}">{_text(patient)}</a>' if has_picture else _text(patient)
    status = str(row["status"])
    cells = "".join(
        f'<td class="number">{"" if pd.isna(row[column]) else _number(row[column])}</td>' for column in numbers
    )
    return (
        f'<tr><td>{name}</td><td class="{status.split()[0]}">{_text(status)}</td>{cells}<td>{_text(row["reason"])}</td>'
        f"<td>{_text(row['notes'])}</td></tr>"
    )


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _anchor(patient: str) -> str:
    return f"patient-{quote(patient, safe='')}"


def _text(value: Any) -> str:
    return html.escape(str(value))
