"""Parameters by name on the command line: ``--set NAME=VALUE``."""

import json
from collections.abc import Sequence
from typing import Any

import click

from mmdls.cli._commands import Failed

__all__ = ["set_option", "settings_of"]

set_option = click.option(
    "-s", "--set", "settings", multiple=True, metavar="NAME=VALUE",
    help="A parameter of the model, as in set_params: lesion__backbone=resnet18, trainer__max_epochs=20.",
)  # fmt: skip
_WORDS = {"True": True, "False": False, "None": None, "true": True, "false": False, "null": None}


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
