"""Figures draw the numbers of the metrics, on the axes given, and nothing of them lies outside the picture."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from sksurv.nonparametric import kaplan_meier_estimator

from mmdls import metrics, plotting
from mmdls.tables import random_effects_summary

TIMES = np.arange(6.0, 66.0, 6.0)


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    risk = rng.normal(size=150)
    true, leaving = rng.exponential(40 * np.exp(-risk)), rng.uniform(6, 110, 150)
    y = np.empty(150, dtype=[("event", bool), ("time", float)])
    y["event"], y["time"] = true <= leaving, np.minimum(true, leaving)
    labels = (risk + rng.normal(size=150) > 0).astype(int)
    risks = {"clinical": risk * 0.5 + rng.normal(size=150) * 0.8, "multimodal": risk}
    survival = {name: np.exp(-np.exp(r)[:, None] * TIMES / 40) for name, r in risks.items()}
    share = {name: 1 / (1 + np.exp(-r)) for name, r in risks.items()}
    return y, labels, risks, survival, share


def draw(name, data, ax=None):
    y, labels, risks, survival, share = data
    at = {model: table[:, list(TIMES).index(36.0)] for model, table in survival.items()}
    table = pd.DataFrame({"label": ["A", "B"], "value": [0.7, np.nan], "low": [0.6, np.nan], "high": [0.8, np.nan]})
    table["n"], table["n_events"] = pd.array([90, pd.NA], dtype="Int64"), pd.array([40, pd.NA], dtype="Int64")
    table["note"] = ["", "suppressed: fewer than 20 patients"]
    calls = {
        "roc": lambda: plotting.roc(labels, share, n_resamples=20, ax=ax),
        "precision_recall": lambda: plotting.precision_recall(labels, share, n_resamples=20, ax=ax),
        "calibration": lambda: plotting.calibration(labels, share, ax=ax),
        "auc_over_time": lambda: plotting.auc_over_time(y, y, risks, TIMES, n_resamples=20, ax=ax),
        "brier_over_time": lambda: plotting.brier_over_time(y, y, survival, TIMES, n_resamples=20, ax=ax),
        "survival_calibration": lambda: plotting.survival_calibration(y["event"], y["time"], at, 36.0, ax=ax),
        "decision_curve": lambda: plotting.decision_curve(y, y, at, 36.0, ax=ax),
        "forest": lambda: plotting.forest(
            table,
            pooled=random_effects_summary([0.7, 0.6, 0.8], [0.6, 0.5, 0.7], [0.8, 0.7, 0.9]),
            reference=0.5,
            ax=ax,
        ),
        "cumulative_incidence": lambda: plotting.cumulative_incidence(
            y["event"] * (1 + labels),
            y["time"],
            {k: pd.DataFrame((1 - survival["clinical"]) / 2, columns=TIMES) for k in (1, 2)},
            labels={1: "death of cancer", 2: "other deaths"},
            ax=ax,
        ),
        "predicted_observed": lambda: plotting.predicted_observed(
            risks["multimodal"], {"clinical": risks["clinical"]}, unit="litres", n_resamples=20, ax=ax
        ),
        "kaplan_meier": lambda: plotting.kaplan_meier(y["event"], y["time"], risks["multimodal"] > 0, ax=ax),
    }
    return calls[name]()


@pytest.mark.parametrize("name", plotting.__all__)
def test_a_figure_returns_the_axes_it_was_given(name, data):
    _, given = plt.subplots()
    assert draw(name, data, given) is given
    assert draw(name, data) is not given


@pytest.mark.parametrize("name", plotting.__all__)
def test_nothing_lies_outside_the_picture(name, data):
    """Every text, and the axes themselves, within the figure as it is saved."""
    ax = draw(name, data)
    figure = ax.figure
    figure.savefig("/dev/null", format="png")
    renderer = figure.canvas.get_renderer()
    texts = [*ax.texts, ax.xaxis.label, ax.yaxis.label]
    for axis in (ax.xaxis, ax.yaxis):
        low, high = sorted(axis.get_view_interval())
        texts += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    if ax.get_legend() is not None:
        texts.append(ax.get_legend())
    for text in texts:
        box = text.get_window_extent(renderer)
        if box.width == 0:
            continue
        assert box.x0 >= -1 and box.y0 >= -1, text
        assert box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1, text


def curve(ax, start):
    return next(line for line in ax.lines if str(line.get_label()).startswith(start)).get_xydata()


def test_the_area_under_the_roc_curve_is_the_auc(data):
    _, labels, _, _, share = data
    ax = draw("roc", data)
    drawn = curve(ax, "clinical")
    value = metrics.auc_score(labels, share["clinical"])
    assert np.trapezoid(drawn[:, 1], drawn[:, 0]) == pytest.approx(value)
    assert f"clinical AUC {value:.2f} [" in [t.get_text() for t in ax.get_legend().get_texts()][0]


def test_curves_over_time_are_the_metrics(data):
    y, _, risks, survival, _ = data
    drawn = curve(draw("auc_over_time", data), "multimodal")
    np.testing.assert_allclose(drawn[:, 1], metrics.cumulative_dynamic_auc(y, y, risks["multimodal"], TIMES))
    ax = draw("brier_over_time", data)
    np.testing.assert_allclose(curve(ax, "clinical")[:, 1], metrics.brier_score(y, y, survival["clinical"], TIMES))
    times, null = kaplan_meier_estimator(y["event"], y["time"])
    null = np.tile(null[np.searchsorted(times, TIMES, side="right") - 1], (150, 1))
    np.testing.assert_allclose(curve(ax, "Kaplan-Meier")[:, 1], metrics.brier_score(y, y, null, TIMES))


def test_the_decision_curve_starts_at_the_risk_of_all_and_ends_models_at_zero_benefit(data):
    y, _, _, survival, _ = data
    ax = draw("decision_curve", data)
    everybody = curve(ax, "treat all")
    case, control = metrics.horizon_weights(y, y, 36.0)
    odds = everybody[:, 0] / (1 - everybody[:, 0])
    np.testing.assert_allclose(everybody[:, 1], (case.sum() - control.sum() * odds) / 150)
    at = survival["multimodal"][:, list(TIMES).index(36.0)]
    drawn = curve(ax, "multimodal")
    np.testing.assert_allclose(drawn[:, 1], metrics.net_benefit(y, y, at, 36.0, drawn[:, 0]))


def test_the_calibration_curve_at_a_horizon_is_the_metric(data):
    y, _, _, survival, _ = data
    at = survival["multimodal"][:, list(TIMES).index(36.0)]
    drawn = curve(draw("survival_calibration", data), "multimodal")
    observed = metrics.survival_calibration_curve(y["event"], y["time"], at, 36.0)
    expected = dict(zip(1 - at, observed, strict=True))
    np.testing.assert_allclose(drawn[:, 1], [expected[x] for x in drawn[:, 0]])
    assert (np.diff(drawn[:, 0]) >= 0).all()


def test_one_model_needs_no_name(data):
    y, labels, risks, survival, share = data
    assert plotting.roc(labels, share["clinical"], n_resamples=0).get_legend().get_texts()[0].get_text()[:3] == "AUC"
    plotting.auc_over_time(y, y, risks["clinical"], TIMES, n_resamples=0)
    plotting.brier_over_time(y, y, survival["clinical"], TIMES, n_resamples=0)
    plotting.decision_curve(y, y, survival["clinical"][:, 3], 24.0)


def test_figures_of_what_cannot_be_known_are_empty_not_errors(data):
    y, _, risks, survival, _ = data
    plotting.auc_over_time(y, y, risks, np.array([12.0, 900.0]), n_resamples=10)
    plotting.survival_calibration(y["event"], y["time"], np.full(150, 0.5), 36.0)
    censored = y.copy()
    censored["event"] = False
    plotting.kaplan_meier(censored["event"], censored["time"], risks["clinical"] > 0)
    plotting.auc_over_time(censored, censored, risks, TIMES, n_resamples=10)
    plotting.decision_curve(censored, censored, survival["clinical"][:, 3], 24.0)


def test_kaplan_meier_draws_every_group_and_counts_those_at_risk(data):
    y, _, risks, _, _ = data
    group = np.argsort(np.argsort(risks["clinical"])) // 15  # ten groups
    ax = plotting.kaplan_meier(y["event"], y["time"], group, labels={k: f"group {k}" for k in range(10)})
    for value in range(10):
        own = group == value
        times, survival = kaplan_meier_estimator(y["event"][own], y["time"][own])
        drawn = curve(ax, f"group {value}")
        np.testing.assert_allclose(drawn[1:], np.column_stack([times, survival]))
    looks = {(line.get_color(), line.get_linestyle()) for line in ax.lines if not line.get_label().startswith("_")}
    assert len(looks) == 10
    ticks = ax.get_xticks()
    counts = [text.get_text() for text in ax.texts if text.get_text().isdigit() and text.xy in {(t, 0) for t in ticks}]
    expected = [str((y["time"][group == value] >= tick).sum()) for value in range(10) for tick in ticks]
    assert counts == expected


def test_a_forest_shows_the_numbers_and_hides_small_cells(data):
    ax = draw("forest", data)
    texts = [text.get_text() for text in ax.texts]
    assert texts[0] == "0.70 [0.60, 0.80]" and texts[1] == "suppressed"
    assert [text.get_text() for text in ax.get_yticklabels()][:2] == ["A (n = 90, 40 events)", "B"]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: plotting.roc([0, 2], [0.1, 0.2]), "one class against the rest"),
        (lambda: plotting.roc([0, 1], {}), "no model to draw"),
        (lambda: plotting.forest(pd.DataFrame({"label": ["a"], "low": [1], "high": [2]})), "value"),
        (lambda: plotting.kaplan_meier([1], [1.0, 2.0]), "one length"),
    ],
)
def test_what_cannot_be_drawn_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def last_of_curve(event, time, group=None):
    ax = plotting.kaplan_meier(event, time, group)
    return float(ax.lines[0].get_ydata()[-1])


@pytest.mark.parametrize(
    "dress",
    [
        lambda e: e + 1,
        lambda e: e.astype(int).astype(str),
        lambda e: np.where(e, "Dead", "Alive"),
        lambda e: np.where(np.arange(len(e)) < 4, np.nan, e),
        lambda e: pd.Series(e).astype("boolean").mask(np.arange(len(e)) < 4),
        lambda e: pd.Series(np.where(e, "Dead", "Alive")).astype("category"),
    ],
)
def test_curves_take_the_event_codes_that_the_metrics_take(data, dress):
    event, time = data[0]["event"], data[0]["time"]
    survival = np.full(len(time), 0.5)
    expected = last_of_curve(event, time)
    for same in (event.astype(int), pd.Series(event).astype("boolean"), pd.Series(event.astype(int)).astype("Int64")):
        assert last_of_curve(same, time) == expected
    for call in (
        lambda e: plotting.kaplan_meier(e, time),
        lambda e: plotting.survival_calibration(e, time, survival, 9.0),
    ):
        with pytest.raises(ValueError, match="event must hold 0 and 1 or booleans only"):
            call(dress(event))


def test_groups_of_curves_are_joined_by_id_and_known(data):
    ids = pd.Index([f"P{k:03d}" for k in range(len(data[0]))])
    event, time = (pd.Series(data[0][name], ids) for name in ("event", "time"))
    group = pd.Series(np.where(time > time.median(), "late", "early"), ids)
    shuffled = group.sample(frac=1, random_state=0)
    for other in (time.sample(frac=1, random_state=1), time):
        assert last_of_curve(event, other, shuffled) == last_of_curve(event, time, group)
    assert last_of_curve(event, time, group) == last_of_curve(event, time, group.to_numpy())
    with pytest.raises(ValueError, match="group lacks 1 of the"):
        plotting.kaplan_meier(event, time, group.iloc[1:])
    with pytest.raises(ValueError, match="group is missing for 2 of"):
        plotting.kaplan_meier(event, time, group.mask(np.arange(len(ids)) < 2))


def test_kaplan_meier_joins_group_to_time_and_keeps_the_order_of_categories():
    rng = np.random.default_rng(0)
    risk = pd.Series(rng.normal(size=90), [f"p{i}" for i in range(90)])
    time, event = pd.Series(rng.exponential(20 * np.exp(-risk)), risk.index), np.ones(90)
    group = pd.cut(risk, [-np.inf, -0.5, 0.5, np.inf], labels=["low", "medium", "high"])
    legends = [plotting.kaplan_meier(event, time, g).get_legend() for g in (group, group[::-1])]
    texts = [[text.get_text() for text in legend.get_texts()] for legend in legends]
    assert texts[0] == texts[1] and [text.split()[0].strip(",") for text in texts[0]] == ["low", "medium", "high"]
    assert legends[0].get_title().get_text() == legends[1].get_title().get_text()
    survival = np.exp(-10 * np.exp(risk) / 20)
    axes = [plotting.survival_calibration(event.tolist(), time, s, 10.0) for s in (survival, survival[::-1])]
    assert axes[0].get_legend().get_texts()[0].get_text() == axes[1].get_legend().get_texts()[0].get_text()
