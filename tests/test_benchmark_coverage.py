"""The benchmark of coverage: draws are kept, a run goes on, and the tables are of the draws."""

import pandas as pd
import pytest

from benchmarks import coverage


def draw(k):
    """Three rows; coverage falls by a point from draw to draw."""
    rows = [
        ("equal", "cross lac", "stage", "all"),
        ("shifted", "cross lac", "stage", "A"),
        ("new", "cross", "os", "all"),
    ]
    table = pd.DataFrame(rows, columns=["centres", "what", "task", "group"])
    return table.assign(coverage=[0.92 - 0.01 * k, 0.80, 0.9], size=2.0)


def test_a_run_goes_on_where_it_was_and_its_tables_are_of_all_draws(monkeypatch, tmp_path, capsys):
    asked = []
    monkeypatch.setattr(coverage, "measure", lambda k: asked.append(k) or draw(k))
    coverage.main(["--draws", "2", "--out", str(tmp_path)])
    coverage.main(["--draws", "5", "--out", str(tmp_path)])
    assert asked == [0, 1, 2, 3, 4]
    table = pd.read_csv(tmp_path / "table.csv").set_index("centres")
    assert table["coverage"]["equal"] == pytest.approx(0.90) and table["sd"]["equal"] == pytest.approx(0.0158, abs=1e-4)
    assert table["within"].to_dict() == {"equal": True, "shifted": False, "new": True}
    assert "| cross lac | stage | 0.900 (0.007) | 0.016 | 2.00 |" in (tmp_path / "tables.md").read_text()
    assert "5 draws; 1 of 3 rows" in capsys.readouterr().out
