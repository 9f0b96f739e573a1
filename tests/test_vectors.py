"""Bags of vectors: order and padding never count, a signal that only a bag carries is learned, faults are named."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from torch import nn

from mmdls import MMDLS, MultimodalClassifier, Part, SliceEncoder, Trainer, VectorBagEncoder
from mmdls.estimators.encoders._vector_data import VectorData
from mmdls.modules import BagNet
from mmdls.registry import poolings

pytestmark = pytest.mark.filterwarnings("ignore:.*of .* patients have none of the modalities")

QUICK = Trainer(max_epochs=3, batch_size=16)


def simulate(n=60, n_features=6, missing=0.1, seed=0):
    """Two vectors of each bag say the label, and are opposite, so that the mean of the bag says nothing of it."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, n)
    bags = [rng.normal(size=(rng.integers(3, 12), n_features)) * 10 + 100 for _ in range(n)]
    for bag, positive in zip(bags, label, strict=True):
        away = 50 * np.array([1, 1 if positive else -1])
        first, second = rng.choice(len(bag), 2, replace=False)
        bag[first, :2] += away
        bag[second, :2] -= away
    ids = [f"P{i}" for i in range(n)]
    X = pd.DataFrame({"slide_vectors": pd.Series(bags, index=ids, dtype=object)}, index=ids)
    X["clinical_age"] = rng.normal(60, 8, n)
    if missing:
        X.loc[X.index[rng.random(n) < missing], "slide_vectors"] = None
    return X, pd.DataFrame({"subtype": np.where(label == 1, "LUSC", "LUAD")}, index=ids)


@pytest.fixture(scope="module")
def data():
    return simulate()


@pytest.fixture(scope="module", params=sorted(poolings))
def model(request, data):
    encoder = VectorBagEncoder(pooling=request.param, embedding_dim=8)
    modalities = [("slide", encoder, "slide_vectors"), ("clinical", "table", "clinical")]
    return MMDLS(modalities, n_members=1, trainer=QUICK, random_state=0).fit(*data)


def test_vectors_are_a_modality_by_their_column(data):
    X, y = data
    model = MMDLS(trainer=QUICK, random_state=0).fit(X, y)
    assert [(n, type(e).__name__) for n, e, _ in model.modalities_] == [
        ("slide", "VectorBagEncoder"),
        ("clinical", "TabularEncoder"),
    ]
    assert model.modalities_[0][1].transform(X).shape == (len(X), 64)


def test_the_order_of_vectors_and_the_other_patients_never_count(model, data):
    X, _ = data
    expected = model.predict_proba(X, "subtype")
    rng = np.random.default_rng(1)
    turned = X.assign(slide_vectors=[None if bag is None else rng.permutation(bag) for bag in X["slide_vectors"]])
    np.testing.assert_allclose(model.predict_proba(turned, "subtype"), expected, atol=1e-6)
    largest = X["slide_vectors"].map(lambda bag: 0 if bag is None else len(bag)).argmax()
    for row in (0, largest):
        np.testing.assert_allclose(model.predict_proba(X.iloc[[row]], "subtype"), expected[[row]], atol=1e-6)
    np.testing.assert_allclose(model.predict_proba(X[::-1], "subtype"), expected[::-1], atol=1e-6)
    changed = X.copy()
    bag = changed["slide_vectors"].iloc[1].copy()
    bag[0] += 50
    changed.at[changed.index[1], "slide_vectors"] = bag
    assert not np.allclose(model.predict_proba(changed, "subtype")[1], expected[1], atol=1e-6)


def test_attention_says_how_much_each_vector_counts(model, data):
    X, _ = data
    has_weights = hasattr(poolings[model.modalities_[0][1].pooling], "attention")
    table = model.attention_weights(X)
    assert ("slide_vectors" in table) == has_weights
    if has_weights:
        for weights, bag in zip(table["slide_vectors"], X["slide_vectors"], strict=True):
            assert len(weights) == (0 if bag is None else len(bag))
            assert bag is None or weights.sum() == pytest.approx(1)


def test_a_signal_that_only_a_bag_carries_is_learned():
    X, y = simulate(200, missing=0)
    trainer = Trainer(max_epochs=40, learning_rate=0.01, validation_fraction=0)
    model = MultimodalClassifier(trainer=trainer, random_state=0).fit(X[:140], y["subtype"][:140])
    assert roc_auc_score(y["subtype"][140:] == "LUSC", model.predict_proba(X[140:])[:, 1]) > 0.9
    means = X.assign(slide_vectors=[bag.mean(axis=0) for bag in X["slide_vectors"]])
    plain = MultimodalClassifier(trainer=trainer, random_state=0).fit(means[:140], y["subtype"][:140])
    assert roc_auc_score(y["subtype"][140:] == "LUSC", plain.predict_proba(means[140:])[:, 1]) < 0.75


def test_forms_of_a_bag_say_the_same(data, tmp_path):
    X, _ = data
    for i, bag in enumerate(X["slide_vectors"]):
        if bag is not None:
            np.save(tmp_path / f"{i}.npy", bag)
    forms = {
        "array": lambda i, bag: bag,
        "list of vectors": lambda i, bag: list(bag),
        "list of lists": lambda i, bag: bag.tolist(),
        "path": lambda i, bag: tmp_path / f"{i}.npy",
        "text": lambda i, bag: str(tmp_path / f"{i}.npy"),
        "big-endian": lambda i, bag: bag.astype(">f8"),
    }
    first = None
    for name, form in forms.items():
        cells = [None if bag is None else form(i, bag) for i, bag in enumerate(X["slide_vectors"])]
        data = VectorData.read_column(pd.Series(cells, index=X.index, dtype=object), n_jobs=2)
        everything = data.read(np.arange(data.n_items))
        first = everything if first is None else first
        assert torch.equal(everything, first), name
        assert data.counts.tolist() == [0 if bag is None else len(bag) for bag in X["slide_vectors"]]
    some = np.array([5, 2, 40, 41, 7])
    assert torch.equal(data.read(some), first[some]) and data.read(some[:0]).shape == (0, 6)
    one = VectorData.read_column(pd.Series([np.ones(6), [1, 2, 3, 4, 5, 6], np.ones((1, 6))]))
    assert one.counts.tolist() == [1, 1, 1]


def test_micro_batches_and_threads_change_nothing(data):
    X, y = data
    trainers = [Trainer(max_epochs=2), Trainer(max_epochs=2, micro_batch_size=7, n_jobs=2)]
    answers = [MMDLS(trainer=trainer, random_state=0).fit(X, y).predict_proba(X, "subtype") for trainer in trainers]
    np.testing.assert_allclose(answers[0], answers[1], atol=1e-5)


def test_an_item_is_embedded_alone_as_among_others():
    """In single precision some of them differ in the last digit, on most processors."""
    torch.manual_seed(0)
    net = BagNet(nn.Identity(), 24, poolings["mean"](32), 32).eval()
    items = torch.randn(300, 24)
    with torch.no_grad():
        together, alone = net.encode(items), torch.cat([net.encode(item[None]) for item in items])
        assert together.dtype == torch.float32 and torch.equal(together, alone)
        torch.testing.assert_close(net.train().encode(items), together)


def test_vectors_are_standardised_on_training_rows_by_weight(data):
    X, y = data
    weight = np.random.default_rng(0).integers(0, 3, len(X)).astype(float)
    encoder = VectorBagEncoder(embedding_dim=4, trainer=QUICK, random_state=0).fit(X[["slide_vectors"]], y, weight)
    bags = [(bag, w) for bag, w in zip(X["slide_vectors"], weight, strict=True) if bag is not None and w]
    share = np.concatenate([np.full(len(bag), w / len(bag)) for bag, w in bags])
    vectors = np.concatenate([bag for bag, _ in bags])
    mean = np.average(vectors, axis=0, weights=share)
    np.testing.assert_allclose(encoder.mean_, mean)
    np.testing.assert_allclose(encoder.std_, np.sqrt(np.average((vectors - mean) ** 2, axis=0, weights=share)))
    units = X.assign(slide_vectors=[None if bag is None else bag * 1000 - 7 for bag in X["slide_vectors"]])
    again = clone(encoder).fit(units[["slide_vectors"]], y, weight)
    np.testing.assert_allclose(again.transform(units), encoder.transform(X), atol=1e-4)
    raw = clone(encoder).set_params(standardize=False).fit(X[["slide_vectors"]], y)
    assert not np.allclose(raw.transform(X), encoder.transform(X), equal_nan=True)


def test_a_number_that_did_not_vary_stays_without_effect(data):
    X, y = data

    def with_number(number):
        bags = [None if bag is None else np.c_[bag, np.full(len(bag), number)] for bag in X["slide_vectors"]]
        return X.assign(slide_vectors=bags)

    constant, moved = with_number(5), with_number(9)
    model = MMDLS(trainer=QUICK, random_state=0).fit(constant, y)
    np.testing.assert_allclose(model.predict_proba(moved, "subtype"), model.predict_proba(constant, "subtype"))


def test_alone_it_is_a_transformer(data):
    X, y = data
    encoder = VectorBagEncoder(embedding_dim=4, trainer=QUICK, random_state=0).fit(X[["slide_vectors"]], y)
    embedding = encoder.transform(X)
    assert np.array_equal(np.isnan(embedding).all(axis=1), X["slide_vectors"].isna())
    assert encoder.get_feature_names_out()[0] == "slide_embedding_000"
    np.testing.assert_allclose(pickle.loads(pickle.dumps(encoder)).transform(X), embedding)
    columns = make_column_transformer((clone(encoder), ["slide_vectors"]), ("passthrough", ["clinical_age"]))
    pipeline = make_pipeline(columns, SimpleImputer(), LogisticRegression())
    assert pipeline.fit(X, y["subtype"]).predict(X).shape == (len(X),)
    assert clone(encoder).set_params(pooling=Part("gated_attention")).get_params()["trainer__max_epochs"] == 3


def test_vectors_that_no_training_patient_had_are_left_aside(data):
    X, y = data
    nobody = X.assign(slide_vectors=None)
    with pytest.warns(UserWarning, match=r"no training patient of known outcome has the modalities \['slide'\]"):
        model = MMDLS(trainer=QUICK, random_state=0).fit(nobody, y)
    with pytest.warns(UserWarning, match="the modality 'slide', which no training patient had"):
        answers = model.predict_proba(X, "subtype")
    np.testing.assert_allclose(answers, model.predict_proba(nobody, "subtype"))


def with_cell(X, cell, row="P1"):
    X = X.copy()
    X.at[row, "slide_vectors"] = cell
    return X


BAD = {
    "not finite": (np.array([[1.0] * 6, [np.nan] * 6]), ValueError, "row 'P1': 1 of 2 vectors hold NaN"),
    "too large": (np.full((1, 6), 1e300), ValueError, "row 'P1': 1 of 1 vectors hold NaN, infinite"),
    "another length": (np.ones((2, 5)), ValueError, r"of 6 numbers, in most rows; those in rows \['P1'\] have \[5\]"),
    "no vector": (np.ones((0, 6)), ValueError, r"row 'P1': vectors must have shape .* got \(0, 6\). Give None"),
    "no numbers": (np.array([["a"] * 6]), ValueError, "row 'P1': vectors must hold numbers"),
    "a stack": (np.ones((2, 3, 6)), ValueError, r"got \(2, 3, 6\)"),
    "ragged": ([[1.0, 2.0], [1.0]], ValueError, "row 'P1': vectors of a list must have one length"),
    "a number": (3.0, TypeError, "row 'P1': expected vectors as an array of shape .* got float"),
    "no file": ("nowhere.npy", FileNotFoundError, "row 'P1': no file 'nowhere.npy'"),
    "another file": (__file__, ValueError, "is no .npy file; write the vectors with numpy.save"),
    "blank": (" ", ValueError, "row 'P1': the path is empty"),
}


@pytest.mark.parametrize(("cell", "error", "message"), BAD.values(), ids=BAD)
def test_what_is_no_bag_is_refused_by_its_row(data, cell, error, message):
    X, y = data
    with pytest.raises(error, match=message):
        MMDLS(trainer=QUICK).fit(with_cell(X, cell), y)


def test_a_damaged_file_and_another_length_after_fit_are_refused(data, tmp_path):
    X, y = data
    (tmp_path / "a.npy").write_bytes(b"no array")
    with pytest.raises(ValueError, match="a.npy' is no array of numbers"):
        MMDLS(trainer=QUICK).fit(with_cell(X, str(tmp_path / "a.npy")), y)
    model = MMDLS(trainer=QUICK, random_state=0).fit(X, y)
    with pytest.raises(ValueError, match=r"of 6 numbers, as in fit; those in rows \['P1'\] have \[5\]"):
        model.predict(with_cell(X, np.ones((2, 5))).loc[["P1"]])
    with pytest.raises(ValueError, match="reads one column of vectors"):
        VectorBagEncoder().fit(X, y)


# Paths that differ from patient to patient are identifiers for "auto".
@pytest.mark.parametrize(
    ("modalities", "cell"),
    [("auto", "array"), ("auto", "list"), *(({"slide": "slide_emb"}, cell) for cell in ("array", "list", "file"))],
)
def test_vectors_under_another_name_are_not_taken_for_an_image(modalities, cell, tmp_path):
    rng = np.random.default_rng(0)
    bags = [rng.random((8, 16)) for _ in range(12)]
    for i, bag in enumerate(bags if cell == "file" else ()):
        np.save(tmp_path / f"{i}.npy", bag)
        bags[i] = str(tmp_path / f"{i}.npy")
    X = pd.DataFrame({"slide_emb": pd.Series([bag.tolist() for bag in bags] if cell == "list" else bags, dtype=object)})
    y = pd.Series([0, 1] * 6)
    with pytest.raises(ValueError, match=r"'slide_emb' of X holds .*row 0.*'<name>_vectors'; under another name"):
        MMDLS(modalities, trainer=QUICK).fit(X, y)
    model = MMDLS([("slide", "vectors", "slide_emb")], trainer=QUICK, random_state=0).fit(X, y)
    assert isinstance(model.modalities_[0][1], VectorBagEncoder)


def test_messages_of_other_readers_of_arrays_name_the_column_of_vectors():
    y = pd.Series([0, 1] * 6)
    vector = pd.DataFrame({"slide_emb": [np.arange(3.0)] * 12})
    pixels = pd.DataFrame({"slide_image": [np.arange(6.0).reshape(2, 3)] * 12})
    for X in (vector, pixels):
        with pytest.raises(ValueError, match="from .* '<name>_vectors'"):
            MMDLS(trainer=QUICK).fit(X, y)


def test_vectors_and_images_are_modalities_side_by_side():
    X, y = simulate(40)
    rng = np.random.default_rng(0)
    X["ct_image"] = [rng.random((2, 8, 8)).astype(np.float32) for _ in range(len(X))]
    backbone = Part("conv", width=4, strides=(2,))
    encoder = SliceEncoder(backbone=backbone, pooling="gated_attention", embedding_dim=4)
    model = MMDLS(image_encoder=encoder, trainer=QUICK, random_state=0).fit(X, y)
    assert {"slide_vectors", "ct_slices"} <= set(model.attention_weights(X))
