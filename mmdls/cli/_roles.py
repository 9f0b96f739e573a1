"""Options that say what the columns of a table are: the arguments of ``read_cohort``, by name."""

import inspect
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

import mmdls
from mmdls.cli._commands import Failed

__all__ = ["OUTCOMES", "parse_value", "role_options", "roles_of"]

OUTCOMES = ("endpoints", "classes", "ordinal", "numbers")
# By argument: what is given, and whether a comma divides it. Those with None are plain texts.
_GIVEN: dict[str, tuple[str, bool | None]] = {
    "id": ("Column of the patients' ids.", None),
    "endpoints": ("NAME=TIME,EVENT or NAME=start:COLUMN,end:COLUMN,event:COLUMN.", True),
    "classes": ("A label to predict: NAME=COLUMN or COLUMN.", True),
    "ordinal": ("A label with an order: 'NAME=COLUMN:LOW<HIGH' or COLUMN.", True),
    "numbers": ("A number to predict: NAME=COLUMN or COLUMN.", True),
    "blocks": ("Features: BLOCK=COLUMN,COLUMN or 'BLOCK=TEXT*' or BLOCK=NAME:COLUMN.", True),
    "units": ("days, weeks, months or years; or NAME=UNIT.", False),
    "codes": ("Meaning of codes: COLUMN=VALUE:MEANING,VALUE:MEANING.", True),
    "categories": ("A feature that is a category although it looks like a number.", False),
    "ordered": ("A feature whose categories have an order: 'COLUMN=LOW<HIGH' or COLUMN.", True),
    "carry": ("A column to keep in X that is no feature: COLUMN or NAME=COLUMN.", False),
    "missing": ("A word or number that means a missing cell; or COLUMN=WORD,WORD.", True),
    "decimal": ("The decimal mark, where it is not clear: '.' or ',' or COLUMN=MARK.", False),
    "date_format": ("Pattern of dates, where it is not clear; or COLUMN=PATTERN.", False),
    "groups": ("Column of what belongs together, for folds and intervals.", None),
    "relapse_after_death": ("refuse, truncate or unknown.", None),
    "sep": ("Separator of a text file, where it is not clear.", None),
    "encoding": ("Encoding of a text file, where it is not clear.", None),
    "sheet": ("Sheet of an Excel file.", None),
    "header": ("Row of a file with the names of the columns, from 0; empty rows count.", None),
}


def role_options(command: Callable) -> Callable:
    """Give a command the options that say what the columns of its table are; it gets them as keyword arguments."""
    roles = click.option(
        "--roles",
        type=click.Path(path_type=Path),
        help="A JSON file of these options by name, or the .run.json of an earlier command, whose roles are used.",
    )
    coerce = click.option("--coerce", is_flag=True, help="Set cells that cannot be read to missing, and count them.")
    options = [
        click.option(f"--{name.replace('_', '-')}", name, help=text, multiple=divided is not None, metavar="TEXT")
        for name, (text, divided) in _GIVEN.items()
    ]
    for option in reversed([*options, coerce, roles]):
        command = option(command)
    return command


def roles_of(given: dict[str, Any]) -> dict[str, Any]:
    """Take the roles out of the arguments of a command, as arguments of ``read_cohort``.

    Parameters
    ----------
    given : dict
        Those of :func:`role_options`.

    Returns
    -------
    dict

    Raises
    ------
    Failed
        If the file of roles is no such file, or an option has no known form.
    """
    file = given.pop("roles")
    roles = {} if file is None else _read_file(file)
    if given.pop("coerce"):
        roles["coerce"] = True
    for name, (_, divided) in _GIVEN.items():
        value = given.pop(name)
        if value is not None and value != ():
            roles[name] = value if divided is None else _joined(name, value, divided)
    for name in ("sheet", "header"):
        if str(roles.get(name, "")).isdecimal():
            roles[name] = int(roles[name])
    return roles


def parse_value(text: str, divided: bool = True) -> Any:
    """What a text on the command line says: JSON, or pairs ``a:b``, or several values with commas, or the text.

    Parameters
    ----------
    text : str
    divided : bool, default=True
        Whether commas and colons divide it.

    Returns
    -------
    str, list, dict or a value of JSON

    Examples
    --------
    >>> parse_value("OS_days,OS_event"), parse_value("1:0,2:1"), parse_value("TNM:I-II<III<IV")
    (['OS_days', 'OS_event'], {'1': 0, '2': 1}, ['TNM', ['I-II', 'III', 'IV']])
    >>> parse_value('{"start": "Date of diagnosis"}'), parse_value("Histology, WHO", divided=False)
    ({'start': 'Date of diagnosis'}, 'Histology, WHO')
    """
    if text.strip()[:1] in ("{", "["):
        try:
            return json.loads(text)
        except ValueError as error:
            raise Failed(f"{text!r} begins like JSON, and is none: {error}.") from error
    if not divided:
        return text
    if "<" in text:
        column, _, levels = text.rpartition(":")
        ordered = [level.strip() for level in levels.split("<")]
        return [column.strip(), ordered] if column else ordered
    items = [item.strip() for item in text.split(",")]
    pairs = [item.partition(":") for item in items]
    if all(colon for _, colon, _ in pairs):
        return {key.strip(): _literal(value.strip()) for key, _, value in pairs}
    return items if len(items) > 1 else items[0]


def _literal(text: str) -> Any:
    """A number, None for nothing, or the text."""
    if not text:
        return None
    try:
        return json.loads(text) if text[0].isdigit() or text[0] == "-" else text
    except ValueError:
        return text


def _joined(name: str, texts: Sequence[str], divided: bool) -> Any:
    """The values of an option that may be repeated: a mapping if they have names, else a list."""
    named = [text.partition("=") for text in texts if "=" in text and text.strip()[:1] not in ("{", "[")]
    plain = [parse_value(text, divided) for text in texts if "=" not in text or text.strip()[:1] in ("{", "[")]
    if len(plain) == len(texts) == 1 and isinstance(plain[0], dict):
        return plain[0]
    found = {key.strip(): parse_value(value, divided) for key, _, value in named}
    if len(found) < len(named):
        raise Failed(f"--{name}: each name once; got {', '.join(texts)}.")
    if not found:
        values = [one for value in plain for one in (value if isinstance(value, list) else [value])]
        return values[0] if len(values) == 1 else values
    if plain and name not in (*OUTCOMES, "ordered"):
        raise Failed(f"--{name}: all of them as NAME=VALUE, or none; got {', '.join(texts)}.")
    return {**found, **{value: value for value in plain}}


def _read_file(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise Failed(f"--roles {path}: there is no such file.") from error
    except ValueError as error:
        raise Failed(f"--roles {path}: no JSON: {error}.") from error
    if isinstance(content, dict) and "command" in content:
        content = content.get("roles", {})
    known = set(inspect.signature(mmdls.cohort.read_cohort).parameters) - {"table"}
    if not isinstance(content, dict) or content.keys() - known:
        strange = sorted(content.keys() - known) if isinstance(content, dict) else type(content).__name__
        raise Failed(f"--roles {path}: expected an object with {sorted(known)}; got {strange}.")
    return content
