"""Figures draw the numbers of the metrics, on the axes given, and nothing of them lies outside the picture."""

from contextlib import nullcontext

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from sksurv.nonparametric import kaplan_meier_estimator

from mmdls import metrics, plotting
from mmdls.plotting._calibration import _smooth
from mmdls.tables import random_effects_summary

TIMES = np.arange(6.0, 66.0, 6.0)
FIGURES = [name for name in plotting.__all__ if name != "journal_style"]


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
    table["note"] = ["", "suppressed (n < 20)"]
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


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_returns_the_axes_it_was_given(name, data):
    _, given = plt.subplots()
    assert draw(name, data, given) is given
    assert draw(name, data) is not given


@pytest.mark.parametrize("name", FIGURES)
def test_nothing_lies_outside_the_picture(name, data):
    """Every text, and the axes themselves, within the figure as it is saved."""
    ax = draw(name, data)
    figure = ax.figure
    figure.savefig("/dev/null", format="png")
    renderer = figure.canvas.get_renderer()
    texts = []
    for panel in figure.axes:
        texts += [*panel.texts, panel.xaxis.label, panel.yaxis.label, panel._left_title]
        for axis in (panel.xaxis, panel.yaxis):
            low, high = sorted(axis.get_view_interval())
            texts += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
        texts += [panel.get_legend()] if panel.get_legend() is not None else []
    for text in texts:
        box = text.get_window_extent(renderer)
        if box.width == 0:
            continue
        assert box.x0 >= -1 and box.y0 >= -1, text
        assert box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1, text


def boxes_and_points(ax, renderer):
    """Legends, tables and titles in pixels, and densely sampled lines and bands of all panels, as they are seen."""
    boxes, points = [], []
    for panel in ax.figure.axes:
        boxes += [panel.get_legend()] if panel.get_legend() is not None else []
        paths = [line.get_path().transformed(line.get_transform()) for line in panel.lines]
        paths += [path.transformed(c.get_transform()) for c in panel.collections for path in c.get_paths()]
        for path in paths:
            drawn = path.interpolated(50).vertices
            points.append(drawn[_inside(panel, drawn)])
    return [box.get_window_extent(renderer) for box in boxes], np.concatenate(points)


def _inside(panel, points):
    box = panel.get_window_extent()
    return ((points >= [box.x0, box.y0]) & (points <= [box.x1, box.y1])).all(axis=1)


@pytest.mark.parametrize("journal", [False, True])
@pytest.mark.parametrize("name", FIGURES)
def test_legends_cover_neither_data_nor_texts(name, journal, data):
    with plotting.journal_style() if journal else nullcontext():
        ax = draw(name, data)
        ax.figure.savefig("/dev/null", format="png")
    renderer = ax.figure.canvas.get_renderer()
    boxes, points = boxes_and_points(ax, renderer)
    texts = [text.get_window_extent(renderer) for text in [*ax.texts, ax.xaxis.label] if text.get_text()]
    for box in boxes:
        assert not ((points >= box.min) & (points <= box.max)).all(axis=1).any()
        assert not any(box.overlaps(text) for text in texts)
    assert boxes or name in ("forest", "calibration", "survival_calibration")


@pytest.mark.parametrize("name", ["roc", "precision_recall", "predicted_observed"])
def test_the_legend_of_many_models_is_whole(name):
    rng = np.random.default_rng(0)
    scores = {f"model {k}": rng.random(60) for k in range(12)}
    for style in (nullcontext(), plotting.journal_style()):
        with style:
            ax = getattr(plotting, name)(rng.integers(0, 2, 60), scores, n_resamples=0)
            ax.figure.savefig("/dev/null", format="png")
        assert ax.get_legend().get_window_extent().y0 > 0


@pytest.mark.parametrize("name", FIGURES)
def test_figures_fit_the_columns_of_a_journal(name, data):
    with plotting.journal_style():
        ax = draw(name, data)
    width = ax.figure.get_figwidth() * 25.4
    assert width == pytest.approx(85, abs=0.1) or name in ("calibration", "survival_calibration", "forest")
    assert width < 175.1 and ax.xaxis.label.get_size() == 7


def curve(ax, start):
    lines = [line for panel in ax.figure.axes for line in panel.lines]
    return next(line for line in lines if str(line.get_label()).startswith(start)).get_xydata()


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


@pytest.mark.parametrize("n", [1, 2, 4, 5])
def test_calibration_has_a_panel_for_each_model_with_a_band_around_its_curve(n, data):
    y, labels, risks, survival, _ = data
    at = 1 - survival["clinical"][:, list(TIMES).index(36.0)]
    shares = {f"model {k}": at ** (1 + k / 3) for k in range(n)}
    remaining = {name: 1 - share for name, share in shares.items()}
    _, given = plt.subplots(layout="constrained")
    for ax in (
        plotting.calibration(labels, shares, ax=given),
        plotting.survival_calibration(y["event"], y["time"], remaining, 36.0),
    ):
        drawn = ax.figure.axes
        assert [panel.get_title("left").split("\n")[0] for panel in drawn] == list(shares)
        for panel, name in zip(drawn, shares, strict=True):
            line = curve(panel, name)
            (band,) = [c for c in panel.collections if type(c).__name__ == "FillBetweenPolyCollection"]
            edge = band.get_paths()[0].vertices
            for x, value in line[::15]:
                limits = edge[np.isclose(edge[:, 0], x), 1]
                assert limits.min() <= value + 0.03 and value - 0.03 <= limits.max() and np.ptp(limits) > 0.01
    assert ax.get_ylabel() and (n == 1 or not drawn[1].get_ylabel())


def test_the_band_of_a_calibration_curve_covers_the_truth():
    """Delta method and bootstrap, against the true curve at the middle prediction: near the nominal 90 %."""
    inside = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        share = rng.uniform(0.1, 0.9, 200)
        observed, low, high = _smooth((rng.random(200) < share).astype(int), share, 0.9)
        middle = np.argsort(share)[100]
        inside.append(low[middle] <= share[middle] <= high[middle])
        assert ((low <= observed) & (observed <= high)).all()
    assert 30 <= sum(inside) <= 40


def test_panels_need_axes_of_a_grid(data):
    _, labels, _, _, share = data
    with pytest.raises(ValueError, match="give axes of plt.subplots"):
        plotting.calibration(labels, share, ax=plt.figure().add_axes((0, 0, 1, 1)))
    with pytest.raises(ValueError, match="a figure without any"):
        plotting.roc(labels, share, ax=plt.subplots()[0])


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
    looks = {
        (line.get_color(), str(line._unscaled_dash_pattern))
        for line in ax.lines
        if not line.get_label().startswith("_")
    }
    assert len(looks) == 10
    ticks = ax.get_xticks()
    counts = [text.get_text() for text in ax.texts if text.get_text().isdigit() and text.xy in {(t, 0) for t in ticks}]
    expected = [str((y["time"][group == value] >= tick).sum()) for value in range(10) for tick in ticks]
    assert counts == expected


def test_kaplan_meier_names_the_median_of_each_group_with_its_interval(data):
    y, _, risks, _, _ = data
    group = risks["multimodal"] > 0
    ax = plotting.kaplan_meier(y["event"], y["time"], group, labels={False: "low", True: "high"})
    legend = ax.get_legend()
    assert legend.get_title().get_text() == ("Median in months, hazard ratio [95 % intervals]; log-rank p < .001")
    for text, own in zip(legend.get_texts(), (~group, group), strict=True):
        median, low, high = metrics.median_survival(y["event"][own], y["time"][own])
        shown = [f"{value:.1f}" if np.isfinite(value) else "not reached" for value in (median, low, high)]
        expected = f"{shown[0]} [{shown[1]}, {shown[2]}]" if np.isfinite(median) else "not reached"
        assert text.get_text().split(": ")[1].startswith(expected)
    (alone,) = plotting.kaplan_meier([0, 0, 1], [3.0, 4.0, 1.0]).get_legend().get_texts()
    assert alone.get_text() == "median in months not reached"


@pytest.mark.parametrize(
    ("log", "reference", "limits"), [(False, 0.5, (0, 1)), (True, 1, (0.2, 5)), (False, None, (-0.5, 0.5))]
)
def test_a_forest_of_suppressed_rows_has_an_axis_that_can_be_read(log, reference, limits):
    table = pd.DataFrame(
        {"label": ["A", "B"], "value": np.nan, "low": np.nan, "high": np.nan, "note": "suppressed (n < 20)"}
    )
    pooled = random_effects_summary([np.nan], [np.nan], [np.nan])
    ax = plotting.forest(table, reference=reference, log=log, pooled=pooled)
    assert ax.get_xlim() == pytest.approx(limits)
    assert [text.get_text() for text in ax.texts] == ["suppressed (n < 20)"] * 2 and len(ax.get_yticks()) == 2


def test_a_forest_shows_the_numbers_and_hides_small_cells(data):
    ax = draw("forest", data)
    texts = [text.get_text() for text in ax.texts]
    assert texts[0] == "0.70 [0.60, 0.80]" and texts[1] == "suppressed (n < 20)"
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
    assert texts[0] == texts[1] and [text.split(":")[0] for text in texts[0]] == ["low", "medium", "high"]
    assert legends[0].get_title().get_text() == legends[1].get_title().get_text()
    survival = np.exp(-10 * np.exp(risk) / 20)
    axes = [plotting.survival_calibration(event.tolist(), time, s, 10.0) for s in (survival, survival[::-1])]
    assert axes[0].get_title("left") == axes[1].get_title("left")


@pytest.mark.parametrize("unknown", ["label", "prediction"])
def test_curves_of_classes_refuse_patients_without_label_or_prediction(unknown):
    label, score = pd.Series([0, 1] * 10, dtype="Int64"), pd.Series(np.linspace(0, 1, 20))
    label, score = (
        (label.mask(label.index == 3), score) if unknown == "label" else (label, score.mask(score.index == 3))
    )
    with pytest.raises(ValueError, match="1 patients have no label, or no prediction of a model, such as row 3"):
        plotting.roc(label, score)


def test_a_curve_for_every_value_of_a_measurement_is_refused():
    with pytest.raises(ValueError, match="group holds 60 different numbers.*pandas.cut"):
        plotting.kaplan_meier(np.ones(60), np.arange(1, 61), np.arange(60) / 7)
