"""Encoders of other packages: found by what they read, trained like the library's own; free text has one of its own."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import BaseEstimator
from torch import nn

from mmdls import MMDLS, Trainer
from mmdls.cohort import cell_kind, modalities
from mmdls.encoders import BagData, Encoder, ModalityData, TableData
from mmdls.modules import BagNet
from mmdls.modules.poolings import MeanPooling
from mmdls.registry import encoders
from mmdls.testing import check_encoder

QUICK = Trainer(max_epochs=2)


class ReportEncoder(Encoder, BaseEstimator):
    """Texts as counts of letters."""

    reads = "report"

    def prepare(self, X, *, n_jobs=None, verbose=0):
        texts = X.iloc[:, 0]
        counts = [[str(text).lower().count(letter) for letter in "aeinst"] for text in texts]
        return TableData(np.log1p(counts), texts.notna().to_numpy())

    def build(self, data):
        network = nn.Sequential(nn.Linear(data.table.shape[1], 4), nn.Tanh())
        network.out_features = 4
        return network


class PairData(ModalityData):
    """Two tensors a patient, of numbers and of codes."""

    def take(self, rows):
        rows = torch.as_tensor(rows)
        return rows[:, None].float(), rows % 3


class PairNet(nn.Module):
    out_features = 3

    def __init__(self):
        super().__init__()
        self.codes = nn.Embedding(3, 3)

    def forward(self, numbers, codes):
        return self.codes(codes) * torch.sigmoid(numbers)


class PairEncoder(Encoder, BaseEstimator):
    def prepare(self, X, *, n_jobs=None, verbose=0):
        return PairData(X.notna().all(axis=1).to_numpy())

    def build(self, data):
        return PairNet()


@pytest.fixture
def reports(monkeypatch):
    """A cohort with a column of texts, and an encoder that reads it."""
    monkeypatch.setitem(encoders._parts, "report", ReportEncoder)
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"ct_report": [" ".join(rng.choice(["mass", "nodule", "effusion"], 6)) for _ in range(48)]})
    X["clinical_age"] = rng.normal(60, 5, 48)
    X.loc[::7, "ct_report"] = None
    return X, pd.DataFrame({"subtype": rng.choice(["LUAD", "LUSC"], 48)})


def test_an_encoder_with_columns_of_its_own_joins_the_modalities(reports):
    X, y = reports
    assert cell_kind("ct_report") == "report" and cell_kind("clinical_table") is None
    assert modalities(X) == {"ct": ["ct_report"], "clinical": ["clinical_age"]}
    model = MMDLS(trainer=QUICK, random_state=0).fit(X, y)
    assert [(name, type(encoder).__name__) for name, encoder, _ in model.modalities_] == [
        ("ct", "ReportEncoder"),
        ("clinical", "TabularEncoder"),
    ]
    other = X.assign(ct_report=X["ct_report"].fillna("no report")[::-1].to_numpy())
    assert not np.allclose(model.predict_proba(other, "subtype"), model.predict_proba(X, "subtype"))


def test_an_encoder_of_another_package_keeps_the_contract_on_its_own_columns(reports):
    X, _ = reports
    check_encoder(ReportEncoder, X[["ct_report"]])
    check_encoder(ReportEncoder)


def test_an_encoder_that_reads_no_texts_is_checked_on_a_table_that_is_given():
    class NumberEncoder(ReportEncoder):
        reads = "number"

        def prepare(self, X, *, n_jobs=None, verbose=0):
            numbers = X.iloc[:, [0]].astype(float)
            return TableData(numbers.fillna(0).to_numpy(), numbers.notna().to_numpy()[:, 0])

    with pytest.raises(AssertionError, match=r"raise ValueError: could not .*check_encoder\(NumberEncoder, X=...\)"):
        check_encoder(NumberEncoder)
    check_encoder(NumberEncoder, pd.DataFrame({"own_number": [None, *range(47)]}) / 47)


def test_without_the_encoder_the_column_is_no_modality():
    assert cell_kind("ct_report") is None


def test_a_network_may_read_several_tensors_of_any_dtype():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"own_a": rng.normal(size=40), "own_b": rng.normal(size=40)})
    X.iloc[0] = np.nan
    y = pd.DataFrame({"subtype": rng.choice(["LUAD", "LUSC"], 40)})
    modalities = [("own", PairEncoder(), "own"), ("b", "table", ["own_b"])]
    model = MMDLS(modalities, trainer=QUICK, random_state=0).fit(X, y)
    assert np.isfinite(model.predict_proba(X, "subtype")).all()


def test_a_bag_network_needs_bags():
    class Wrong(ReportEncoder):
        def build(self, data):
            return BagNet(nn.Identity(), 6, MeanPooling(4), 4)

    X = pd.DataFrame({"a": ["mass"] * 10})
    with pytest.raises(TypeError, match="'own' builds a BagNet, which reads BagData; its prepare gave TableData"):
        MMDLS([("own", Wrong(), ["a"])], trainer=QUICK).fit(X, pd.DataFrame({"subtype": ["LUAD", "LUSC"] * 5}))


def test_what_an_encoder_must_define_is_named():
    for call in (
        lambda: Encoder().prepare(None),
        lambda: Encoder().build(None),
        lambda: ModalityData(np.ones(2)).take(np.arange(2)),
        lambda: BagData(np.ones(2), (3,)).read(np.arange(2)),
    ):
        with pytest.raises(NotImplementedError, match="must define"):
            call()


def test_items_of_a_bag_are_found_by_rows():
    data = BagData(np.array([2, 0, 3]), (4,))
    index, counts = data.index_of(np.array([2, 1, 0]))
    assert index.tolist() == [2, 3, 4, 0, 1] and counts.tolist() == [3, 0, 2]
    assert data.present.tolist() == [True, False, True] and data.n_items == 5
