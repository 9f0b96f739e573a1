"""What is said about a saved model beside its numbers: format, versions, data, settings, use."""

import json
import warnings
from collections.abc import Mapping
from typing import Any

import pandas as pd
from sklearn import exceptions

from mmdls._provenance import data_hash, image_hash
from mmdls._secrets import without_secrets
from mmdls._versions import installed_versions, versions

__all__ = ["FORMAT", "InconsistentVersionWarning", "check_format", "make_manifest", "warn_of_versions"]

FORMAT = 1


class InconsistentVersionWarning(exceptions.InconsistentVersionWarning):
    """A model was saved with other versions of libraries, or other code of parts; its predictions may differ, or fail.

    A subclass of scikit-learn's warning of the same name, so that one filter stands for both.

    Examples
    --------
    >>> import warnings
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("error", InconsistentVersionWarning)  # rather fail than predict something else
    ...     warnings.warn(InconsistentVersionWarning("saved with torch 2.13, loaded with 2.14"))
    Traceback (most recent call last):
    ...
    mmdls.persistence._manifest.InconsistentVersionWarning: saved with torch 2.13, loaded with 2.14
    """

    def __init__(self, message: str):
        UserWarning.__init__(self, message)
        self.message = message

    def __str__(self) -> str:
        return self.message


def make_manifest(
    model: Any,
    *,
    data: tuple[Any, Any] | None,
    metrics: Any,
    intended_use: str | None,
    holds: list[str],
    left_out: list[str],
    packages: list[str],
    code: Mapping[str, str | None],
) -> dict[str, Any]:
    """Everything that is said about a model.

    Parameters
    ----------
    model : fitted estimator
    data : (X, y) or None
        The training data, of which hashes are kept.
    metrics : DataFrame, mapping of str to float, or None
    intended_use : str or None
    holds : list of str
        What of patients is in the model.
    left_out : list of str
        Parameters that were not saved.
    packages : list of str
        Other packages whose classes it needs.
    code : mapping of str to str or None
        Hashes of the code of registered classes from elsewhere, by name.

    Returns
    -------
    dict
        JSON.
    """
    found = {name.lower() if name == "Python" else name: number for name, number in versions() if name != "system"}
    found |= installed_versions(packages)
    settings = {name: without_secrets(repr(value)) for name, value in model.get_params(deep=True).items()}
    return {
        "format": FORMAT,
        "model": type(model).__name__,
        "versions": found,
        "settings": {name: text if len(text) <= 300 else f"{text[:297]}..." for name, text in settings.items()},
        "tasks": _tasks(model),
        "inputs": [str(name) for name in getattr(model, "feature_names_in_", [])],
        "data": None if data is None else _hashes(*data),
        "metrics": _records(metrics),
        "intended_use": intended_use,
        "holds": holds,
        "left_out": left_out,
        "code": dict(code),
    }


def check_format(manifest: Any, path: Any) -> None:
    """Refuse a format that this version does not read; ValueError says what to do."""
    number = manifest.get("format") if isinstance(manifest, dict) else None
    if type(number) is not int or number < 1:
        raise ValueError(f"the manifest of {str(path)!r} names no format; it is no saved model, or is damaged.")
    if number > FORMAT:
        saved = manifest.get("versions", {}) if isinstance(manifest.get("versions"), dict) else {}
        raise ValueError(
            f"{str(path)!r} has format {number}, saved by mmdls {saved.get('mmdls', 'of a later version')}; this is "
            f"mmdls {installed_versions(['mmdls']).get('mmdls')}, which reads formats up to {FORMAT}. Update mmdls."
        )


def warn_of_versions(manifest: Mapping[str, Any], path: Any) -> None:
    """Warn with :class:`InconsistentVersionWarning` if the libraries of the file are not those of this process."""
    here = {name.lower() if name == "Python" else name: number for name, number in versions()}
    saved = dict(manifest["versions"])
    here = installed_versions(saved) | here
    other = [
        f"{name} {said} (here {here.get(name, 'not installed')})"
        for name, said in saved.items()
        if said != here.get(name)
    ]
    if other:
        warnings.warn(
            InconsistentVersionWarning(
                f"{str(path)!r} was saved with {', '.join(other)}. Predictions may differ or fail: compare some "
                "that you know, or install those versions."
            ),
            stacklevel=3,
        )


def as_json(content: Any) -> bytes:
    """The bytes of JSON, the same for the same content."""
    return json.dumps(content, ensure_ascii=True, allow_nan=False, indent=None, separators=(",", ":")).encode()


def _tasks(model: Any) -> list[dict[str, Any]]:
    """The tasks that a model, or one inside it, answers."""
    for each in _inside(model):
        if isinstance(tasks := getattr(each, "tasks_", None), dict):
            return [
                {"name": name, "kind": task.kind, "classes": [str(label) for label in getattr(task, "classes", ())]}
                for name, task in tasks.items()
            ]
    return []


def _inside(model: Any) -> list[Any]:
    inner = [getattr(model, name) for name in ("best_estimator_", "estimator_", "estimator") if hasattr(model, name)]
    steps = getattr(model, "steps", None) or []
    return [model, *(each for one in [*inner[:1], *(step for _, step in steps[-1:])] for each in _inside(one))]


def _hashes(X: Any, y: Any) -> dict[str, Any]:
    X, y = (table if isinstance(table, pd.DataFrame) else pd.DataFrame(table) for table in (X, y))
    return {"patients": len(X), "X": data_hash(X), "y": data_hash(y), "images": image_hash(X) or None}


def _records(metrics: Any) -> list[dict[str, Any]]:
    if metrics is None:
        return []
    if isinstance(metrics, Mapping):
        return [{"metric": str(name), "value": _number(value)} for name, value in metrics.items()]
    if isinstance(metrics, pd.DataFrame):
        return [{str(k): _number(v) for k, v in row.items()} for row in metrics.to_dict("records")]
    raise TypeError(
        f"metrics must be the table of mmdls.evaluate, or a mapping of names to numbers; got {type(metrics).__name__}."
    )


def _number(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
