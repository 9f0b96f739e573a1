"""The benchmark of pruning: every strategy searches the same trials, and stopped trials are counted."""

import pytest

from benchmarks import pruning


@pytest.mark.slow
def test_all_strategies_run_the_same_trials_and_only_pruning_stops_some(capsys, tmp_path):
    pruning.main(
        f"--patients 90 --test-patients 60 --trials 7 --epochs 12 --seeds 1 --out {tmp_path / 'rows.csv'}".split()
    )
    shown = capsys.readouterr().out
    table = pruning.pd.read_csv(tmp_path / "rows.csv").set_index("pruned")
    assert list(table.index) == list(pruning.STRATEGIES)
    assert table.loc["nothing", "stopped"] == 0 and table.loc["nothing", "fraction"] == 1
    assert table["stopped"].max() > 0 and table["test_score"].between(0.4, 1).all()
    assert all(len(line) <= 80 for line in shown.splitlines())
