"""Hostile and odd input: every metric and reader answers the same in every form of its input, or refuses in our words.

The quick suite draws 2,000 examples here, the same ones every time; the slow one draws others, ten times as many.
"""

import os
import traceback
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.exceptions import UndefinedMetricWarning
from sksurv.util import Surv

from mmdls import metrics
from mmdls.evaluation import evaluate_predictions
from mmdls.images import SliceStore, read_image

ODD = [np.nan, np.inf, -np.inf, -1.0, 5e-324, 1e-300, 1e300, 1.0 + 1e-12, 2.0, 1e9]
REFUSALS = (ValueError, TypeError, KeyError)


@st.composite
def arguments(draw):
    """By name, what metrics take of 0 to 12 patients."""
    n = draw(st.sampled_from([0, 1, 2, 3, 5, 8, 12]))

    def values(sane, size=n):
        element = draw(st.sampled_from([sane, sane, sane, st.one_of(sane, st.sampled_from(ODD))]))
        return np.array(draw(st.lists(element, min_size=size, max_size=size)), dtype=float)

    unit, months = st.floats(0, 1), st.integers(1, 30).map(float)
    time, event = values(months), values(st.sampled_from([0.0, 1.0]))
    threshold = draw(st.sampled_from([0.5, 0.5, 0.0, 1.0, 2.0, np.nan]))
    horizon = draw(st.sampled_from([6.0, 12.0, 12.0, 40.0, 0.0, -3.0, np.nan, np.inf]))
    found = {
        "event": event,
        "time": time,
        "risk": values(st.floats(-3, 3)),
        "log_hazard": values(st.floats(-3, 3)),
        "survival": values(unit),
        "survival_at_time": values(unit),
        "incidence": values(unit),
        "y_true": values(st.sampled_from([0.0, 1.0])),
        "y_proba": values(unit),
        "y_pred": values(st.floats(-3, 3)),
        "score": values(st.floats(-3, 3)),
        "other": values(st.floats(-3, 3)),
        "group": values(st.sampled_from([0.0, 1.0, 2.0])),
        "causes": values(st.sampled_from([0.0, 1.0, 2.0])),
        "covariates": values(st.floats(-3, 3)),
        "treatment": values(st.sampled_from([0.0, 1.0])),
        "p_values": values(unit),
        "differences": values(st.floats(-1, 1)),
        "draws": values(st.floats(-1, 1)),
        "sample_weight": values(st.sampled_from([1.0, 1.0, 0.0, 2.5])),
        "horizon": horizon,
        "times": horizon,
        "threshold": threshold,
    }
    found["survival_train"] = found["survival_test"] = (event, time)
    found["outcome_train"] = found["outcome_test"] = (found["causes"], time)
    return found


# By name, the arguments in order.
CALLS = {
    "accuracy_score": "y_true y_proba sample_weight",
    "auc_score": "y_true y_proba sample_weight",
    "average_precision_score": "y_true y_proba sample_weight",
    "brier_score": "survival_train survival_test survival times",
    "brier_score_classes": "y_true y_proba sample_weight",
    "calibration_errors": "event time survival horizon",
    "calibration_intercept": "y_true y_proba",
    "calibration_slope": "y_true y_proba",
    "concordance_index": "event time risk sample_weight",
    "concordance_index_cause": "causes time risk",
    "concordance_index_ipcw": "survival_train survival_test risk",
    "cumulative_dynamic_auc": "survival_train survival_test risk times",
    "d_calibration": "event survival_at_time",
    "delong_test": "y_true score other",
    "expected_calibration_error": "y_true y_proba",
    "hazard_ratios": "event time covariates",
    "index_of_prediction_accuracy": "survival_train survival_test survival times",
    "kaplan_meier": "event time sample_weight",
    "log_loss": "y_true y_proba sample_weight",
    "logrank_test": "event time group",
    "mean_absolute_error": "y_true y_pred sample_weight",
    "mean_squared_error": "y_true y_pred sample_weight",
    "median_follow_up": "event time",
    "median_survival": "event time",
    "negative_predictive_value": "y_true y_proba threshold",
    "observed_expected_ratio": "event time survival horizon",
    "observed_expected_ratio_cause": "causes time incidence horizon",
    "quadratic_weighted_kappa": "y_true y_true",
    "r2_score": "y_true y_pred sample_weight",
    "root_mean_squared_error": "y_true y_pred",
    "sensitivity": "y_true y_proba threshold",
    "spearman_correlation": "y_true y_pred",
    "specificity": "y_true y_proba threshold",
    "baseline_cumulative_hazard": "event time log_hazard",
    "cumulative_incidence": "causes time",
    "interaction_test": "event time score treatment",
    "survival_calibration_slope": "survival_train survival_test survival horizon",
    "survival_calibration_curve": "event time survival horizon",
    "proportional_hazards_test": "event time covariates",
}
SHARES = (  # which lie between 0 and 1
    "accuracy_score auc_score average_precision_score concordance_index concordance_index_cause concordance_index_ipcw "
    "cumulative_dynamic_auc expected_calibration_error negative_predictive_value sensitivity specificity kaplan_meier "
    "d_calibration logrank_test"
).split()


def _forms(value):
    """The same numbers in other containers."""
    if isinstance(value, tuple) or np.ndim(value) == 0:
        return [value] * 4
    padded = np.full((len(value), 3), 7.0)
    padded[:, 1] = value
    locked = padded[:, 1]
    locked.setflags(write=False)
    return [
        list(value),
        pd.Series(value, index=np.arange(len(value))[::-1]),
        locked,
        value.astype(object),
    ]


def _taken(value, order):
    if isinstance(value, tuple):
        return tuple(_taken(each, order) for each in value)
    return value if np.ndim(value) == 0 else value[order]


def _structured(value):
    """The outcomes of survival as scikit-survival's array, where they can be one."""
    if not isinstance(value, tuple):
        return value
    state, time = value
    if set(state) <= {0.0, 1.0}:
        return (
            Surv.from_arrays(state.astype(bool), time) if len(time) else np.empty(0, [("event", bool), ("time", float)])
        )
    found = np.empty(len(time), [("cause", int), ("time", float)])
    found["cause"], found["time"] = np.nan_to_num(state, posinf=9, neginf=-9).clip(-9, 9), time
    return found


def _answer(call, values):
    """Numbers; or the error that refuses, raised and worded by this library or by a check of scikit-learn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", RuntimeWarning)  # of numpy: ours say what a user should know
        try:
            found = call(*map(_structured, values))
        except REFUSALS as error:
            frames = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
            ours = "mmdls" in frames[-1] or "sklearn/utils" in frames[-1]
            assert ours and len(str(error)) > 20, f"{frames[-1]}: {error!r}"
            return None
    return [np.asarray(part, dtype=float) for part in (found if isinstance(found, tuple) else (found,))]


def _equal(one, other, what):
    assert (one is None) == (other is None), f"{what}: {one} against {other}"
    for a, b in zip(one or [], other or [], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12, err_msg=what)


def check_metric(name, given_values, order_seed):
    call, values = getattr(metrics, name), [given_values[part] for part in CALLS[name].split()]
    found = _answer(call, values)
    for number in range(4):
        _equal(found, _answer(call, [_forms(value)[number] for value in values]), f"{name} in form {number}")
    if found is None:
        return
    order = np.random.default_rng(order_seed).permutation(len(given_values["event"]))
    _equal(found, _answer(call, [_taken(value, order) for value in values]), f"{name} in another order")
    if name in SHARES:
        for part in found[-1:]:
            assert np.isnan(part).all() or ((part >= -1e-9) & (part <= 1 + 1e-9)).all(), (name, part)


def _run(n, check, **strategies):
    options = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None}
    quick = {"derandomize": True, "phases": [Phase.generate]}
    settings(max_examples=n, **options, **quick)(given(**strategies)(check))()


@pytest.mark.parametrize("name", CALLS)
def test_a_metric_answers_the_same_in_every_form_or_refuses(name):
    _run(40, lambda values, seed: check_metric(name, values, seed), values=arguments(), seed=st.integers(0, 99))


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_a_metric_answers_the_same_in_every_form_or_refuses_in_many_examples(name):
    _run(400, lambda values, seed: check_metric(name, values, seed), values=arguments(), seed=st.integers(0, 99))


# -- what the examples found, as plain tests --------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [np.inf, -np.inf, 1e300, 1e9, np.nan, 0.5, -1.0])
def test_kappa_refuses_what_is_no_class(wrong):
    with pytest.raises(ValueError, match="y_true must be class codes 0 to 1 .* in the rows \\[1\\]"):
        metrics.quadratic_weighted_kappa([1.0, wrong, 0.0], [1.0, 0.0, 0.0])


def test_numbers_of_the_type_object_are_numbers():
    codes = np.array([1, 0, 1, 1], dtype=object)
    assert metrics.quadratic_weighted_kappa(codes, codes[::-1]) == metrics.quadratic_weighted_kappa(
        [1, 0, 1, 1], [1, 1, 0, 1]
    )
    assert metrics.accuracy_score(codes, [0.9, 0.9, 0.9, 0.1], codes) == metrics.accuracy_score(
        [1, 1, 1], [0.9, 0.9, 0.1]
    )
    with pytest.raises(ValueError, match="sample_weight must be finite numbers"):
        metrics.accuracy_score(codes, [0.9, 0.9, 0.9, 0.1], ["1", 1, 1, 1])


def test_nobody_is_undefined_and_said():
    nobody = np.zeros(0)
    with pytest.warns(UndefinedMetricWarning):
        assert np.isnan(metrics.average_precision_score(nobody, nobody))
    with pytest.warns(UndefinedMetricWarning):
        assert np.isnan(metrics.calibration_errors(nobody, nobody, nobody, 12.0)).all()
    assert metrics.survival_calibration_curve(nobody, nobody, nobody, 12.0).shape == (0,)
    assert np.isnan(metrics.proportional_hazards_test(nobody, nobody, nobody)).all()


MODES = ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "I", "I;16", "F", "CMYK"]


@st.composite
def files(draw):
    """A file of pixels: any mode of a PNG, arrays of any type and shape, pickles; with an ending that may lie."""
    kind = draw(st.sampled_from(["png", "npy"]))
    height, width = draw(st.sampled_from([(1, 1), (1, 7), (5, 4), (0, 3), (300, 2)]))
    mode = draw(st.sampled_from(MODES))
    n = draw(st.sampled_from([0, 1, 2, 500]))
    dtype = draw(st.sampled_from(["uint8", "int16", "float32", "float64", "bool", "object", "complex64", "<U3", ">f4"]))
    odd = draw(st.sampled_from([None, None, np.nan, np.inf]))
    ending = draw(st.sampled_from([kind, kind, kind, "png", "npy", "nii", "dcm", "txt"]))
    return kind, height, width, mode, n, dtype, odd, ending


def _write(path, kind, height, width, mode, n, dtype, odd):
    if kind == "png":
        image = Image.new(mode if mode != "PA" else "P", (max(width, 1), max(height, 1)))
        try:
            image.save(path, format="PNG")
        except (OSError, KeyError):  # a mode that PNG does not have
            image.convert("L").save(path, format="PNG")
        return
    array = np.zeros((n, height, width)).astype(dtype)
    if odd is not None and array.size and array.dtype.kind == "f":
        array.flat[0] = odd
    with path.open("wb") as file:
        np.save(file, array, allow_pickle=True)


def check_file(folder, case):
    *content, ending = case
    path = folder / f"slices.{ending}"
    _write(path, *content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = read_image(path, "P77")
            store = SliceStore.build([path, None], patients=["P77", "P78"], intensity_range=(0, 255))
        except (ValueError, TypeError, FileNotFoundError) as error:
            assert "P77" in str(error), error
            return
    assert image.ndim == 3 and image.dtype.kind in "buif" and np.isfinite(image).all() and image.size
    assert store.counts.tolist() == [len(image), 0] and np.isfinite(np.asarray(store.data, dtype=float)).all()


@pytest.mark.parametrize("n", [250, pytest.param(2500, marks=pytest.mark.slow)])
def test_any_file_of_pixels_is_read_or_refused_by_name(tmp_path, n):
    _run(n, lambda case: check_file(tmp_path, case), case=files())


def test_a_pickle_in_an_array_is_not_executed(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    np.save(tmp_path / "x.npy", np.array([Evil()], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="P77"):
        read_image(tmp_path / "x.npy", "P77")
    assert not (tmp_path / "executed").exists()


@st.composite
def cohorts(draw):
    """Predictions and outcomes of 1 to 9 patients: one event, none, ties, unknown values, odd numbers and names."""
    n = draw(st.integers(1, 9))
    element = draw(st.sampled_from([st.floats(-3, 3), st.one_of(st.floats(-3, 3), st.sampled_from(ODD))]))
    risk = draw(st.lists(element, min_size=n, max_size=n))
    time = draw(st.lists(st.sampled_from([1.0, 2.0, 2.0, 30.0, np.nan]), min_size=n, max_size=n))
    event = draw(st.lists(st.sampled_from([0.0, 1.0, 1.0, np.nan]), min_size=n, max_size=n))
    name = draw(st.sampled_from(["os", "überleben", "time to event", "os_2", "生存"]))
    index = draw(st.sampled_from([None, "text", "unicode", "duplicate", "float"]))
    return n, risk, time, event, name, index


def check_cohort(n, risk, time, event, name, index):
    ids = {
        "text": [f"P{i}" for i in range(n)],
        "unicode": [f"患者{i}" for i in range(n)],
        "duplicate": ["P"] * n,
        "float": np.arange(n) + 0.5,
    }.get(index, range(n))
    y = pd.DataFrame({f"{name}_time": time, f"{name}_event": event}, index=ids)
    y.loc[y.isna().any(axis=1).to_numpy()] = np.nan
    predictions = {name: pd.Series(risk, index=ids)}
    options = {"horizons": (1.5,), "n_resamples": 5, "random_state": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            table = evaluate_predictions(predictions, y, **options)
        except REFUSALS as error:
            frames = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
            assert "mmdls" in frames[-1] and len(str(error)) > 20, f"{frames[-1]}: {error!r}"
            return
        order = np.random.default_rng(n).permutation(n)
        again = evaluate_predictions({name: predictions[name].iloc[order]}, y.iloc[order], **options)
    assert index != "duplicate" or n == 1
    pd.testing.assert_series_equal(table["value"], again["value"], rtol=1e-9)
    unexplained = table["value"].isna() & (table["note"] == "")
    assert not unexplained.any(), table[unexplained]


@pytest.mark.parametrize("n", [230, pytest.param(2000, marks=pytest.mark.slow)])
def test_any_small_cohort_is_evaluated_or_refused(n):
    _run(n, lambda case: check_cohort(*case), case=cohorts())
