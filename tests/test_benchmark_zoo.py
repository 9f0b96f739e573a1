"""The benchmark of parts: every registered part has a place, is compared in the same company, and a run goes on."""

import time

import numpy as np
import pandas as pd
import pytest

from benchmarks import zoo
from mmdls import MMDLS, registry
from mmdls.registry import fusions

PLACES = {"fusion": ["gated", "late", "film"], "ordinal_head": ["continuation_ratio", "softmax"]}


def test_a_new_part_is_in_the_table_by_itself():
    before = zoo.alternatives(MMDLS())
    assert set(before["fusion"]) == set(fusions) and before["fusion"][0] == MMDLS().fusion
    assert set(before["image_encoder__backbone"]) == set(registry.backbones)
    assert before["image_encoder__augmentation"] == ["none", "standard"]
    assert "vectors" not in before["image_encoder"], "encoders that read something else have no place"
    fusions.register("of_a_test")(type("OfATest", (fusions["late"],), {"searched": False}))
    try:
        assert set(zoo.alternatives(MMDLS())["fusion"]) == {*before["fusion"], "of_a_test"}
    finally:
        del fusions._parts["of_a_test"]


def test_every_part_is_set_where_it_belongs():
    for place, names in zoo.alternatives(MMDLS()).items():
        for name in names[1:]:
            owner, _, slot = place.rpartition("__")
            model = MMDLS().set_params(**{place: name})
            held = getattr(model, owner) if owner else model
            assert getattr(held, slot) == name


def test_the_designs_hold_every_part_in_one_company():
    cells = list(zoo.design(PLACES, ["signal in images", "30 % missing"], 2, ["signal in images"]))
    assert len(set(cells)) == len(cells)
    alone = [cell for cell in cells if cell.design == "alone" and cell.seed == 0]
    assert len(alone) == 2 * (1 + 2 + 1) and max(len(cell.parts) for cell in alone) == 1
    others = [cell for cell in cells if cell.design == "among others" and cell.seed == 0]
    rows = [_row(cell, gain=0.0) for cell in others]
    found = zoo.contrasts(pd.DataFrame(rows), PLACES)
    assert sorted(zip(found["slot"], found["part"], strict=True)) == [
        ("fusion", "film"),
        ("fusion", "late"),
        ("ordinal_head", "softmax"),
    ]


def _row(cell, gain):
    """The metric is the seed's, plus a gain of the late fusion, twice as large beside the softmax."""
    parts = dict(cell.parts)
    own = gain * (parts.get("fusion") == "late") * (2 if "ordinal_head" in parts else 1) + 0.03 * len(parts)
    values = {"mean": cell.seed + own, "error": -own, "seconds": 2.0 + 2.0 * (parts.get("fusion") == "film")}
    return dict(zip(zoo._KEY, cell.key, strict=True)) | values


def test_differences_are_those_within_a_cohort_and_its_company():
    company = (("ordinal_head", "softmax"),)
    cells = [
        zoo.Cell("30 % missing", seed, "alone", parts) for seed in range(3) for parts in ((), (("fusion", "late"),))
    ]
    cells += [zoo.Cell("30 % missing", 0, "among others", p) for p in (company, (("fusion", "late"), *company))]
    found = zoo.contrasts(pd.DataFrame([_row(cell, gain=0.1 + 0.01 * cell.seed) for cell in cells]), PLACES)
    table = zoo.summary(found, PLACES).set_index(["design", "part"])
    row = table.loc[("alone", "late")]
    assert row["cohorts"] == 3 and row["gain"] == pytest.approx(0.14) and row["error"] == pytest.approx(-0.14)
    assert row["high"] - row["gain"] == pytest.approx(4.3027 * 0.01 / np.sqrt(3), rel=1e-3)
    assert table.loc[("among others", "late"), "gain"] == pytest.approx(0.23)
    assert np.isnan(table.loc[("among others", "late"), "low"]), "one cohort has no interval"
    shown = zoo.show(table.reset_index())["30 % missing, alone"]
    assert shown.loc[("fusion", "late"), "mean metric"].startswith("+0.140 [+0.115, +0.165]*")


def test_every_measure_of_a_task_has_its_own_difference():
    cells = [
        zoo.Cell("30 % missing", seed, "alone", parts) for seed in range(3) for parts in ((), (("fusion", "late"),))
    ]
    rows = [_row(cell, gain=0.0) | {"os": 0.6, "os error": 0.2 + 0.1 * len(cell.parts)} for cell in cells]
    table = zoo.by_measure(pd.DataFrame(rows), PLACES)
    assert table.set_index("measure")["gain"].to_dict() == pytest.approx({"os": 0.0, "os error": 0.1})
    shown = zoo.show_measures(table)
    assert shown.loc[("fusion=late", "os error"), "30 % missing"] == "+0.100 [+0.100, +0.100]*"


@pytest.fixture
def counted(monkeypatch):
    """Cells that are measured at once, and counted."""
    done = []

    def measure(cell, budget):
        done.append(cell)
        return {"seconds": 1.0, "mean": 0.7 + 0.1 * len(cell.parts), "error": 0.2}

    monkeypatch.setattr(zoo, "measure", measure)
    monkeypatch.setattr(zoo, "slow_parts", lambda places, budget, most: {("fusion", "film")})
    return done


def test_a_run_goes_on_where_it_was_and_names_what_it_left_out(counted, tmp_path, capsys):
    argv = ["--places", "fusion", "--scenarios", "30 % missing", "--among-others", "--out", str(tmp_path)]
    zoo.main([*argv, "--seeds", "1"])
    first = len(counted)
    assert first == len(fusions) - 1 and not any(("fusion", "film") in cell.parts for cell in counted)
    zoo.main([*argv, "--seeds", "2"])
    assert len(counted) == 2 * first and len(set(counted)) == len(counted)
    zoo.main([*argv, "--seeds", "3", "--minutes", "0"])
    assert len(counted) == 2 * first
    text = (tmp_path / "tables.md").read_text()
    assert "+0.100 [+0.100, +0.100]" in text and "fusion=film" in text and "film |" not in text
    with pytest.raises(SystemExit, match="another run"):
        zoo.main([*argv, "--epochs", "3"])
    with pytest.raises(SystemExit, match="there is no heads"):
        zoo.main([*argv, "--places", "heads"])
    assert zoo._chosen(PLACES, ["fusion=film"]) == {"fusion": ["gated", "film"]}
    with pytest.raises(SystemExit, match="fusion has no gated beside the default"):
        zoo._chosen(PLACES, ["fusion=gated"])


def test_what_takes_too_long_is_stopped():
    with pytest.raises(TimeoutError), zoo._at_most(0.05):
        end = time.process_time() + 20
        while time.process_time() < end:
            pass
    with zoo._at_most(0.2):
        pass
    end = time.process_time() + 0.4
    while time.process_time() < end:  # nothing is left that would stop what comes later
        pass


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of columns that are not read
def test_a_cell_is_measured_in_every_task():
    budget = zoo.Budget(patients=40, test_patients=40, slices=1, image_size=16, epochs=1)
    found = zoo.measure(zoo.Cell("30 % missing", 0, "alone", (("fusion", "late"),)), budget)
    scores = [found[task] for task in ("subtype", "stage", "dfs", "os")]
    assert found["mean"] == pytest.approx(np.mean(scores)) and 0 < found["error"] < 1 and found["seconds"] > 0
    errors = [found[f"{task} error"] for task in ("subtype", "stage", "dfs", "os")]
    assert found["error"] == pytest.approx(np.mean(errors))
    assert all(found[f"{task} log loss"] > 0 for task in ("subtype", "stage", "dfs", "os"))
