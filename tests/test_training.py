"""The cut at the slice embeddings gives the exact gradient of the whole batch; training is safe and repeatable."""

import pickle
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from small_network import small_network, training_net

import mmdls.images._store as store_module
from mmdls import Trainer, kernels
from mmdls.datasets import make_nsclc_cohort
from mmdls.estimators import MMDLS, LungLesionSegmentor, MultimodalSurvival, SliceEncoder, TabularEncoder
from mmdls.estimators.encoders._slices import SliceData
from mmdls.images import SliceStore
from mmdls.modules import SliceNet
from mmdls.modules.poolings import MeanPooling
from mmdls.parts import Part
from mmdls.registry import backbones
from mmdls.training._batches import _Batches, _Rows
from mmdls.training._compute import Compute
from mmdls.training._masks import _MaskNet
from mmdls.training._net import CohortNet
from mmdls.training._two_pass import pack


class DropoutBackbone(backbones["conv"]):
    """A backbone that draws random numbers in training."""

    def __init__(self, in_channels=1):
        super().__init__(in_channels, width=4, strides=(2, 1))

    def forward(self, image):
        return [torch.nn.functional.dropout(m, 0.3, self.training) for m in super().forward(image)]


@pytest.fixture
def pieces(cohort):
    """A double-precision network with two image modalities, its inputs and targets."""
    encoders = {
        name: SliceEncoder(backbone=DropoutBackbone, pooling="gated_attention", embedding_dim=8)
        for name in ("lesion", "lung")
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network, inputs, targets = small_network(cohort.data, cohort.target, encoders)
    return network.double(), inputs, targets


def _gradients(network, inputs, targets, plain=False, **settings):
    """Gradients of one step over all patients, by the cut or by one plain graph."""
    network.zero_grad()
    compute = _Double(**settings)
    net = training_net(network, inputs, targets, compute)
    rows = torch.arange(len(inputs))
    with torch.random.fork_rng():
        torch.manual_seed(1)
        if plain:
            network.train()
            packed = {}
            for name, data in inputs.data.items():
                if name == "clinical":
                    packed[name] = data.take(rows.numpy())
                    continue
                index, counts = data.index_of(rows.numpy())
                encoder = network.encoders[name]
                parts = [
                    compute.encode(encoder, data, index[p]) for p in compute.micro_batches(encoder, data, len(index))
                ]
                packed[name] = torch.cat(parts), torch.as_tensor(counts)
            loss, _ = net._loss(network, net.members[0], rows, packed)
            loss.backward()
        else:
            loss = net.train_step_single((rows, rows))["loss"]
        after = torch.get_rng_state()
    return loss.item(), {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}, after


class _Double(Compute):
    def encode(self, encoder, data, index):
        return encoder.encode(self.read(data, index).double())


@pytest.mark.parametrize("kept_bytes", [0, 30_000, 10**9])
@pytest.mark.parametrize("micro_batch_size", [1, 7, 1000])
def test_the_cut_gives_the_gradient_of_the_full_batch(pieces, micro_batch_size, kept_bytes):
    """Dropout in the backbone, in the heads and over modalities; two image modalities; any micro-batch; none, some or
    all of the first pass kept.
    """
    torch.set_default_dtype(torch.float64)
    try:
        cut = _gradients(*pieces, micro_batch_size=micro_batch_size, kept_bytes=kept_bytes)
        plain = _gradients(*pieces, micro_batch_size=micro_batch_size, plain=True)
    finally:
        torch.set_default_dtype(torch.float32)
    assert cut[0] == pytest.approx(plain[0], rel=1e-12)
    assert cut[1].keys() == plain[1].keys()
    assert any("backbone" in name and gradient.abs().max() > 0 for name, gradient in cut[1].items())
    for name, gradient in plain[1].items():
        assert torch.allclose(cut[1][name], gradient, rtol=1e-6, atol=1e-12), name
    assert torch.equal(cut[2], plain[2]), "the random numbers of the next step are the same too"


def test_micro_batches_change_memory_not_the_model(cohort):
    X, y = cohort.data[["lesion_image", "clinical_age"]], cohort.target[["os_time", "os_event"]]
    risks = [
        MultimodalSurvival(trainer=Trainer(max_epochs=3, micro_batch_size=size), random_state=0).fit(X, y).predict(X)
        for size in (1, 16, "auto")
    ]
    assert np.allclose(risks[0], risks[1], atol=1e-4)
    assert np.allclose(risks[0], risks[2], atol=1e-4)


def test_frozen_backbones_stay_as_they_were_drawn(cohort):
    X, y = cohort.data, cohort.target[["os_time", "os_event"]]
    model = MultimodalSurvival(
        [("lesion", SliceEncoder(trainable=False), ["lesion_image"])], trainer=Trainer(max_epochs=3), random_state=0
    )
    weights = []
    for epochs in (1, 4):
        fitted = model.set_params(trainer__max_epochs=epochs).fit(X, y)
        weights.append(fitted.net_.module_.first.encoders["lesion"].backbone.state_dict())
    assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])


@pytest.mark.parametrize(("n", "size"), [(100, 30), (101, 25), (97, 12)])
def test_batches_share_events_and_times_and_see_everybody_once(n, size):
    rng = np.random.default_rng(n)
    events, times = (rng.random(n) < 0.3).astype(int), rng.exponential(30, n)
    batches = _Batches(_Rows(np.arange(n)), events, times, size)
    assert len(batches) == -(-n // size)
    epochs = []
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(20):
            drawn = [rows.numpy() for rows, _ in batches]
            epochs.append(drawn)
            assert sorted(np.concatenate(drawn)) == list(range(n))
            assert all(len(rows) <= size for rows in drawn)
            counts = [events[rows].sum() for rows in drawn]
            assert max(counts) - min(counts) <= 1
            for rows in drawn:
                pairs = (events[rows] == 1)[:, None] & (times[rows][:, None] < times[rows])
                assert pairs.any(), "a batch without comparable pairs teaches a Cox model nothing"
    assert any(set(a) != set(b) for a, b in zip(epochs[0], epochs[1], strict=True)), "drawn anew each epoch"
    whole = list(_Batches(_Rows(np.arange(n)), events, times, 512))
    assert len(whole) == 1 and len(whole[0][0]) == n


def test_divergence_stops_with_a_clear_error(cohort):
    X, y = cohort.data[["clinical_age"]], cohort.target[["os_time", "os_event"]]
    model = MultimodalSurvival(
        trainer=Trainer(learning_rate=1e30, gradient_clip=None, schedule=None, patience=None), random_state=0
    )
    with pytest.raises(
        FloatingPointError, match=r"training diverged in epoch \d+: .*Lower learning_rate \(now 1e\+30\)"
    ):
        model.fit(X, y)


@pytest.mark.parametrize("segmentor", [False, True])
def test_ctrl_c_in_training_reaches_the_caller(monkeypatch, segmentor):
    X, y = make_nsclc_cohort(20, n_slices=2, image_size=16, masks=segmentor, return_X_y=True, random_state=0)
    net, method = (_MaskNet, "_loss") if segmentor else (CohortNet, "_losses_at_once")
    calls, loss = [], getattr(net, method)

    def interrupted(self, *args):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return loss(self, *args)

    monkeypatch.setattr(net, method, interrupted)
    model = (
        LungLesionSegmentor(image_column="lung_image", max_epochs=20)
        if segmentor
        else MMDLS(trainer=Trainer(max_epochs=20))
    )
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, None if segmentor else y)
    assert len(calls) == 3


def test_ctrl_c_in_the_first_epoch_reaches_the_caller(cohort, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(CohortNet, "_sum", interrupted)
    with pytest.raises(KeyboardInterrupt):
        MMDLS().fit(cohort.data[["clinical_age"]], cohort.target)


def test_held_out_losses_that_are_not_finite_end_the_training(cohort, monkeypatch):
    loss = CohortNet.task_loss
    monkeypatch.setattr(CohortNet, "task_loss", lambda *args: loss(*args) * torch.nan)
    with pytest.raises(FloatingPointError, match="training diverged in epoch 1: the loss of"):
        MMDLS(trainer=Trainer(max_epochs=3)).fit(cohort.data[["clinical_age"]], cohort.target)


def test_early_stopping_restores_the_best_weights(cohort):
    X, y = cohort.data[["clinical_age", "pet_suvmax"]], cohort.target[["os_time", "os_event"]]
    trainer = Trainer(learning_rate=0.1, patience=3, max_epochs=100)
    model = MultimodalSurvival(trainer=trainer, random_state=0).fit(X, y)
    history = model.history_
    assert len(history) < 100
    assert history.index[history["event_best"].astype(bool)].max() == len(history) - 3
    assert {"train_loss", "valid_loss", "train_os_loss", "valid_os_loss"} <= set(history.columns)


def test_a_fitted_model_carries_no_patients(cohort):
    X, y = cohort.data, cohort.target
    model = MMDLS(trainer=Trainer(max_epochs=1), random_state=0).fit(X, y)
    assert model.net_.members is None and model.net_.targets is None and model.net_.train_split is None


def test_threads_do_not_disturb_one_another(cohort):
    from joblib import Parallel, delayed

    X, y = cohort.data[["clinical_age", "pet_suvmax"]], cohort.target[["os_time", "os_event"]]

    def risk(seed):
        return MultimodalSurvival(trainer=Trainer(max_epochs=3), random_state=seed).fit(X, y).predict(X)

    alone = [risk(seed) for seed in range(3)]
    together = Parallel(n_jobs=3, backend="threading")(delayed(risk)(seed) for seed in range(3))
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


def test_weights_count(cohort):
    X, y = cohort.data[["clinical_age", "pet_suvmax"]], cohort.target
    model = MMDLS(
        dropout=0.0, modality_dropout=0.0, trainer=Trainer(max_epochs=3, validation_fraction=0), random_state=0
    )
    plain = model.fit(X, y).transform(X)
    ones = model.fit(X, y, sample_weight=np.ones(len(X))).transform(X)
    assert np.allclose(plain, ones, atol=1e-5)
    others = model.fit(X, y, sample_weight=np.linspace(0, 3, len(X))).transform(X)
    assert not np.allclose(plain, others, atol=1e-3)
    with pytest.raises(ValueError, match="Negative"):
        model.fit(X, y, sample_weight=-np.ones(len(X)))


def test_the_device_must_be_there(cohort):
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(ValueError, match="torch sees no CUDA device"):
        MMDLS(trainer=Trainer(device="cuda")).fit(cohort.data, cohort.target)


def test_packing_gathers_only_real_slices(pieces):
    network, inputs, _ = pieces
    rows = torch.tensor([5, 2, 9])
    packed = pack(network.float(), inputs, rows, Compute())
    for name in ("lesion", "lung"):
        slices, counts = packed[name]
        assert counts.tolist() == inputs.data[name].counts[rows.numpy()].tolist()
        assert len(slices) == counts.sum()


def test_progress_is_shown_when_asked(cohort, capsys):
    X, y = cohort.data[["clinical_age"]], cohort.target[["os_time", "os_event"]]
    MultimodalSurvival(trainer=Trainer(max_epochs=2, verbose=1), random_state=0).fit(X, y)
    assert "training" in capsys.readouterr().err
    MultimodalSurvival(trainer=Trainer(max_epochs=2), random_state=0).fit(X, y)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", [3, None])
def test_names_of_modalities_are_texts(name):
    X, y = make_nsclc_cohort(30, n_slices=1, image_size=8, return_X_y=True, random_state=0)
    for modalities in ({name: ["clinical_age"]}, [(name, "table", ["clinical_age"])]):
        with pytest.raises(ValueError, match="names of modalities must be texts such as 'clinical' or 'ct'; got"):
            MMDLS(modalities=modalities).fit(X, y)


def test_unknown_choices_are_named(cohort):
    X, y = cohort.data[["clinical_age"]], cohort.target
    with pytest.raises(KeyError, match="fusions has no 'gatd'. Did you mean 'gated'"):
        MMDLS(fusion="gatd").fit(X, y)
    with pytest.raises(KeyError, match="ordinal_heads has no 'probit'"):
        MMDLS(ordinal_head="probit").fit(X, y)
    for name, wrong in (("ordinal_head", "probit"), ("ordinal_head", Part("probit")), ("survival_head", "probit")):
        with pytest.raises(KeyError, match=f"{name}s has no 'probit'"):  # y has no such task
            MMDLS(**{name: wrong}).fit(X, y[["subtype"]])
    for wrong in ({"schedule": "linear"}, {"optimizer": "sgd"}, {"precision": "half"}):
        with pytest.raises(ValueError, match=f"The '{next(iter(wrong))}' parameter of Trainer must be"):
            MMDLS(trainer=Trainer(**wrong)).fit(X, y)
    with pytest.raises(ValueError, match="modalities must be 'auto', a dict of columns"):
        MMDLS("images").fit(X, y)
    with pytest.raises(ValueError, match="no feature columns"):
        MMDLS().fit(X.rename(columns={"clinical_age": "age"}), y)
    pd.testing.assert_frame_equal(X, cohort.data[["clinical_age"]])


class _Counting(Compute):
    """Counts the slices that go through a backbone."""

    seen = 0

    def features(self, encoder, data, index):
        type(self).seen += len(index)
        return super().features(encoder, data, index)


@pytest.fixture
def encoded(monkeypatch):
    """Slices encoded since the last look."""
    monkeypatch.setattr(_Counting, "seen", 0)
    monkeypatch.setattr("mmdls.training._trainer.Compute", _Counting)

    def look():
        seen, _Counting.seen = _Counting.seen, 0
        return seen

    return look


def _frozen(memory=None, **params):
    encoder = SliceEncoder(trainable=False, memory=memory)
    return MultimodalSurvival(
        [("lesion", encoder, ["lesion_image"]), ("clinical", TabularEncoder(), ["clinical_age"])],
        random_state=0,
        **{"trainer": Trainer(max_epochs=3)} | params,
    )


def test_a_frozen_encoder_encodes_once_a_fit(cohort, encoded):
    X, y = cohort.data, cohort.target[["os_time", "os_event"]]
    n_slices = SliceEncoder().prepare(X[["lesion_image"]]).n_items
    _frozen().fit(X, y)
    assert encoded() == n_slices
    _frozen().set_params(lesion__trainable=True, trainer__validation_fraction=0).fit(X, y)
    assert encoded() >= 3 * n_slices


def test_memory_pays_for_the_images_of_a_search_once(cohort_on_disk, encoded, tmp_path, monkeypatch):
    X, y = cohort_on_disk.data, cohort_on_disk.target[["os_time", "os_event"]]
    train, held = X[:40], X[40:]
    reads = []
    reader = store_module.read_image
    monkeypatch.setattr(store_module, "read_image", lambda *cell: reads.append(cell) or reader(*cell))
    expected = [_frozen(fusion=fusion).fit(train, y[:40]).predict(held) for fusion in ("gated", "concat")]
    assert encoded() and reads
    first = _frozen(tmp_path).fit(train, y[:40]).predict(held)
    assert encoded() and reads
    reads.clear()
    second = _frozen(tmp_path, fusion="concat").fit(train, y[:40]).predict(held)
    assert encoded() == 0, "no image is encoded again in another trial of the search"
    assert not reads, "nor decoded"
    assert np.array_equal(first, expected[0]) and np.array_equal(second, expected[1])
    _frozen(tmp_path).set_params(random_state=1).fit(train, y[:40])
    assert encoded() > 0, "another random backbone is another encoding"


def test_a_fitted_encoder_remembers_its_embeddings(cohort, encoded, tmp_path):
    X, y = cohort.data, cohort.target[["os_time", "os_event"]]
    encoder = SliceEncoder(memory=tmp_path, embedding_dim=8, trainer=Trainer(max_epochs=2), random_state=0)
    encoder.fit(X[["lesion_image"]], y)
    encoded()
    embedding = encoder.transform(X[["lesion_image"]])
    assert encoded() > 0
    assert np.array_equal(encoder.transform(X[["lesion_image"]]), embedding, equal_nan=True)
    MultimodalSurvival([("lesion", FrozenEstimator(encoder), ["lesion_image"])], trainer=Trainer(max_epochs=2)).fit(
        X, y
    ).predict(X)
    assert encoded() == 0
    encoder.fit(X[["lesion_image"]], y).set_params(memory=None)
    encoded()
    assert np.allclose(encoder.transform(X[["lesion_image"]]), embedding, atol=1e-5, equal_nan=True)
    assert encoded() > 0


@pytest.mark.parametrize(("kept_bytes", "passes"), [(0, 2), (10**9, 1)])
def test_images_pass_twice_at_most(pieces, kept_bytes, passes):
    network, inputs, targets = pieces
    network.float()
    net = training_net(network, inputs, targets, _Counting(kept_bytes=kept_bytes))
    inputs.data["clinical"].table = inputs.data["clinical"].table.float()
    _Counting.seen = 0
    rows = torch.arange(len(inputs))
    with torch.random.fork_rng():
        net.train_step_single((rows, rows))
    assert _Counting.seen == passes * sum(inputs.data[name].n_items for name in ("lesion", "lung"))


def test_micro_batches_fit_the_size_of_the_slices():
    encoder = SliceNet(backbones["conv"](), MeanPooling(8), 8)

    def size(side, **settings):
        data = SliceData(SliceStore(np.zeros((1, side, side), np.uint8), np.array([1]), 0.5, 0.1, ""))
        return Compute(**settings).micro_batches(encoder, data, 10**4)[0].stop

    with kernels.using("plain"):
        sizes = [size(side) for side in (16, 64, 112, 224, 512)]
        assert sizes == sorted(sizes, reverse=True) and sizes[0] > 100 and sizes[-1] == 1
        assert size(64, precision="bf16") == 2 * size(64)
        assert size(64, micro_batch_size=3) == 3
        widest = 64 * 64**2 * 4
        assert size(64) * widest < 32 * 2**20, "beyond this the C library fetches fresh pages at every allocation"
    if kernels.info().way != "plain":
        assert size(224) >= 10 * sizes[3], "kernels make no maps"
        with kernels.using("plain"):
            half = size(224, precision="bf16")
        assert size(224, precision="bf16") == half, "kernels compute in single precision only"


@pytest.mark.skipif(kernels.info().way == "plain", reason="nothing is compiled here")
def test_micro_batches_are_of_equal_size_and_larger_where_kernels_make_no_map():
    encoder = SliceNet(backbones["resnet10"](width=16), MeanPooling(8), 8)
    data = SliceData(SliceStore(np.zeros((1, 224, 224), np.uint8), np.array([1]), 0.5, 0.1, ""))
    parts = Compute().micro_batches(encoder, data, 104, 3)
    assert parts == [slice(3, 54), slice(54, 104)], "79 at most"
    with kernels.using("plain"):
        usual = [part.stop - part.start for part in Compute().micro_batches(encoder, data, 104, 3)]
    assert usual == [17] * 5 + [16], "20 at most"


def test_convolutions_run_channels_last_whatever_the_weights_are():
    data = SliceData(SliceStore(np.zeros((2, 8, 8), np.uint8), np.array([2]), 0.5, 0.1, ""))
    image = Compute().read(data, np.arange(2))
    maps = backbones["conv"]()(image)
    assert all(each.is_contiguous(memory_format=torch.channels_last) for each in maps)


def test_bf16_answers_like_float32(cohort):
    X, y = cohort.data[["lesion_image", "clinical_age"]], cohort.target[["os_time", "os_event"]]
    model = MultimodalSurvival(trainer=Trainer(max_epochs=3), random_state=0).fit(X, y)
    risk, half = model.predict(X), model.set_params(trainer__precision="bf16").predict(X)
    assert 0 < np.abs(risk - half).max() < 0.05 * np.ptp(risk)
    trained = model.fit(X, y).predict(X)
    assert np.corrcoef(trained, risk)[0, 1] > 0.95


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_backbones_give_the_same_model(cohort):
    X, y = cohort.data[["lesion_image"]], cohort.target[["os_time", "os_event"]]
    plain = MultimodalSurvival(trainer=Trainer(max_epochs=2), random_state=0).fit(X, y)
    compiled = MultimodalSurvival(trainer=Trainer(max_epochs=2, compile=True), random_state=0).fit(X, y)
    assert np.allclose(plain.predict(X), compiled.predict(X), atol=1e-4)
    assert np.allclose(pickle.loads(pickle.dumps(compiled)).predict(X), compiled.predict(X), atol=1e-4)


def test_means_of_half_precision_maps_keep_their_differences():
    """Means that bf16 itself could not tell apart."""
    generator = torch.Generator().manual_seed(0)
    maps = (100 + torch.rand(1, 8, 50, 40, generator=generator)).bfloat16().requires_grad_()
    encoder = SliceNet(_Same(8), MeanPooling(4), 4)
    features = encoder.features(maps)
    exact = maps.detach().double().mean(dim=(2, 3))
    assert len(exact.bfloat16().unique()) == 1 and features.dtype == torch.float32
    assert torch.allclose(features.double(), exact, rtol=1e-6, atol=0)
    features.sum().backward()
    assert torch.allclose(maps.grad.float(), torch.tensor(1 / 2000), rtol=1e-2)


class _Same(torch.nn.Module):
    """A backbone that changes nothing."""

    def __init__(self, channels):
        super().__init__()
        self.out_channels = [channels]

    def forward(self, image):
        return [image]


@pytest.mark.parametrize("survival", ["cox", "logistic_hazard"])
def test_times_that_differ_by_rounding_only_are_tied(survival, cohort):
    X, y = cohort.data[["clinical_age", "pet_suvmax"]], cohort.target[["os_time", "os_event"]].copy()
    y["os_time"] = y["os_time"].round() + 1
    rng = np.random.default_rng(0)
    rounded = y.assign(os_time=y["os_time"] * (1 + rng.uniform(-1e-13, 1e-13, len(y))))
    assert rounded["os_time"].nunique() > y["os_time"].nunique()
    model, other = (
        MultimodalSurvival(survival_head=survival, trainer=Trainer(max_epochs=4), random_state=0).fit(X, table)
        for table in (y, rounded)
    )
    np.testing.assert_allclose(other.predict(X), model.predict(X), rtol=1e-6)
    assert len(other.unique_times_) == y["os_time"].nunique()
    curves = [each.predict_survival_function(X, return_array=True) for each in (model, other)]
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-6)
