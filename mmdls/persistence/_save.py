"""Save a fitted model, and load it."""

import json
import warnings
import zipfile
from collections.abc import Mapping
from os import PathLike
from typing import Any

import numpy as np
import pandas as pd
from safetensors import SafetensorError

from mmdls.persistence._archive import read_members, verify, write_members
from mmdls.persistence._card import model_card
from mmdls.persistence._compiled import check_compiled
from mmdls.persistence._graph import Reader, Writer
from mmdls.persistence._manifest import as_json, check_format, make_manifest, warn_of_versions
from mmdls.persistence._numbers import read_arrays, read_tensors, write_arrays, write_tensors
from mmdls.persistence._patients import patients_held
from mmdls.persistence._sources import warn_of_sources

__all__ = ["load", "save"]


def save(
    model: Any,
    path: str | PathLike,
    *,
    data: tuple[Any, Any] | None = None,
    metrics: pd.DataFrame | Mapping[str, float] | None = None,
    intended_use: str | None = None,
) -> None:
    """Write a fitted model into a folder, or into one ``.mmdls`` file, that is safe to load.

    Weights are safetensors, parameters JSON, parts of scikit-learn without tensors are written by skops; nothing is
    pickled. A manifest has the versions of the libraries, the settings and what is given here; ``README.md`` is a model
    card, which also says what the model holds of patients. Checksums of all members are written with it. The model
    takes its name only when it is written whole; a model of the same name is replaced.

    Parameters
    ----------
    model : fitted estimator
        Of this library, or a ``Pipeline``, ``ColumnTransformer``, search or ensemble of scikit-learn around it. Its own
        classes must be registered (:mod:`mmdls.registry`).
    path : str or Path
        A name that ends in ``.mmdls`` makes one file, any other a folder.
    data : (X, y), default=None
        The training data, of which the number of patients and hashes are kept, nothing else.
    metrics : DataFrame or mapping of str to float, default=None
        The table of :func:`mmdls.evaluate`, or numbers by name, for the card.
    intended_use : str, default=None
        For whom and for what the model is, for the card.

    Raises
    ------
    TypeError
        If something in the model cannot be saved without loss, such as a function or a class that is not registered;
        the message says where it stands and what to do.
    FileNotFoundError, FileExistsError
        If the folder around it does not exist, or something else has its name.

    Warns
    -----
    UserWarning
        Of parameters that are not saved, since they name a place of this machine: caches, storages of searches.

    Examples
    --------
    >>> import tempfile
    >>> import mmdls
    >>> from mmdls.datasets import make_nsclc_cohort
    >>> X, y = make_nsclc_cohort(60, n_slices=2, image_size=16, return_X_y=True, random_state=0)
    >>> model = mmdls.ClinicalCox(endpoint="os").fit(X, y)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     mmdls.save(model, f"{folder}/cox.mmdls", data=(X, y))
    ...     same = mmdls.load(f"{folder}/cox.mmdls")
    >>> bool((same.predict(X) == model.predict(X)).all())
    True
    """
    if isinstance(model, type) or not hasattr(model, "get_params"):
        raise TypeError(f"save needs a fitted estimator; got {model!r}.")
    writer = Writer()
    root = writer.node(model, "model")
    if writer.left_out:
        warnings.warn(
            f"not saved: {'; '.join(writer.left_out)}. Set it again after loading, where it is needed.", stacklevel=2
        )
    manifest = make_manifest(
        model,
        data=data,
        metrics=metrics,
        intended_use=intended_use,
        holds=patients_held(model, None if data is None else len(data[0])),
        left_out=writer.left_out,
        packages=writer.packages(),
        code=writer.code,
    )
    members = {
        "manifest.json": as_json(manifest),
        "model.json": as_json({"model": root, "objects": writer.objects}),
        "arrays.safetensors": write_arrays(writer.arrays),
        "tensors.safetensors": write_tensors(writer.tensors),
        "README.md": model_card(manifest).encode(),
        **{f"parts/{name}.skops": content for name, content in writer.parts.items()},
    }
    write_members(path, members)


def load(path: str | PathLike) -> Any:
    """Load a model that :func:`save` wrote; nothing from the file is executed.

    Parameters
    ----------
    path : str or Path
        The folder or the ``.mmdls`` file.

    Returns
    -------
    fitted estimator
        Its predictions are those of the saved one, bit by bit, with the same versions of the libraries.

    Raises
    ------
    FileNotFoundError
        If there is nothing.
    ValueError
        If a member is missing, added, changed or compressed, if the format is newer than this version of the library,
        or if a member names what a saved model may not hold.
    ImportError
        If the model uses a registered part that is not registered here; the message says what to import.

    Warns
    -----
    InconsistentVersionWarning
        If it was saved with other versions of the libraries, or with other code of a registered part from elsewhere.

    Notes
    -----
    Checksums tell damage, and changes by somebody who did not write them anew. They do not tell who saved the model.

    Examples
    --------
    >>> import tempfile
    >>> from mmdls import ClinicalCox, save
    >>> from mmdls.datasets import make_nsclc_cohort
    >>> X, y = make_nsclc_cohort(60, n_slices=1, image_size=8, return_X_y=True, random_state=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(ClinicalCox(endpoint="os").fit(X, y), f"{folder}/cox.mmdls")
    ...     model = load(f"{folder}/cox.mmdls")
    >>> model.predict(X).shape
    (60,)
    """
    members = read_members(path)
    if "manifest.json" in members:
        check_format(_json(members, "manifest.json", path), path)
    verify(members, path)
    absent = {"manifest.json", "model.json", "arrays.safetensors", "tensors.safetensors", "README.md"} - members.keys()
    if absent:
        raise ValueError(f"{str(path)!r} lacks {', '.join(sorted(absent))}; get it again from where it comes from.")
    manifest, graph = _json(members, "manifest.json", path), _json(members, "model.json", path)
    parts = {name[6:-6]: content for name, content in members.items() if name.startswith("parts/")}
    try:
        warn_of_versions(manifest, path)
        with np.errstate(all="ignore"):
            arrays, tensors = read_arrays(members["arrays.safetensors"]), read_tensors(members["tensors.safetensors"])
            reader = Reader(graph["objects"], arrays, tensors, parts)
            model = reader.value(graph["model"])
            check_compiled(model)
        warn_of_sources(manifest.get("code", {}), reader.classes, path)
    except (ImportError, MemoryError):
        raise
    except (
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        OverflowError,
        RecursionError,
        SafetensorError,
        zipfile.BadZipFile,
        OSError,
        EOFError,
        RuntimeError,
        AssertionError,
    ) as error:
        raise ValueError(f"{str(path)!r} cannot be loaded: {error or type(error).__name__}") from error
    if not hasattr(model, "get_params"):
        raise ValueError(f"{str(path)!r} holds a {type(model).__name__}, which is no estimator.")
    return model


def _json(members: Mapping[str, bytes], name: str, path: Any) -> Any:
    try:
        found = json.loads(members[name])
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} of {str(path)!r} is no JSON: {error}. The model is damaged; get it again.") from error
    if not isinstance(found, dict):
        raise ValueError(f"{name} of {str(path)!r} holds no mapping. The model is damaged; get it again.")
    return found
