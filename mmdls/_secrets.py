"""What is shown or shared, without passwords, ids of patients and formulas."""

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["with_formulas", "without_formulas", "without_ids", "without_secrets"]

_URL = re.compile(r"[\w+.-]+://[^\s'\"]+")
_USER = re.compile(r"(://[^/\s:@]*:).*@")
_QUERY = re.compile(
    r"((?:[?&;]|%3B|%26|%3D|%7B)[\w-]*(?:pass(?:word|wd|phrase)?|pwd|token|secret|key|credentials?|signature)(?:=|%3D))"
    r"(?:(?!%3B|%26)[^&;#])*",
    re.IGNORECASE,
)

_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def without_secrets(text: str) -> str:
    """A text in which passwords and tokens of URLs are replaced by three stars.

    Parameters
    ----------
    text : str

    Returns
    -------
    str

    Examples
    --------
    >>> without_secrets("kept in postgresql://anna:s3cret@host/study?sslpassword=x&timeout=5")
    'kept in postgresql://anna:***@host/study?sslpassword=***&timeout=5'
    """
    return _URL.sub(lambda url: _QUERY.sub(r"\1***", _USER.sub(r"\1***@", url[0])), text)


def without_ids(text: str, ids: Iterable[Any], *, small: bool = False) -> str:
    """A text in which ids of patients are replaced by three stars.

    Parameters
    ----------
    text : str
    ids : iterable
    small : bool, default=False
        Whether numbers below 1,000 are replaced too, which may be anything else.

    Returns
    -------
    str

    Examples
    --------
    >>> without_ids("the image of patient 'MR-0815' is empty", ["MR-0814", "MR-0815"])
    "the image of patient '***' is empty"
    """
    names = {str(each) for each in ids}
    known = {name for name in names if name and (small or not re.fullmatch(r"-?\d{0,3}(\.0)?", name))}
    words = sorted((name for name in known if name in text), key=len, reverse=True)
    # An underscore ends an id, as in the name of a file.
    return re.sub(rf"(?<![^\W_])(?:{'|'.join(map(re.escape, words))})(?![^\W_])", "***", text) if words else text


def without_formulas(table: "pd.DataFrame") -> "pd.DataFrame":
    """A table whose texts no spreadsheet takes for a formula: those get an apostrophe before them.

    So do such texts that begin with apostrophes already, so that :func:`with_formulas` gives all texts back.

    Parameters
    ----------
    table : pandas.DataFrame

    Returns
    -------
    pandas.DataFrame

    Examples
    --------
    >>> import pandas as pd
    >>> table = pd.DataFrame({"centre": ["=HYPERLINK(A1)", "-5", "A"]}, ["@P1", "P2", "P3"])
    >>> without_formulas(table)["centre"].to_dict()
    {"'@P1": "'=HYPERLINK(A1)", 'P2': '-5', 'P3': 'A'}
    """
    return _with_texts(table, _as_text)


def with_formulas(table: "pd.DataFrame") -> "pd.DataFrame":
    """A table as it was before :func:`without_formulas`; an apostrophe before anything else stays.

    Parameters
    ----------
    table : pandas.DataFrame

    Returns
    -------
    pandas.DataFrame

    Examples
    --------
    >>> import pandas as pd
    >>> with_formulas(pd.DataFrame({"centre": ["'=HYPERLINK(A1)", "'s Hertogenbosch"]}))["centre"].tolist()
    ['=HYPERLINK(A1)', "'s Hertogenbosch"]
    """
    return _with_texts(table, _as_written)


def _with_texts(table: "pd.DataFrame", change: Callable[[Any], Any]) -> "pd.DataFrame":
    """A table in which every text, also of the index and the names of columns, is changed."""
    changed = table.copy(deep=False)
    for place, (_, column) in enumerate(table.items()):
        if column.dtype.kind in "OUS" or column.dtype.name in ("str", "string", "category"):
            changed.isetitem(place, column.astype(object).map(change))
    return changed.set_axis(table.index.map(change), axis=0).set_axis(table.columns.map(change), axis=1)


def _as_text(cell: Any) -> Any:
    if isinstance(cell, str) and _FORMULA.match(cell) and not re.fullmatch(r"[-+][\d.]+(e[-+]?\d+)?", cell):
        return f"'{cell}"
    return cell


def _as_written(cell: Any) -> Any:
    return cell[1:] if isinstance(cell, str) and cell[:1] == "'" and _FORMULA.match(cell) else cell
