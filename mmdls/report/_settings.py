"""Settings of a report: data, versions, models, and what searches inside the models chose."""

import html
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd
from sklearn.model_selection import ParameterGrid

from mmdls._provenance import data_hash, image_hash
from mmdls._secrets import without_secrets
from mmdls._versions import versions
from mmdls.report._html import OPEN, html_table
from mmdls.report._study import Study

# How a search or a training runs, not what it fits; shown where it is not the default.
_RUNNING = frozenset(
    "catch device epoch_pruner error_score n_jobs objectives pre_dispatch pruner refit return_train_score sampler "
    "storage timeout verbose".split()
)


def settings(study: Study, settings: Mapping[str, Any] | None) -> str:
    text = "<h3>Data</h3>" + html_table(
        pd.DataFrame(
            [
                ("patients", len(study.X)),
                ("columns of X, of y", f"{study.X.shape[1]}, {study.y.shape[1]}"),
                ("SHA-256 of X", data_hash(study.X)),
                ("SHA-256 of y", data_hash(study.y)),
                ("SHA-256 of images and masks", image_hash(study.X) or "none"),
                ("bootstrap resamples, seed", f"{study.n_resamples}, {study.random_state}"),
            ],
            columns=["What", "Value"],
        )
    )
    text += "<h3>Versions</h3>" + html_table(pd.DataFrame(versions(), columns=["Package", "Version"]))
    shown = dict(settings or {})
    if study.found is not None:
        shown |= {"cross-validation": study.found.cv, "seed of the folds": study.found.random_state}
    for crossed in study.crossed.values():
        shown |= {"cross-validation": crossed.cv, "seed of the folds": crossed.random_state}
    for name, model in _models(study).items():
        if isinstance(model, str):
            shown[name] = f"{model}, a registered model"
            continue
        shown[name] = type(model).__name__
        shown |= {f"{name}: {key}": value for key, value in _parameters(model)}
    if shown:
        frame = pd.DataFrame(
            [(key, without_secrets(str(value))[:300]) for key, value in shown.items()], columns=["Setting", "Value"]
        )
        text += "<h3>Settings of the models</h3>" + html_table(frame)
    else:
        text += f"<h3>Settings of the models</h3><p class='open'>{OPEN}</p>"
    fits = _fits(study)
    if fits is not None:
        names = {"model": "Model", "fold": "Fold", "n_train": "Fitted on", "n_test": "Predicted", "seconds": "Seconds"}
        chosen = [", ".join(f"{key}={_short(value)}" for key, value in each.items()) for each in fits["chosen"]]
        table = fits.rename(columns=names)[list(names.values())].assign(Chosen=chosen)
        text += f"<h3>Fits, and the hyperparameters that they chose</h3>{nested(study)}{html_table(table)}"
    return text


def nested(study: Study) -> str:
    """Which models were searched in each outer fold, over what."""
    fits, lines = _fits(study), []
    if fits is None:
        return ""
    for name, own in fits.groupby("model", sort=False):
        keys = dict.fromkeys(key for chosen in own["chosen"] for key in chosen)
        search = _search(_models(study).get(str(name)))
        if not keys and search is None:
            continue
        trials = "" if search is None else _trials(search)
        inner = getattr(search, "cv", None)
        about = [trials, f"{inner} inner folds" if isinstance(inner, int) else "", f"searched: {', '.join(keys)}"]
        kind = "its own search" if search is None else type(search).__name__
        lines.append(
            f"{name} by {kind} ({'; '.join(filter(None, about[: 2 + bool(keys)]))}), refitted in each of "
            f"{own['fold'].nunique()} outer folds"
        )
    if not lines:
        return ""
    return (
        f"<p>Nested cross-validation: {html.escape('. '.join(lines))}. So no choice has seen the patients who are "
        "predicted with it.</p>"
    )


def _models(study: Study) -> dict[str, Any]:
    if study.found is not None:
        return dict(study.found.models)
    return study.estimators | {name: crossed.model for name, crossed in study.crossed.items()}


def _fits(study: Study) -> pd.DataFrame | None:
    if study.found is not None:
        return study.found.fits
    fits = [crossed.fits.assign(model=name) for name, crossed in study.crossed.items()]
    return pd.concat(fits) if fits else None


def _search(model: Any) -> Any:
    """The search that a model is, or ends with."""
    while hasattr(model, "steps"):
        model = model.steps[-1][1]
    return model if all(hasattr(model, name) for name in ("estimator", "cv", "refit")) else None


def _trials(search: Any) -> str:
    if hasattr(search, "param_grid"):
        return f"{len(ParameterGrid(search.param_grid))} points"
    n = getattr(search, "n_trials", getattr(search, "n_iter", None))
    return "" if n is None else f"{n} trials"


def _parameters(model: Any) -> Iterator[tuple[str, Any]]:
    """The parameters of a model and its parts, without those that only say how it runs and are the default."""
    everything = model.get_params(deep=True)
    for key, value in everything.items():
        prefix, _, name = key.rpartition("__")
        owner = everything.get(prefix) if prefix else model
        runs = name in _RUNNING and hasattr(owner, "get_params")
        default = inspect.signature(type(owner)).parameters.get(name) if runs else None
        if default is None or str(default.default) != str(value):
            yield key, value


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
