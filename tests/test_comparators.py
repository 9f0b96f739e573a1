"""The comparators against scikit-survival on the same prepared columns, and what their filters promise."""

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from sklearn.base import clone
from sklearn.feature_selection import VarianceThreshold
from sksurv.ensemble import GradientBoostingSurvivalAnalysis, RandomSurvivalForest
from sksurv.linear_model import CoxnetSurvivalAnalysis, CoxPHSurvivalAnalysis
from sksurv.metrics import concordance_index_censored
from sksurv.util import Surv

from mmdls import MMDLS, CorrelationFilter, Trainer, VarianceFilter
from mmdls.cohort import survival_target
from mmdls.datasets import make_nsclc_cohort
from mmdls.estimators import (
    ClinicalCox,
    CoxNet,
    RadiomicsCox,
    SignWeightedBagging,
    SurvivalBoosting,
    SurvivalForest,
    TabularEncoder,
)
from mmdls.estimators.columns._selection import select_columns
from mmdls.estimators.survival._partial_likelihood import PartialLikelihood
from mmdls.estimators.survival._ridge_cox import RidgeCox
from mmdls.estimators.survival._risk_groups import fit_cutpoints, risk_group
from mmdls.model_selection import CohortKFold

QUICK = {
    ClinicalCox: {},
    RadiomicsCox: {},
    CoxNet: {"alpha": 0.03},
    SurvivalForest: {"n_estimators": 12, "random_state": 0},
    SurvivalBoosting: {"n_estimators": 12, "random_state": 0},
    SignWeightedBagging: {"n_estimators": 25, "min_concordance": 0.6, "random_state": 0},
}
KINDS = list(QUICK)
ALL = ["clinical", "pet", "radiomics"]


def quick(kind, **params):
    return kind(**{"endpoint": "os"} | QUICK[kind] | params)


@pytest.fixture(scope="module")
def cohort():
    """A hundred patients with missing cells, missing PET and radiomics, and two endpoints."""
    X, y = make_nsclc_cohort(
        100,
        n_slices=1,
        image_size=8,
        n_radiomics=12,
        missing=0.1,
        missing_values=0.1,
        return_X_y=True,
        random_state=3,
    )
    assert X[[c for c in X.columns if c.startswith(("clinical_", "pet_"))]].isna().any(axis=None)
    return X, y


@pytest.fixture(scope="module")
def parts(cohort):
    X, y = cohort
    train, test = next(CohortKFold(4, random_state=0).split(X, y))
    return X.iloc[train], X.iloc[test], y.iloc[train], y.iloc[test]


def block(X, *names):
    return X[[c for name in names for c in X.columns if c.startswith(f"{name}_")]]


def published_columns(train, test, min_variance=1e-8, max_correlation=0.95):
    """The published screening, written out: median, variance, z-score, greedy correlation."""
    filled = [part.fillna(train.median()) for part in (train, test)]
    varying = [c for c in train if filled[0][c].var(ddof=0) > min_variance]
    mean, std = filled[0][varying].mean(), filled[0][varying].std(ddof=0)
    scaled = [(part[varying] - mean) / std for part in filled]
    kept = []
    for column in varying:
        if all(abs(np.corrcoef(scaled[0][column], scaled[0][other])[0, 1]) <= max_correlation for other in kept):
            kept.append(column)
    return [part[kept].to_numpy() for part in scaled]


ORACLES = {
    ClinicalCox: lambda: CoxPHSurvivalAnalysis(alpha=1.0, ties="efron"),
    RadiomicsCox: lambda: CoxPHSurvivalAnalysis(alpha=0.1, ties="efron"),
    CoxNet: lambda: CoxnetSurvivalAnalysis(l1_ratio=0.5, alphas=[0.03], fit_baseline_model=True),
    SurvivalForest: lambda: RandomSurvivalForest(
        n_estimators=12, min_samples_leaf=10, max_features="sqrt", random_state=0
    ),
    SurvivalBoosting: lambda: GradientBoostingSurvivalAnalysis(
        n_estimators=12, learning_rate=0.05, max_depth=2, subsample=0.7, random_state=0
    ),
}


@pytest.mark.parametrize("kind", list(ORACLES))
def test_equals_scikit_survival_on_the_same_columns(parts, kind):
    X_train, X_test, y_train, y_test = parts
    outcome = survival_target(y_train, "os")
    if kind is RadiomicsCox:
        train, test = published_columns(block(X_train, "radiomics"), block(X_test, "radiomics"))
    else:
        columns = [block(X, *(["clinical"] if kind is ClinicalCox else ALL)) for X in (X_train, X_test)]
        scale = None if kind in (SurvivalForest, SurvivalBoosting) else "power"
        encoder = TabularEncoder(scale=scale).fit(columns[0])
        train, test = (encoder.transform(part) for part in columns)
    oracle = ORACLES[kind]().fit(train, outcome)
    penalty = {"alpha": oracle.alpha} if kind in (ClinicalCox, RadiomicsCox) else {}
    model = quick(kind, **penalty).fit(X_train, y_train)
    np.testing.assert_allclose(model.predict(X_test), oracle.predict(test), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(model.unique_times_, oracle.unique_times_)
    for method in ("predict_survival_function", "predict_cumulative_hazard_function"):
        expected = np.vstack([f(oracle.unique_times_) for f in getattr(oracle, method)(test)])
        np.testing.assert_allclose(getattr(model, method)(X_test, return_array=True), expected, rtol=1e-6, atol=1e-9)
        functions = getattr(model, method)(X_test)
        np.testing.assert_allclose(np.vstack([f(model.unique_times_) for f in functions]), expected, rtol=1e-6)
    truth = survival_target(y_test, "os")
    c_index = concordance_index_censored(truth["event"], truth["time"], oracle.predict(test))[0]
    assert model.score(X_test, y_test) == pytest.approx(c_index, abs=1e-9)


@pytest.mark.parametrize("most", [3, 0.2, "sqrt"])
def test_boosted_trees_try_some_columns_at_each_split(parts, most):
    X_train, X_test, y_train, _ = parts
    train, test = (block(X, *ALL) for X in (X_train, X_test))
    encoder = TabularEncoder(scale=None).fit(train)
    oracle = ORACLES[SurvivalBoosting]().set_params(max_features=most)
    oracle.fit(encoder.transform(train), survival_target(y_train, "os"))
    risk = quick(SurvivalBoosting, max_features=most).fit(X_train, y_train).predict(X_test)
    np.testing.assert_allclose(risk, oracle.predict(encoder.transform(test)), rtol=1e-6, atol=1e-9)
    assert not np.allclose(risk, quick(SurvivalBoosting).fit(X_train, y_train).predict(X_test))


@pytest.mark.parametrize("kind", KINDS)
def test_survival_starts_at_one_and_never_rises(parts, kind):
    X_train, X_test, y_train, _ = parts
    model = quick(kind).fit(X_train, y_train)
    last = model.unique_times_[-1]
    assert (np.diff(model.unique_times_) > 0).all()
    grid = np.r_[0, np.linspace(0.01, last, 60)]
    survival = np.vstack([f(grid) for f in model.predict_survival_function(X_test)])
    hazard = np.vstack([f(grid) for f in model.predict_cumulative_hazard_function(X_test)])
    assert (survival[:, 0] == 1).all() and (hazard[:, 0] == 0).all()
    assert (np.diff(survival, axis=1) <= 1e-12).all() and (survival >= 0).all()
    assert (np.diff(hazard, axis=1) >= -1e-12).all()
    # Higher risk, shorter life: the order of risks is that of the areas under the curves.
    area = np.trapezoid(survival, grid, axis=1)
    risk = model.predict(X_test)
    assert concordance_index_censored(np.ones(len(risk), dtype=bool), area, risk)[0] > 0.95


@pytest.mark.parametrize("kind", KINDS)
def test_risk_groups_come_from_training_cut_points(parts, kind):
    X_train, X_test, y_train, _ = parts
    X_train, y_train = X_train.iloc[:73], y_train.iloc[:73]  # tertiles of 73 are risks of patients
    model = quick(kind).fit(X_train, y_train)
    cuts = model.risk_cutpoints_["os"]
    assert np.isin(cuts, model.predict(X_train)).all()
    np.testing.assert_array_equal(
        model.predict_risk_group(X_train), (model.predict(X_train)[:, None] > cuts).sum(axis=1)
    )
    np.testing.assert_allclose(cuts, np.quantile(model.predict(X_train), [1 / 3, 2 / 3]))
    risk, group = model.predict(X_test), model.predict_risk_group(X_test)
    np.testing.assert_array_equal(group, (risk > cuts[0]).astype(int) + (risk > cuts[1]))
    highest = X_test.iloc[[risk.argmax()] * 5].set_axis(list("abcde"))
    assert (model.predict_risk_group(highest) == group[risk.argmax()]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_learned_from_test_rows(parts, kind):
    X_train, X_test, y_train, _ = parts
    model = quick(kind).fit(X_train, y_train)
    risk = model.predict(X_test)
    changed = X_test.copy()
    numbers = [c for c in changed.columns if c.startswith(("pet_", "radiomics_"))]
    changed.loc[changed.index[5:], numbers] = 1e3
    np.testing.assert_allclose(model.predict(changed)[:5], risk[:5], rtol=1e-12)
    np.testing.assert_allclose(model.predict(X_test.iloc[::-1]), risk[::-1], rtol=1e-12)
    np.testing.assert_allclose([model.predict(X_test.iloc[[i]])[0] for i in range(3)], risk[:3], rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_patients_of_unknown_outcome_teach_nothing(parts, kind):
    X_train, X_test, y_train, _ = parts
    y = y_train.astype({"os_event": float, "dfs_event": float})
    y.loc[y.index[:8], ["os_time", "os_event"]] = np.nan
    X = X_train.copy()
    X.loc[X.index[:8], "clinical_age"] = 1e6
    model, without = quick(kind).fit(X, y), quick(kind).fit(X_train.iloc[8:], y_train.iloc[8:])
    np.testing.assert_allclose(model.predict(X_test), without.predict(X_test), rtol=1e-12)
    assert len(model.training_outcomes_["os"]) == len(y) - 8
    assert model.score(X, y) == without.score(X.iloc[8:], y.iloc[8:])


@pytest.mark.parametrize("kind", KINDS)
def test_columns_are_those_of_the_blocks_in_any_order(parts, kind):
    X_train, X_test, y_train, _ = parts
    model = quick(kind).fit(X_train, y_train)
    expected = [c for name in np.ravel(model.columns) for c in X_train.columns if c.startswith(f"{name}_")]
    assert model.feature_names_in_.tolist() == expected
    assert model.n_features_in_ == len(expected)
    risk = model.predict(X_test)
    np.testing.assert_array_equal(model.predict(X_test[X_test.columns[::-1]].assign(extra_1=1.0)), risk)
    pet = quick(kind, columns="pet").fit(X_train, y_train)
    assert all(name.startswith("pet_") for name in pet.feature_names_in_)


@pytest.mark.parametrize("kind", KINDS)
def test_tables_and_structured_arrays_and_plain_arrays_agree(parts, kind):
    X_train, X_test, y_train, _ = parts
    numbers = block(X_train, "radiomics").columns
    outcome = survival_target(y_train, "os")
    from_table = quick(kind, columns="radiomics").fit(X_train, y_train)
    from_structured = quick(kind, columns="radiomics").fit(X_train, outcome)
    from_array = quick(kind).fit(X_train[numbers].to_numpy(), outcome)
    risk = from_table.predict(X_test)
    np.testing.assert_array_equal(from_structured.predict(X_test), risk)
    np.testing.assert_array_equal(from_array.predict(X_test[numbers].to_numpy()), risk)
    assert not hasattr(from_array, "feature_names_in_")
    with pytest.warns(UserWarning, match="X has feature names"):
        np.testing.assert_array_equal(from_array.predict(X_test[numbers]), risk)
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        np.testing.assert_array_equal(from_table.predict(X_test[numbers].to_numpy()), risk)


@pytest.mark.parametrize("kind", KINDS)
def test_columns_are_given_by_their_names_or_by_those_of_blocks(parts, kind):
    X_train, X_test, y_train, _ = parts
    clinical, pet = (list(block(X_train, name).columns) for name in ("clinical", "pet"))
    rest = [c for c in pet if c != "pet_mtv"]
    for columns, expected in [
        ("pet_mtv", ["pet_mtv"]),
        (["pet_mtv", "clinical_age"], ["pet_mtv", "clinical_age"]),
        ("clinical", clinical),
        (("pet", "clinical"), [*pet, *clinical]),
        (np.array(["pet_mtv", "clinical", "pet"]), ["pet_mtv", *clinical, *rest]),
    ]:
        model = quick(kind, columns=columns).fit(X_train, y_train)
        assert list(model.feature_names_in_) == expected
    by_name = quick(kind, columns=pet).fit(X_train, y_train).predict(X_test)
    np.testing.assert_array_equal(quick(kind, columns="pet").fit(X_train, y_train).predict(X_test), by_name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("columns", ["mri", ["clinical", "mri"]])
def test_an_unknown_name_of_columns_is_refused_with_the_columns_there_are(parts, kind, columns):
    X_train, _, y_train, _ = parts
    message = rf"{kind.__name__} asks for \['mri'\].* nor columns \['mri_\*'\].*Columns: \[.*'clinical_age'"
    with pytest.raises(ValueError, match=message):
        quick(kind, columns=columns).fit(X_train, y_train)


def test_a_column_goes_before_a_block_and_identifiers_are_read_only_by_name():
    X = pd.DataFrame({"pet": [1.0, 2.0, 3.0], "pet_mtv": [3.0, 1.0, 2.0], "clinical_age": [60, 71, 55]})
    X = X.assign(clinical_id=["p1", "p2", "p3"], clinical_image=None)
    assert select_columns(X, "pet", "the model") == ["pet"]
    assert select_columns(X, "clinical", "the model") == ["clinical_age"]
    assert select_columns(X, ["clinical", "clinical_id"], "the model") == ["clinical_age", "clinical_id"]
    for nothing in ([], "", None):
        with pytest.raises(ValueError, match="the model needs the names of columns or blocks"):
            select_columns(X, nothing, "the model")


def test_modalities_select_by_the_rule_of_the_comparators(parts):
    X_train, _, y_train, _ = parts
    clinical = list(block(X_train, "clinical").columns)
    network = MMDLS({"both": ["clinical", "pet_mtv"]}, trainer=Trainer(max_epochs=1), random_state=0)
    assert network.fit(X_train, y_train).modalities_[0][2] == [*clinical, "pet_mtv"]


@pytest.mark.parametrize("kind", KINDS)
def test_errors_say_what_to_do(parts, kind):
    X_train, X_test, y_train, _ = parts
    model = quick(kind)
    name = np.ravel(model.columns)[0]
    with pytest.raises(
        ValueError, match=rf"asks for \['{name}'.* nor columns \['{name}_\*'.*Columns: \['lesion_image'"
    ):
        model.fit(X_train[["lesion_image", "centre"]], y_train)
    with pytest.raises(ValueError, match=r"nor columns \['lesion_\*'\] of numbers"):
        quick(kind, columns=["lesion"]).fit(X_train, y_train)
    with pytest.raises(ValueError, match=r"\['lesion_image'\] hold something else"):
        quick(kind, columns=["clinical", "lesion_image"]).fit(X_train, y_train)
    with pytest.raises(ValueError, match="y holds 2 endpoints"):
        quick(kind, endpoint=None).fit(X_train, y_train)
    with pytest.raises(KeyError, match="no endpoint or task 'pfs'"):
        quick(kind, endpoint="pfs").fit(X_train, y_train)
    with pytest.raises(ValueError, match="no event among"):
        quick(kind).fit(X_train, y_train.assign(os_event=0))
    with pytest.raises(ValueError, match="'survival' has no event among"):
        quick(kind).fit(X_train, survival_target(y_train.assign(os_event=0), "os"))
    same = quick(kind).fit(X_train, y_train.iloc[::-1]).predict(X_test)
    np.testing.assert_array_equal(same, quick(kind).fit(X_train, y_train).predict(X_test))
    with pytest.raises(ValueError, match="both need one row a patient"):
        quick(kind).fit(X_train, survival_target(y_train, "os")[:-1])
    model.fit(X_train, y_train)
    gone = model.feature_names_in_[0]
    with pytest.raises(ValueError, match=rf"X lacks the columns \['{gone}'\]"):
        model.predict(X_test.drop(columns=gone))


def test_one_endpoint_needs_no_name(parts):
    X_train, X_test, y_train, _ = parts
    dfs = ClinicalCox().fit(X_train, y_train[["dfs_time", "dfs_event"]])
    np.testing.assert_array_equal(
        dfs.predict(X_test), ClinicalCox(endpoint="dfs").fit(X_train, y_train).predict(X_test)
    )
    assert list(dfs.risk_cutpoints_) == ["dfs"]


def test_noise_alone_leaves_no_column_and_says_so():
    rng = np.random.default_rng(1)
    X = pd.DataFrame(rng.normal(size=(60, 3)), columns=["clinical_a", "clinical_b", "clinical_c"])
    y = pd.DataFrame({"os_time": rng.exponential(20, 60), "os_event": 1})
    with pytest.warns(UserWarning, match="leaves no column: all risks are equal") as caught:
        model = CoxNet(columns="clinical", n_alphas=2).fit(X, y)
    assert [w.filename for w in caught] == [__file__] * 2
    assert "hold 1 different values among 60 training patients" in str(caught[0].message)
    assert np.ptp(model.predict(X)) == 0


def test_signal_is_found(cohort):
    X, y = cohort
    rng = np.random.default_rng(0)
    risk = rng.normal(size=len(X))
    X = X.assign(clinical_signal=risk, radiomics_signal=risk, pet_signal=risk)
    y = pd.DataFrame({"os_time": rng.exponential(20 * np.exp(-1.5 * risk)), "os_event": 1}, index=X.index)
    for kind in KINDS:
        model = quick(kind).fit(X.iloc[:70], y.iloc[:70])
        assert model.score(X.iloc[70:], y.iloc[70:]) > 0.72, kind.__name__


# -- filters ----------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 999), threshold=st.sampled_from([1e-8, 0.1, 0.5]))
def test_the_variance_filter_is_that_of_scikit_learn(seed, threshold):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(20, 6)) * rng.choice([0.0, 0.2, 1.0], size=6)
    X[:, 0] = rng.normal(size=20)
    ours = VarianceFilter(threshold).fit(X)
    if X.var(axis=0).max() > threshold:
        np.testing.assert_array_equal(ours.get_support(), VarianceThreshold(threshold).fit(X).get_support())
    assert ours.transform(X).shape[1] == ours.get_support().sum() >= 1


def test_if_no_feature_varies_enough_the_one_that_varies_most_stays():
    X = np.array([[1.0, 1.0, 5.0], [1.0, 1.1, 5.0], [1.0, 0.9, 5.0]])
    kept = VarianceFilter(threshold=1.0).fit(X)
    assert kept.get_support().tolist() == [False, True, False]
    assert VarianceFilter().fit(np.ones((4, 3))).get_support().sum() == 1


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 999), threshold=st.floats(0.2, 0.99))
def test_kept_features_correlate_little_and_dropped_ones_with_an_earlier_one(seed, threshold):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(30, 3)) @ rng.normal(size=(3, 8)) + 0.3 * rng.normal(size=(30, 8))
    correlation = np.abs(np.corrcoef(X.T))
    kept = CorrelationFilter(threshold).fit(X).get_support()
    assert kept[0]
    for feature in range(8):
        earlier = correlation[feature, :feature][kept[:feature]]
        assert kept[feature] == (earlier <= threshold).all()
    shifted = X * rng.choice([-3.0, 0.01, 50.0], size=8) + 7
    np.testing.assert_array_equal(CorrelationFilter(threshold).fit(shifted).get_support(), kept)
    np.testing.assert_array_equal(CorrelationFilter(threshold).fit(X[::-1]).get_support(), kept)


def test_copies_go_and_constants_stay():
    rng = np.random.default_rng(0)
    first = rng.normal(size=25)
    X = np.column_stack([first, -2 * first + 1, np.full(25, 3.0), rng.normal(size=25), first])
    assert CorrelationFilter().fit(X).get_support().tolist() == [True, False, True, True, False]


@pytest.mark.parametrize("kind", [VarianceFilter, CorrelationFilter])
def test_filters_learn_from_training_rows_and_name_what_they_keep(kind):
    rng = np.random.default_rng(0)
    base, other = rng.normal(size=(2, 40))
    X = pd.DataFrame({"radiomics_a": base, "radiomics_b": base * 2, "radiomics_c": 0.0, "radiomics_d": other})
    chosen = kind().fit(X.iloc[:20])
    later = X.iloc[20:].assign(radiomics_b=rng.normal(size=20), radiomics_c=rng.normal(size=20))
    expected = {VarianceFilter: ["a", "b", "d"], CorrelationFilter: ["a", "c", "d"]}[kind]
    assert chosen.get_feature_names_out().tolist() == [f"radiomics_{letter}" for letter in expected]
    np.testing.assert_array_equal(chosen.transform(later), later[chosen.get_feature_names_out()])


def test_splines_follow_a_bend_that_a_line_cannot():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"clinical_age": rng.uniform(-3, 3, 600), "clinical_sex": rng.choice(["f", "m"], 600)})
    time = rng.exponential(30 * np.exp(-(X["clinical_age"] ** 2) + 3))
    y = pd.DataFrame({"os_time": np.minimum(time, 200), "os_event": (time < 200).astype(int)})
    straight, bent = (
        ClinicalCox(spline_knots=knots).fit(X[:400], y[:400]).score(X[400:], y[400:]) for knots in (None, 4)
    )
    assert straight < 0.6 and bent > 0.8
    beyond = ClinicalCox(spline_knots=4).fit(X[:400], y[:400]).predict(X.head(2).assign(clinical_age=[6.0, 60.0]))
    assert np.isfinite(beyond).all()
    with pytest.raises(ValueError, match="'spline_knots' parameter of ClinicalCox must be .* Got 1"):
        ClinicalCox(spline_knots=1).fit(X, y)


# -- weights -----------------------------------------------------------------------------------------------------------

WEIGHTED = [ClinicalCox, RadiomicsCox, SignWeightedBagging, SurvivalForest]


@pytest.mark.parametrize("kind", WEIGHTED)
def test_a_patient_of_weight_zero_is_no_patient(parts, kind):
    X_train, X_test, y_train, _ = parts
    weight = pd.Series(np.tile([1.0, 0.0, 1.0], 25), index=X_train.index)
    y = y_train.assign(
        os_time=y_train["os_time"].where(weight > 0, 0.1), os_event=y_train["os_event"].where(weight > 0, True)
    )
    y["dfs_time"] = np.minimum(y["dfs_time"], y["os_time"])
    X = X_train.assign(clinical_sex=X_train["clinical_sex"].where(weight > 0, "divers"))
    weighted = quick(kind).fit(X, y, sample_weight=weight.sample(frac=1, random_state=0))
    # A forest that draws by equal weights draws other rows than one without weights.
    ones = np.ones(50) if kind is SurvivalForest else None
    without = quick(kind).fit(X_train[weight > 0], y_train[weight > 0], sample_weight=ones)
    np.testing.assert_allclose(weighted.predict(X_test), without.predict(X_test), rtol=1e-9)
    np.testing.assert_allclose(weighted.risk_cutpoints_["os"], without.risk_cutpoints_["os"], rtol=1e-9)
    np.testing.assert_allclose(*(m.predict_survival_function(X_test, return_array=True) for m in (weighted, without)))
    np.testing.assert_array_equal(weighted.predict_risk_group(X_test), without.predict_risk_group(X_test))


@pytest.mark.parametrize(
    "model", [ClinicalCox(ties="breslow"), ClinicalCox(ties="breslow", spline_knots=3), RadiomicsCox(ties="breslow")]
)
def test_a_weight_is_a_repetition_in_model_baseline_and_cut_points(parts, model):
    X_train, X_test, y_train, _ = parts
    model = clone(model).set_params(endpoint="os", ties="breslow")
    weight = np.random.default_rng(0).integers(0, 4, len(X_train))
    weighted = clone(model).fit(X_train, y_train, sample_weight=weight)
    rows = np.arange(len(X_train)).repeat(weight)
    ids = [f"copy {i}" for i in range(len(rows))]
    repeated = clone(model).fit(X_train.iloc[rows].set_axis(ids), y_train.iloc[rows].set_axis(ids))
    plain = clone(model).fit(X_train, y_train)
    np.testing.assert_allclose(weighted.predict(X_test), repeated.predict(X_test), atol=1e-6)
    np.testing.assert_allclose(weighted.risk_cutpoints_["os"], repeated.risk_cutpoints_["os"], atol=1e-6)
    curves = [m.predict_survival_function(X_test, return_array=True) for m in (weighted, repeated)]
    np.testing.assert_allclose(*curves, atol=1e-6)
    assert np.abs(weighted.predict(X_test) - plain.predict(X_test)).max() > 0.1 * np.ptp(plain.predict(X_test))


def test_efron_weights_are_those_of_r():
    """The weighted example of the validation vignette of R's package survival, and the likelihood written out."""
    time, event = [1.0, 1, 2, 2, 2, 2, 3, 4, 5], [1, 0, 1, 1, 1, 0, 0, 1, 0]
    x, weight = np.array([2.0, 0, 1, 1, 0, 1, 0, 1, 0]), np.array([1.0, 2, 3, 4, 3, 2, 1, 2, 1])
    y = np.array(list(zip(np.array(event, dtype=bool), time, strict=True)), dtype=[("event", bool), ("time", float)])

    def minus(beta, ties):
        hazard, value = weight * np.exp(beta * x), 0.0
        for at in np.unique(y["time"][y["event"]]):
            dead = (y["time"] == at) & y["event"]
            left, tied, d = hazard[y["time"] >= at].sum(), hazard[dead].sum(), dead.sum()
            value += (weight * x)[dead].sum() * beta
            shares = np.arange(d) / d if ties == "efron" else np.zeros(d)
            value -= weight[dead].mean() * np.log(left - shares * tied).sum()
        return -value

    for ties, published in (("breslow", 0.85955744), ("efron", 0.87260425)):
        fit = RidgeCox(alpha=0.0, ties=ties).fit(x[:, None], y, weight)
        assert fit.coef_[0] == pytest.approx(published, abs=1e-6)
        assert fit.coef_[0] == pytest.approx(minimize_scalar(minus, args=(ties,), bounds=(0, 2)).x, abs=1e-4)


@pytest.mark.parametrize("kind", [CoxNet, SurvivalBoosting])
def test_a_model_that_takes_no_weights_says_so(parts, kind):
    X_train, _, y_train, _ = parts
    with pytest.raises(ValueError, match=f"{kind.__name__} takes no sample_weight: .* take weights"):
        quick(kind).fit(X_train, y_train, sample_weight=np.ones(len(X_train)))


@pytest.mark.parametrize(
    ("weight", "told"),
    [
        (lambda n: -np.ones(n), "[Nn]egative"),
        (lambda n: np.full(n, np.nan), "NaN"),
        (lambda n: np.zeros(n), "at least one non-zero"),
        (lambda n: np.ones(n - 1), "sample_weight"),
        (lambda n: pd.Series(np.ones(n)), "sample_weight lacks"),
    ],
)
def test_impossible_weights_are_refused(parts, weight, told):
    X_train, _, y_train, _ = parts
    with pytest.raises(ValueError, match=told):
        quick(ClinicalCox).fit(X_train, y_train, sample_weight=weight(len(X_train)))
    alive = (y_train["os_event"] == 0).astype(float)
    with pytest.raises(ValueError, match="no event among the .* sample_weight is above 0"):
        quick(ClinicalCox).fit(X_train, y_train, sample_weight=alive)


@pytest.mark.parametrize("kind", [ClinicalCox, SurvivalForest])
def test_times_that_differ_by_rounding_are_tied(parts, kind):
    X_train, X_test, y_train, _ = parts
    whole = y_train.assign(os_time=y_train["os_time"].round() + 60, dfs_time=1.0)
    rounded = whole.assign(os_time=whole["os_time"] + np.random.default_rng(0).uniform(0, 1e-12, len(whole)))
    assert rounded["os_time"].nunique() > whole["os_time"].nunique()
    risks = [quick(kind).fit(X_train, y).predict(X_test) for y in (whole, rounded)]
    np.testing.assert_allclose(*risks, rtol=1e-9)


def test_columns_that_depend_on_each_other_need_a_penalty():
    x = np.random.default_rng(0).normal(size=(40, 1))
    y = np.array([(True, t) for t in np.arange(1.0, 41)], dtype=[("event", bool), ("time", float)])
    with pytest.raises(ValueError, match="give alpha > 0"):
        RidgeCox(alpha=0.0).fit(np.hstack([x, x, np.zeros_like(x)]), y)


# -- risk groups -------------------------------------------------------------------------------------------------------


def test_a_step_that_goes_too_far_is_shortened():
    rng = np.random.default_rng(0)
    rng.normal(size=(80, 4))
    for n_columns in (150, 200, 300):
        X = rng.normal(size=(80, n_columns))
        y = Surv.from_arrays(rng.random(80) < 0.7, rng.exponential(size=80) * 10 + 0.1)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model = RidgeCox(alpha=0.1).fit(X, y)
        gradient = PartialLikelihood(X, y, np.ones(80), "efron")(model.coef_)[1] - 0.1 * model.coef_
        assert np.abs(gradient).max() < 1e-6


def test_two_risks_are_the_lowest_and_the_highest_group_and_one_risk_is_the_lowest():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"clinical_sex": ["F"] * 70 + ["M"] * 30}, index=[f"P{i}" for i in range(100)])
    y = pd.DataFrame(
        {"os_time": rng.exponential(np.r_[np.full(70, 60.0), np.full(30, 10.0)]), "os_event": 1}, index=X.index
    )
    with pytest.warns(
        UserWarning, match=r"of 'os' hold 2 different values .* groups of \[70, 0, 30\] patients"
    ) as caught:
        model = ClinicalCox().fit(X, y)
    assert caught[0].filename == __file__
    assert pd.crosstab(X["clinical_sex"], model.predict_risk_group(X)).to_numpy().tolist() == [[70, 0], [0, 30]]
    assert sorted(set(model.predict_risk_group(X))) == [0, 2]
    with pytest.warns(UserWarning, match=r"groups of \[100, 0, 0\] patients"):
        alike = ClinicalCox().fit(X.assign(clinical_sex="F"), y)
    assert (alike.predict_risk_group(X.assign(clinical_sex="F")) == 0).all()


@settings(max_examples=60, deadline=None)
@given(
    risk=st.lists(st.integers(-3, 3), min_size=1, max_size=30),
    scale=st.sampled_from([1.0, 1e-9, 1e9]),
    seed=st.integers(0, 99),
)
def test_cut_points_of_weights_are_those_of_repetitions(risk, scale, seed):
    risk = np.array(risk) * scale
    weight = np.random.default_rng(seed).integers(0, 3, len(risk))
    weight[0] = 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found, expected = fit_cutpoints(risk, weight * 0.3), fit_cutpoints(risk.repeat(weight))
    np.testing.assert_allclose(found, expected)
    groups = np.bincount(risk_group(risk, found), weight, minlength=3) / weight.sum()
    assert groups[0] >= 1 / 3 - 1e-9 and groups[:2].sum() >= 2 / 3 - 1e-9
    np.testing.assert_array_equal(risk_group(found, found), [0, found[1] > found[0]])


# -- parameters --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "params"),
    [
        (ClinicalCox, {"columns": 3}),
        (ClinicalCox, {"columns": ()}),
        (ClinicalCox, {"columns": [3]}),
        (ClinicalCox, {"endpoint": 3}),
        (ClinicalCox, {"alpha": -1.0}),
        (ClinicalCox, {"alpha": np.nan}),
        (ClinicalCox, {"spline_knots": 2.5}),
        (ClinicalCox, {"ties": "exact"}),
        (RadiomicsCox, {"min_variance": np.nan}),
        (RadiomicsCox, {"max_correlation": 1.5}),
        (CoxNet, {"l1_ratio": 0.0}),
        (CoxNet, {"alpha": "best"}),
        (CoxNet, {"n_alphas": 0}),
        (CoxNet, {"cv": 1}),
        (SurvivalForest, {"n_estimators": 0}),
        (SurvivalForest, {"max_features": -0.2}),
        (SurvivalForest, {"min_samples_leaf": 0}),
        (SignWeightedBagging, {"min_concordance": 0.4}),
        (SignWeightedBagging, {"max_features": np.nan}),
        (SurvivalBoosting, {"learning_rate": 0.0}),
        (SurvivalBoosting, {"subsample": np.nan}),
        (SurvivalBoosting, {"max_depth": 0}),
    ],
)
def test_parameters_are_checked_by_name(parts, kind, params):
    X_train, _, y_train, _ = parts
    with pytest.raises(ValueError, match=next(iter(params))):
        quick(kind, **params).fit(X_train, y_train)


@pytest.mark.parametrize("filtered", [VarianceFilter(-1.0), VarianceFilter(np.nan), CorrelationFilter(1.5)])
def test_thresholds_of_filters_are_checked(filtered):
    with pytest.raises(ValueError, match="'threshold' parameter"):
        filtered.fit(np.random.default_rng(0).normal(size=(9, 2)))


@pytest.mark.parametrize("filtered", [VarianceFilter(1.2), CorrelationFilter(0.3)])
def test_filters_take_weights_as_repetitions(filtered):
    rng = np.random.default_rng(0)
    X, weight = rng.normal(size=(20, 12)), rng.integers(0, 4, 20)
    weighted = clone(filtered).fit(X, sample_weight=weight).get_support()
    np.testing.assert_array_equal(weighted, clone(filtered).fit(X.repeat(weight, axis=0)).get_support())
    assert (weighted != clone(filtered).fit(X).get_support()).any()


# The data set lung of R's package survival: age, sex and ECOG of the 227 patients who have all three, scaled by
# TabularEncoder. PHReg(time, Z, status, ties=ties).fit() of statsmodels 0.15.0; lifelines 0.30.3 gives the same.
PHREG = {
    "efron": (
        [0.10770668135383661, -0.2730108119976539, 0.3268195080314702],
        [0.0827639592747237, 0.0821314571967162, 0.08513417071379868],
        [0.19313122681872252, 0.000887135415257873, 0.00012359892673197964],
        [[-0.0545076980425616, 0.2699210607502348], [-0.4339855101010107, -0.11203611389429713]],
    ),
    "breslow": (
        [0.10745172612844006, -0.2726505348374996, 0.3262911278510696],
        [0.0827575062540961, 0.08213334244189031, 0.08512496903351315],
        [0.19415249217095054, 0.0009014379459241852, 0.00012654689246509277],
        [[-0.05475000557993656, 0.2696534578368167], [-0.4336289279534997, -0.11167214172149956]],
    ),
}


def lung(data_dir):
    table = pd.read_csv(data_dir / "golden_survival" / "r_survival" / "lung.csv").dropna(subset=["sex", "ph.ecog"])
    X = table[["age", "sex", "ph.ecog"]].set_axis(["clinical_age", "clinical_sex", "clinical_ecog"], axis=1)
    y = pd.DataFrame({"os_time": table["time"] / 30.4375, "os_event": table["status"] == 2})
    return X, y


@pytest.mark.parametrize("ties", PHREG)
def test_the_summary_is_that_of_statsmodels(ties, data_dir):
    X, y = lung(data_dir)
    found = ClinicalCox(alpha=0.0, ties=ties).fit(X, y).summary()
    coef, error, p, interval = PHREG[ties]
    assert found.index.name == "covariate" and found.index.tolist() == list(X.columns)
    np.testing.assert_allclose(found["coef"], coef, rtol=1e-6)
    np.testing.assert_allclose(found["se(coef)"], error, rtol=1e-6)
    np.testing.assert_allclose(found["z"], np.divide(coef, error), rtol=1e-6)
    np.testing.assert_allclose(found["p"], p, rtol=1e-5)
    bounds = found[["coef lower 95%", "coef upper 95%"]].to_numpy()
    np.testing.assert_allclose(bounds[:2], interval, rtol=1e-6)
    np.testing.assert_allclose(np.log(found[["exp(coef) lower 95%", "exp(coef) upper 95%"]]), bounds)
    np.testing.assert_allclose(np.log(found["exp(coef)"]), found["coef"])


def test_under_a_penalty_errors_are_those_of_lifelines(data_dir):
    """CoxPHFitter(penalizer=0.1) of lifelines 0.30.3, whose penalty is a patient's, and of columns with n - 1 in SD."""
    X, y = lung(data_dir)
    found = ClinicalCox(alpha=0.1 * len(X) * (len(X) / (len(X) - 1))).fit(X, y).summary()
    np.testing.assert_allclose(
        found["coef"], [0.09985092962864696, -0.23475484840088837, 0.28102122952234243], rtol=1e-3
    )
    np.testing.assert_allclose(
        found["se(coef)"], [0.07684733544005592, 0.07565235531971927, 0.0780929533196709], rtol=1e-4
    )


def test_errors_of_more_columns_than_patients_are_those_of_the_whole_information():
    rng = np.random.default_rng(0)
    x, alpha = rng.normal(size=(20, 30)), 3.0
    y = np.array([(True, t) for t in rng.exponential(10, 20)], dtype=[("event", bool), ("time", float)])
    model = RidgeCox(alpha=alpha).fit(x, y)
    information = PartialLikelihood(x, y, np.ones(20), "efron")(model.coef_)[2]
    expected = np.diag(np.linalg.inv(information + alpha * np.eye(30)))
    np.testing.assert_allclose(model.variance_, expected, rtol=1e-8)


@pytest.mark.parametrize("kind", [ClinicalCox, RadiomicsCox, CoxNet])
def test_coefficients_have_the_names_of_what_they_weigh(parts, kind):
    """Their sum over the columns that reach the model is the risk, and no name is made up."""
    X_train, X_test, y_train, _ = parts
    model = quick(kind, columns="all").fit(X_train, y_train)
    names = model.coef_.index
    assert names.is_unique and all(name.startswith(("clinical_", "pet_", "radiomics_")) for name in names)
    values = model.pipeline_[:-1].transform(model._features(X_test, reset=False))
    sums = values @ model.coef_.to_numpy()
    np.testing.assert_allclose(sums - sums.mean(), model.predict(X_test) - model.predict(X_test).mean(), atol=1e-8)


def test_splines_have_names_and_levels_of_confidence_are_checked(parts):
    X_train, _, y_train, _ = parts
    model = quick(ClinicalCox, spline_knots=3).fit(X_train, y_train)
    assert {"clinical_age_sp_0", "clinical_sex_male"} <= set(model.coef_.index)
    assert "coef lower 90%" in model.summary(confidence_level=0.9)
    with pytest.raises(ValueError, match="between 0 and 1"):
        model.summary(confidence_level=95)


def test_a_forest_refuses_one_time_of_all_patients():
    X = pd.DataFrame({"clinical_x": np.arange(30.0)})
    y = pd.DataFrame({"os_time": 12.0, "os_event": np.arange(30) % 2 == 0})
    with pytest.raises(ValueError, match="all 30 patients have one time, 12 months"):
        SurvivalForest(columns="clinical").fit(X, y)
