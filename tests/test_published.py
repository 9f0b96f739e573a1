"""The published network: its own outputs from its own checkpoint, and predictions from a cohort table."""

import numpy as np
import pandas as pd
import pytest
import torch

from mmdls.datasets import make_nsclc_cohort
from mmdls.estimators import MMDLS
from mmdls.estimators.multimodal._published import CLINICAL, PET, RADIOMICS
from mmdls.persistence import convert, load


@pytest.fixture(scope="module")
def checkpoint(data_dir):
    return data_dir / "mm_dls_reference" / "best_model.pt"


@pytest.fixture(scope="module")
def reference(data_dir):
    with np.load(data_dir / "mm_dls_reference" / "reference_io.npz") as stored:
        return dict(stored)


@pytest.fixture(scope="module")
def model(checkpoint):
    return MMDLS.published(checkpoint=checkpoint)


@pytest.fixture(scope="module")
def table(reference):
    X = pd.DataFrame(
        np.c_[reference["radiomics"], reference["pet"], reference["clinical"]],
        columns=RADIOMICS + PET + CLINICAL,
        index=["a", "b", "c"],
    )
    X["lesion_image"] = pd.Series(list(reference["lesion"][:, :, 0]), index=X.index, dtype=object)
    X["lung_image"] = pd.Series(list(reference["space"][:, :, 0]), index=X.index, dtype=object)
    return X


@pytest.mark.parametrize(
    ("ours", "published"),
    [
        ("subtype", "subtype_logits"),
        ("stage", "tnm_logits"),
        ("dfs", "dfs_risk"),
        ("os", "os_risk"),
        ("dfs at horizons", "dfs_logits"),
        ("os at horizons", "os_logits"),
    ],
)
def test_outputs_equal_those_of_the_published_network(model, reference, ours, published):
    net = model.net_.module_.first
    packed = {}
    with torch.no_grad():
        for name, theirs in (("lesion", "lesion"), ("lung", "space")):
            images = torch.as_tensor(reference[theirs])
            counts = torch.full((len(images),), images.shape[1])
            packed[name] = net.encoders[name].encode(images.flatten(0, 1)).double(), counts
        packed |= {name: (torch.as_tensor(reference[name]).double(),) for name in ("radiomics", "pet", "clinical")}
        outputs = net(packed, torch.ones(len(counts), 5, dtype=torch.bool))
    task, _, horizons = ours.partition(" at ")
    found = outputs.horizons[task] if horizons else outputs.tasks[task]
    expected = torch.as_tensor(reference[published]).double().reshape(found.shape)
    assert torch.allclose(found, expected, atol=1e-5, rtol=0)


def test_it_has_the_published_number_of_parameters(model):
    assert sum(p.numel() for p in model.net_.module_.parameters()) == 347_181


def test_a_checkpoint_predicts_from_a_table(checkpoint, table, reference):
    """At the reference images' own size the whole way from table to risk gives the published numbers."""
    model = MMDLS.published(checkpoint=checkpoint, lesion__image_size=None, lung__image_size=None)
    predicted = model.predict(table)
    # Images given as floats are kept in half precision.
    assert np.allclose(predicted["os"], reference["os_risk"], atol=1e-3)
    assert np.allclose(predicted["dfs"], reference["dfs_risk"], atol=1e-3)
    assert (predicted["subtype"].cat.codes == reference["subtype_logits"].argmax(axis=1)).all()
    assert (predicted["stage"].cat.codes == reference["tnm_logits"].argmax(axis=1)).all()


def test_a_checkpoint_becomes_a_saved_model(checkpoint, table, tmp_path):
    model = convert(checkpoint, tmp_path / "published.mmdls")
    pd.testing.assert_frame_equal(load(tmp_path / "published.mmdls").predict(table), model.predict(table))


def test_slices_are_brought_to_224(model, table):
    assert np.isfinite(model.predict(table)["os"]).all()
    assert model._inputs(table).data["lesion"].item_shape == (1, 224, 224)


def test_every_clinical_column_counts(model, table):
    """The published loader fed zeros for the clinical variables."""
    before = model.predict(table)["os"]
    for column in CLINICAL + PET:
        moved = table.assign(**{column: table[column].to_numpy()[::-1]})
        assert not np.allclose(model.predict(moved)["os"], before, atol=1e-7), column


def test_a_missing_value_is_refused_not_invented(model, table):
    table = table.copy()
    table.loc["b", "clinical_age"] = np.nan
    with pytest.raises(ValueError, match=r"'clinical_age', .* have missing or infinite values in rows \['b'\]"):
        model.predict(table)


def test_survival_functions_need_patients_first(checkpoint):
    model = MMDLS.published(checkpoint=checkpoint)
    model.set_params(lesion__image_size=16, lung__image_size=16)
    X, y = make_nsclc_cohort(40, n_slices=1, image_size=16, n_radiomics=128, return_X_y=True, random_state=0)
    X["clinical_sex"] = pd.factorize(X["clinical_sex"])[0].astype(float)
    for column in CLINICAL:
        X[column] = pd.to_numeric(X[column], errors="coerce").fillna(0.0)
    with pytest.raises(RuntimeError, match="came from a checkpoint; call fit_baselines"):
        model.predict_survival_function(X, "os")
    weights = [p.clone() for p in model.net_.module_.parameters()]
    survival = model.fit_baselines(X, y).predict_survival_function(X, "os", return_array=True)
    assert survival.shape == (40, len(model.unique_times_["os"]))
    assert (np.diff(survival, axis=1) <= 0).all()
    assert all(torch.equal(a, b) for a, b in zip(weights, model.net_.module_.parameters(), strict=True))


def test_the_recipe_trains(cohort):
    X, y = make_nsclc_cohort(24, n_slices=2, image_size=16, n_radiomics=8, return_X_y=True, random_state=3)
    model = MMDLS.published(trainer__max_epochs=2, lesion__image_size=16, lung__image_size=16, random_state=0)
    trainer = model.trainer
    assert (trainer.batch_size, trainer.learning_rate, trainer.optimizer) == (4, 1e-4, "adam")
    model.fit(X, y)
    assert model.predict(X).shape == (24, 4)


def test_a_wrong_checkpoint_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*best_model.pt"):
        MMDLS.published(checkpoint=tmp_path / "missing.pt")
    torch.save({"something.else": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="holds 'something.else'.*another model's checkpoint"):
        MMDLS.published(checkpoint=tmp_path / "other.pt")
