"""The exported network answers as the model, for any number of patients and items, with gaps."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from sklearn.base import clone

import mmdls
from mmdls import MMDLS, ClinicalCox, MultimodalClassifier
from mmdls.datasets import make_nsclc_cohort
from mmdls.persistence import network_inputs
from mmdls.testing._studies import _QUICK, shrunk

pytestmark = pytest.mark.filterwarnings("ignore")

OPTIONS = {
    "ensemble with a linear part": {"n_members": 2, "table_encoder__linear": True},
    "attention": {"image_encoder__pooling": "gated_attention", "fusion": "concat"},
    "no images": {"modalities": {"clinical": ["clinical_age", "clinical_sex"]}},
}


@pytest.fixture(scope="module")
def cohort():
    return make_nsclc_cohort(
        30, n_slices=(1, 4), image_size=16, n_radiomics=4, missing=0.2, return_X_y=True, random_state=0
    )


def fitted(cohort, options, estimator=MMDLS):
    X, y = cohort
    y = y["subtype"].astype(str) if estimator is MultimodalClassifier else y
    return clone(shrunk(estimator, **_QUICK)).set_params(n_members=1).set_params(**options).fit(X, y)


def difference(answers, model, X):
    """The greatest distance between answers of a program and predictions of the model."""
    expected = model.predict_tasks(X)
    assert set(answers) == set(expected)
    return max(
        np.abs(np.asarray(answers[name])[:, -table.shape[1] :] - table.to_numpy()).max()
        for name, table in expected.items()
    )


SLOW = [
    pytest.param(options, id=name, marks=pytest.mark.slow if "ensemble" in name else ())
    for name, options in OPTIONS.items()
]


@pytest.mark.parametrize("options", SLOW)
def test_the_exported_network_answers_as_the_model(cohort, options, tmp_path):
    X, _ = cohort
    model = fitted(cohort, options)
    whole = network_inputs(model, X)[1].all(dim=1).numpy()
    mmdls.export(model, tmp_path / "n.pt2", X[whole][:1])
    program = torch.export.load(tmp_path / "n.pt2").module()
    like, _ = network_inputs(model, X)
    X = X[network_inputs(model, X)[1].any(dim=1).numpy()]
    for rows in (slice(0, 1), slice(0, 7), slice(None)):
        assert difference(program(*network_inputs(model, X[rows], like)), model, X[rows]) < 1e-5


def test_the_answers_of_a_classifier_are_its_probabilities(cohort, tmp_path):
    X, _ = cohort
    model = fitted(cohort, {"modalities": {"pet": ["pet_suvmax"], "clinical": ["clinical_age"]}}, MultimodalClassifier)
    mmdls.export(model, tmp_path / "n.pt2", X)
    found = torch.export.load(tmp_path / "n.pt2").module()(*network_inputs(model, X))["label"]
    np.testing.assert_allclose(found, model.predict_proba(X), atol=1e-5)


def test_a_modality_that_nobody_has_is_named(cohort, tmp_path):
    model = fitted(cohort, OPTIONS["attention"])
    X = cohort[0].head(2).assign(lesion_image=None)
    with pytest.raises(ValueError, match=r"has the modalities \['lesion'\]"):
        mmdls.export(model, tmp_path / "n.pt2", X)


def test_what_has_no_network_is_refused(cohort, tmp_path):
    X, y = cohort
    with pytest.raises(TypeError, match="no network"):
        mmdls.export(ClinicalCox(endpoint="os").fit(X, y), tmp_path / "n.pt2", X)


@pytest.mark.slow
def test_onnx_answers_as_the_model_or_says_what_it_needs(cohort, tmp_path):
    X, _ = cohort
    model = fitted(cohort, {})
    if find_spec("onnxscript") is None:
        with pytest.raises(ImportError, match=r"mmdls\[speed\]"):
            mmdls.export(model, tmp_path / "n.onnx", X)
        assert not list(tmp_path.iterdir())
        return
    import onnxruntime

    mmdls.export(model, tmp_path / "n.onnx", X)
    session = onnxruntime.InferenceSession(tmp_path / "n.onnx", providers=["CPUExecutionProvider"])
    X = X[network_inputs(model, X)[1].any(dim=1).numpy()]
    batch, present = network_inputs(model, X[:5])
    values = [each.numpy() for arguments in batch.values() for each in arguments] + [present.numpy()]
    names = [each.name for each in session.get_inputs()]
    answers = session.run(None, dict(zip(names, values, strict=True)))
    assert difference(dict(zip(model.tasks_, answers, strict=True)), model, X[:5]) < 1e-5
