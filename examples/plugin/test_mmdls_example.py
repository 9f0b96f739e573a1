import numpy as np
import pandas as pd
import pytest

from mmdls import MMDLS
from mmdls.testing import check_part


@pytest.mark.parametrize(("kind", "name"), [("backbones", "tiny"), ("tasks", "count"), ("encoders", "report")])
def test_a_part_keeps_its_contract(kind, name):
    check_part(kind, name)


def test_reports_predict_counts():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"ct_report": rng.choice(["one small nodule", "many nodules in both lungs"], 120)})
    y = pd.DataFrame({"nodules_count": rng.poisson(np.where(X["ct_report"].str.startswith("many"), 9, 1))})
    model = MMDLS(random_state=0).fit(X, y)
    expected = model.predict(X)["nodules"]
    assert expected[X["ct_report"].str.startswith("many")].mean() == pytest.approx(9, abs=1.5)
    assert model.score(X, y) > 0.75
