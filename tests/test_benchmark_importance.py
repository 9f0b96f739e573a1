"""The benchmark of importances: the order of modalities is compared pair by pair with the oracle's."""

import pandas as pd
import pytest

from benchmarks import importance

TRUTH = pd.DataFrame(
    [("os", name, value) for name, value in (("clinical", 0.05), ("pet", 0.07), ("lesion", 0.08), ("noise", 0.0))]
    + [("os", "all", 0.2)],
    columns=["task", "modality", "oracle"],
)


def test_orders_are_counted_pair_by_pair():
    right = TRUTH.rename(columns={"oracle": "value"}).assign(seed=0, low=-0.01, high=0.1)
    images_last = right.assign(seed=1, value=[0.05, 0.07, 0.01, 0.0, 0.13], low=[0.01, 0.01, -0.02, -0.02, 0.1])
    values, orders = importance.summarise(pd.concat([right, images_last]), TRUTH)
    row = orders.set_index("task").loc["os"]
    assert (row["cohorts"], row["same"], bool(row["mean"])) == (2, 1, False)
    assert row["pairs"] == pytest.approx((1 + 4 / 6) / 2)
    values = values.set_index("modality")
    assert values["value"]["lesion"] == pytest.approx(0.045) and "all" not in values.index
    assert values["covers_0"].to_dict() == {"clinical": 0.5, "pet": 0.5, "lesion": 1.0, "noise": 1.0}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of columns that are not read
def test_the_oracle_knows_that_slices_tell_much_and_noise_nothing():
    found = importance.oracle(1000).pivot(index="modality", columns="task", values="oracle")
    for task in ("dfs", "os"):
        own = found[task].drop("all")
        assert own.idxmin() == "noise" and own.drop("noise").idxmin() == "clinical" and own["clinical"] > 0.02
        assert own.sum() == pytest.approx(found.loc["all", task], abs=1e-6)
