"""Whether the code of classes from elsewhere is still the one that a model was saved with."""

import ast
import hashlib
import warnings
from collections.abc import Mapping
from inspect import getsource, isfunction
from textwrap import dedent
from typing import Any

from mmdls.persistence._manifest import InconsistentVersionWarning

__all__ = ["source_hash", "warn_of_sources"]


def source_hash(cls: type) -> str | None:
    """A hash of the methods and plain attributes of a class, and of its bases in the same package.

    Comments, docstrings and layout do not count. None if Python cannot show the code, as that of a script that is
    read from a pipe.
    """
    package = cls.__module__.partition(".")[0]
    try:
        code = [_described(base) for base in cls.__mro__ if base.__module__.partition(".")[0] == package]
    except (OSError, TypeError, SyntaxError):
        return None
    return hashlib.sha256("\n\n".join(code).encode()).hexdigest()


def warn_of_sources(saved: Mapping[str, str | None], classes: Mapping[str, type], path: Any) -> None:
    """Warn with :class:`InconsistentVersionWarning` of classes whose code is not, or may not be, that of the file."""
    here = {name: source_hash(cls) for name, cls in classes.items()}
    unknown = sorted(name for name, code in here.items() if code is None or saved.get(name) is None)
    changed = sorted(name for name, code in here.items() if name not in unknown and code != saved[name])
    known = "Predictions may differ or fail: compare some that you know, or"
    for names, said, remedy in (
        (changed, "was saved with other code of {} than is registered here", "register the code of then"),
        (unknown, "has no hash of the code of {}, since Python could not show it", "keep such classes in a module"),
    ):
        if names:
            said = said.format(", ".join(names))
            warnings.warn(InconsistentVersionWarning(f"{str(path)!r} {said}. {known} {remedy}."), stacklevel=3)


def _described(cls: type) -> str:
    lines = []
    for name, value in sorted(vars(cls).items()):
        value = getattr(value, "fget", None) or getattr(value, "__func__", value)
        if isfunction(value):
            lines.append(ast.unparse(_without_docstrings(ast.parse(dedent(getsource(value))))))
        elif isinstance(value, bool | int | float | str | None) and not name.startswith("__"):
            lines.append(f"{name} = {value!r}")
    return "\n".join(lines)


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return tree
