"""The contract of an estimator: scikit-learn's, on a table of patients with images, gaps and several outcomes."""

import io
import pickle
import random
import warnings
from collections.abc import Iterator
from typing import Any

import joblib
import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr
from sklearn.base import BaseEstimator, clone, is_classifier

from mmdls.cohort import cell_columns
from mmdls.datasets import make_nsclc_cohort
from mmdls.testing._saving import reloaded
from mmdls.testing._studies import equipped, is_array, readable, shrunk

__all__ = ["check_estimator"]


def check_estimator(estimator: type[BaseEstimator]) -> None:
    """The scikit-learn contract on a table of patients with images, missing cells and several outcomes.

    The estimator is built with its defaults; conventional parameters (``max_epochs``, ``n_estimators``, ``endpoint``,
    ``random_state`` ...) are set to keep the check quick.

    Parameters
    ----------
    estimator : class

    Raises
    ------
    AssertionError
        If the contract is broken.

    Examples
    --------
    >>> from mmdls import ClinicalCox
    >>> check_estimator(ClinicalCox)
    """
    X, y = make_nsclc_cohort(48, n_slices=(1, 3), image_size=16, missing=0.1, return_X_y=True, random_state=0)
    model = shrunk(estimator)
    X = readable(X, model)
    model = equipped(model, X)
    target = y["subtype"].astype(str) if is_classifier(model) else y
    parameters = repr(model.get_params())
    X_before, y_before, state = X.copy(), y.copy(), _random_state()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = clone(model).fit(X, target)
        assert fitted.n_features_in_ == len(fitted.feature_names_in_), "n_features_in_ must count feature_names_in_"
        answer = _answers(fitted, X)
        again = _answers(clone(model).fit(X, target), X)
        assert repr(fitted.get_params()) == parameters, "fit must not change parameters"
        pd.testing.assert_frame_equal(X.drop(columns=cell_columns(X)), X_before.drop(columns=cell_columns(X)))
        pd.testing.assert_frame_equal(y, y_before)
        for library, moved in _moved(state):
            assert not moved, f"{library}'s global random state was moved"
        _same(answer, again, 0, "equal seeds must give equal answers")
        order = np.random.default_rng(0).permutation(len(X))
        shuffled = _answers(fitted, X.iloc[order])
        _same(answer.iloc[order], shuffled, 1e-4, "the order of patients changed their answers")
        _same(answer[3:4], _answers(fitted, X.iloc[3:4]), 1e-4, "a patient alone differs from itself in the table")
        if hasattr(fitted, "predict_survival_function"):
            _check_curves(fitted, X)
        if hasattr(fitted, "present_modalities"):
            _check_missing_modalities(fitted, X)
        buffer = io.BytesIO()
        joblib.dump(fitted, buffer)
        for copy in (pickle.loads(pickle.dumps(fitted)), joblib.load(io.BytesIO(buffer.getvalue()))):
            _same(answer, _answers(copy, X), 1e-6, "a pickled copy answers differently")
        if (loaded := reloaded(fitted)) is not None:
            _same(answer, _answers(loaded, X), 0, "a saved model answers differently once it is loaded")
            assert repr(loaded) == repr(fitted), "parameters must survive mmdls.save and mmdls.load"
        assert not hasattr(clone(fitted), "n_features_in_"), "a clone must be unfitted"
        gone = X.drop(columns=[fitted.feature_names_in_[0]])
        try:
            _answers(fitted, gone)
        except (ValueError, KeyError) as error:
            assert str(fitted.feature_names_in_[0]) in str(error), f"the error must name the lost column: {error}"
        else:
            raise AssertionError("a column that disappeared between fit and predict went unnoticed")


def _check_missing_modalities(model: BaseEstimator, X: pd.DataFrame) -> None:
    """Any modality may be missing for anybody; a patient without data is answered by the average, and flagged."""
    blocks = {name: columns for name, _, columns in model.modalities_}

    def without(names: list[str]) -> pd.DataFrame:
        hidden = [column for name in names for column in blocks[name]]
        return X.assign(**{column: X[column].where(np.zeros(len(X), dtype=bool)) for column in hidden})

    whole, here = _answers(model, X), model.present_modalities(X)
    for name in blocks:
        gone = without([name])
        answer = _answers(model, gone)
        assert answer.notna().all(axis=None), f"without the modality {name!r} there must be an answer for every patient"
        assert not model.present_modalities(gone)[name].any(), f"present_modalities must say that {name!r} is missing"
        had = here[name].to_numpy()
        _same(whole[~had], answer[~had], 1e-6, f"hiding {name!r} changed the answer for patients who never had it")
    nothing = without(list(blocks))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.predict(nothing)
    assert any("none of the modalities" in str(one.message) for one in caught), "patients without data must be said"
    assert not model.present_modalities(nothing).any(axis=None), "present_modalities must say that nothing is there"
    parts = [pd.DataFrame(model.predict(nothing)).reset_index(drop=True)]
    _same(pd.concat([parts[0][:1]] * len(X)), parts[0], 1e-9, "patients without data must all get one answer")


def _check_curves(model: BaseEstimator, X: pd.DataFrame) -> None:
    """Survival falls from 1, cumulative hazard rises from 0, and both rank patients alike."""
    assert hasattr(model, "predict_cumulative_hazard_function"), "predict_cumulative_hazard_function is missing"
    task = [next(name for name in model.unique_times_)] if isinstance(model.unique_times_, dict) else []
    survival = model.predict_survival_function(X, *task, return_array=True)
    hazard = model.predict_cumulative_hazard_function(X, *task, return_array=True)
    assert survival.shape == hazard.shape == (len(X), survival.shape[1]), "one row a patient, one column a time"
    assert (np.diff(survival) <= 1e-9).all() and (survival <= 1).all(), "survival must never rise, nor exceed 1"
    assert (np.diff(hazard) >= -1e-9).all() and (hazard >= 0).all(), "the cumulative hazard must never fall"
    alike = spearmanr(survival.mean(axis=1), hazard.mean(axis=1)).statistic
    assert alike < -0.5, "who has the higher cumulative hazard must have the lower survival"


def _random_state() -> dict[str, Any]:
    numpy_state = np.random.get_state(legacy=False)  # noqa: NPY002
    key, position = numpy_state["state"]["key"], numpy_state["state"]["pos"]
    return {
        "torch": torch.get_rng_state().tolist(),
        "NumPy": [key.tolist(), position, numpy_state["has_gauss"], numpy_state["gauss"]],
        "Python": random.getstate(),
    }


def _moved(before: dict[str, Any]) -> Iterator[tuple[str, bool]]:
    after = _random_state()
    for library, state in before.items():
        yield library, after[library] != state


def _answers(model: BaseEstimator, X: pd.DataFrame) -> pd.DataFrame:
    """Everything the model says about X, one row a patient."""
    parts = []
    if hasattr(model, "transform"):
        parts.append(np.asarray(_measured(model.transform(X)), dtype=float))
    if hasattr(model, "predict"):
        parts.append(_measured(model.predict(X)))
    if is_classifier(model):
        parts.append(model.predict_proba(X))
    table = pd.concat([pd.DataFrame(part).reset_index(drop=True) for part in parts], axis=1)
    return table.set_axis(range(table.shape[1]), axis=1)


def _measured(answer: Any) -> Any:
    """Arrays in cells as one number each: their mean with weights that rise from pixel to pixel."""
    if not isinstance(answer, pd.DataFrame):
        return answer

    def measure(cell: Any) -> Any:
        return np.average(cell, weights=np.arange(1.0, cell.size + 1).reshape(cell.shape)) if is_array(cell) else cell

    arrays = [name for name, column in answer.items() if column.map(is_array).any()]
    return answer.assign(**{name: answer[name].map(measure).astype(float) for name in arrays})


def _same(one: pd.DataFrame, other: pd.DataFrame, tolerance: float, what: str) -> None:
    try:
        pd.testing.assert_frame_equal(
            one.reset_index(drop=True), other.reset_index(drop=True), rtol=tolerance, atol=tolerance
        )
    except AssertionError as difference:
        raise AssertionError(f"{what}: {difference}") from None
