"""Learning curves on tiny cohorts: nested patients, one test set, and a truth that no model meets."""

import numpy as np
import pytest

from benchmarks import learning_curves as curves
from benchmarks.models import Settings


def test_training_sets_are_nested_and_the_test_set_is_one():
    small, large = curves.nested_splits([20, 50], 30)
    assert set(small.train) < set(large.train)
    np.testing.assert_array_equal(small.test, large.test)
    assert not set(large.train) & set(large.test) and len(small.test) == 30


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    out = tmp_path_factory.mktemp("curves")
    arguments = ([100, 300], 200, Settings(trials=1, epochs=1), out)
    return curves.learning_curves(*arguments, models=("clinical_pet_linear",), workers=1, n_resamples=20), arguments


def test_who_knows_the_image_factor_predicts_better(table):
    found, _ = table
    values = found[found["task"] == "os"].set_index(["model", "patients"])["concordance_index"]
    assert values[curves.PERFECT, 300] > values["clinical_pet_linear", 300] + 0.01
    assert (found["concordance_index"] < found["oracle"]).all() and (found["of_the_oracle"] < 1).all()
    assert len(found) == 2 * 2 * 2


def test_finished_fits_are_not_run_again_and_the_figure_is_drawn(table, monkeypatch, tmp_path):
    found, arguments = table
    monkeypatch.setattr("benchmarks.runs.run_fold", lambda *_: pytest.fail("a finished fit ran again"))
    again = curves.learning_curves(*arguments, models=("clinical_pet_linear",), workers=1, n_resamples=20)
    assert again.equals(found)
    curves.draw(found, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 10_000
    assert all(len(line) <= 80 for line in curves.show(found).splitlines())


def test_what_is_finished_is_shown_after_ctrl_c(monkeypatch, tmp_path):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("benchmarks.runs.run_fold", interrupted)
    options = ([40], 20, Settings(trials=1, epochs=1), tmp_path)
    assert curves.learning_curves(*options, models=("pet_linear",), workers=1, n_resamples=5).empty
