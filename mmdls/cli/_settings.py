"""Parameters by name on the command line, ``--set NAME=VALUE``, and months, ``--horizons 12,36``."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import click

from mmdls.cli._commands import Failed

__all__ = ["horizons_option", "set_option", "settings_of"]

set_option = click.option(
    "-s", "--set", "settings", multiple=True, metavar="NAME=VALUE",
    help="A parameter of the model, as in set_params: lesion__backbone=resnet18, trainer__max_epochs=20.",
)  # fmt: skip
_WORDS = {"True": True, "False": False, "None": None, "true": True, "false": False, "null": None}


def horizons_option(about: str) -> Callable:
    """``--horizons 12,36,60``: months with commas, as a tuple of floats."""
    return click.option("--horizons", default="12,36,60", show_default=True, callback=_months, help=about)


def _months(context: click.Context, parameter: click.Parameter, text: str) -> tuple[float, ...]:
    from mmdls.evaluation._predict import check_horizons

    try:
        return tuple(check_horizons([float(month) for month in text.split(",")]))
    except ValueError as error:
        raise click.BadParameter(f"{text!r}: months above 0, with commas.") from error


def settings_of(texts: Sequence[str]) -> dict[str, Any]:
    """Parameters from ``NAME=VALUE``: numbers, true, false, null and JSON are such values, anything else is text.

    Parameters
    ----------
    texts : sequence of str

    Returns
    -------
    dict

    Raises
    ------
    Failed
        If there is no ``=``, or a name stands twice.

    Examples
    --------
    >>> settings_of(["trainer__max_epochs=5", "lesion__backbone=resnet18", "fusion__dropout=0.3", "memory=none"])
    {'trainer__max_epochs': 5, 'lesion__backbone': 'resnet18', 'fusion__dropout': 0.3, 'memory': 'none'}
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals or not name:
            raise Failed(f"{text!r} is no NAME=VALUE.")
        if name in found:
            raise Failed(f"{name} is set twice.")
        try:
            found[name] = _WORDS[value] if value in _WORDS else json.loads(value)
        except ValueError:
            found[name] = value
    return found
