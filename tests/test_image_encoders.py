"""The benchmark of backbones: every backbone is measured alone, and one that would take too long is only timed."""

import pandas as pd
import pytest

from benchmarks import image_encoders


@pytest.fixture
def one_process(monkeypatch):
    """Without a process for each fit, which takes seconds to start."""
    monkeypatch.setattr(image_encoders, "alone", lambda function, *args, threads, **kwargs: function(*args, **kwargs))


SMALL = "--sizes 16 --patients 40 --test-patients 40 --slices 1".split()
FAST, SLOW = "antialiased (default)", "conv (published)"


def test_backbones_are_compared_on_the_same_patients(one_process, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(image_encoders, "measure", _scores_by_seed)
    image_encoders.main([*SMALL, "--seeds", "3", "--backbones", FAST, SLOW, "--out", str(tmp_path / "rows.csv")])
    rows = pd.read_csv(tmp_path / "rows.csv")
    assert rows["seed"].tolist() == [0, 0, 1, 1, 2, 2]
    table = image_encoders.summary(rows).set_index("backbone")
    assert table.loc[SLOW, "difference"] == pytest.approx(0.05) and table.loc[FAST, "difference"] == 0
    assert table.loc[SLOW, "difference_se"] == pytest.approx(0.0, abs=1e-9)
    assert SLOW in capsys.readouterr().out


def _scores_by_seed(backbone, image_size, seed, *_):
    return {"epoch_s": 1.0, "mean": 0.6 + 0.1 * seed + 0.05 * (backbone == "conv")}


def test_what_would_take_too_long_is_only_timed():
    counts = {"image_size": 16, "seed": 0, "n_patients": 20, "n_test": 40, "n_slices": 1}
    timed = image_encoders.measure("antialiased", **counts, limit=0.0)
    assert timed.keys() == {"epoch_s"} and timed["epoch_s"] > 0


def test_the_defaults_are_timed():
    found = image_encoders.default_fit(20, 1, 16, max_epochs=2)
    assert found["epochs"] == 2 and found["added_mb"] <= found["peak_mb"]
