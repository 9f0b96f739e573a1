"""Several processes that train one model get the gradient, the weights and the answers of one process."""

import time
from contextlib import contextmanager, nullcontext
from datetime import timedelta

import numpy as np
import pytest
import torch
from small_network import small_network, training_net
from torch import distributed, multiprocessing

from mmdls import Part
from mmdls.datasets import make_nsclc_cohort
from mmdls.estimators import MMDLS, SliceEncoder
from mmdls.registry import backbones
from mmdls.training._compute import Compute
from mmdls.training._ranks import Ranks, own_device

N_RANKS = 2


class Double(Compute):
    """Images in double precision while the encoders are."""

    def features(self, encoder, data, index):
        return encoder.features(self.read(data, index).to(encoder.projection.weight))


@contextmanager
def double_precision():
    """Where there is no gradient, single precision leaves rounding, of which AdamW makes steps of full length."""
    torch.set_default_dtype(torch.float64)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("mmdls.training._trainer.Compute", Double)
            yield
    finally:
        torch.set_default_dtype(torch.float32)


class NoisyBackbone(backbones["conv"]):
    """Draws random numbers in training, and counts its calls in a buffer as batch normalisation does."""

    def __init__(self, in_channels=1):
        super().__init__(in_channels, width=4, strides=(2, 1))
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, image):
        self.calls += self.training
        return [torch.nn.functional.dropout(m, 0.3, self.training) for m in super().forward(image)]


def simulate(n=40):
    """A cohort with tied times and one to five slices; some images are missing, and of the first patients all."""
    cohort = make_nsclc_cohort(n, n_slices=(1, 5), image_size=16, missing=0.2, random_state=3)
    X, y = cohort.data.copy(), cohort.target.copy()
    X.loc[X.index[:8], ["lesion_image", "lung_image"]] = None
    for column in ("dfs_time", "os_time"):
        y[column] = np.ceil(y[column] / 6) * 6
    return X, y


def step(batch, **settings):
    """Loss and gradients of one step over some patients in double precision; dropout everywhere but in the encoders."""
    X, y = simulate()
    encoders = {
        name: SliceEncoder(pooling=pooling, embedding_dim=8, backbone=Part("conv", width=4, strides=(2, 1)))
        for name, pooling in (("lesion", "gated_attention"), ("lung", "self_attention"))
    }
    with double_precision(), torch.random.fork_rng():
        torch.manual_seed(0)
        network, inputs, targets = small_network(X, y, encoders)
        rows = torch.as_tensor(ROWS[batch](*(inputs.data[name].counts for name in encoders)))
        assert len(rows)
        ranks = Ranks.join(torch.device("cpu"), 1)
        torch.manual_seed(1)
        net = training_net(network, inputs, targets, Double(ranks=ranks, **settings))
        loss = net.train_step_single((rows, rows))["loss"].item()
        gradients = {n: None if p.grad is None else p.grad.clone() for n, p in network.named_parameters()}
        return loss, gradients, torch.get_rng_state()


# Patients of a batch by their numbers of slices in the two modalities.
ROWS = {
    "all": lambda lesion, lung: np.arange(len(lesion)),
    "images in the second half only": lambda lesion, lung: np.argsort(lesion + lung > 0, stable=True)[:16],
    "no lesion at all": lambda lesion, lung: np.flatnonzero((lesion == 0) & (lung > 0)),
    "no image at all": lambda lesion, lung: np.flatnonzero(lesion + lung == 0),
    "one slice": lambda lesion, lung: np.flatnonzero((lesion == 1) & (lung < 2))[:1],
}
STEPS = [
    (batch, {"micro_batch_size": size, "kept_bytes": kept})
    for batch, size, kept in [
        ("all", 7, 0),
        ("all", "auto", 10**9),
        ("all", 1, 30_000),
        ("images in the second half only", 7, 0),
        ("no lesion at all", 7, 0),
        ("no image at all", 7, 0),
        ("one slice", 7, 0),
    ]
]


def fit(n=40, noisy=False, **params):
    """A model and the patients it was trained on: exact, from images alone, or with dropout in the encoders."""
    X, y = simulate(n)
    names = ("lesion", "clinical") if noisy else ("lesion", "lung")
    X = X[[c for c in X.columns if c.split("_")[0] in names]]
    encoder = SliceEncoder(backbone=NoisyBackbone if noisy else "conv", embedding_dim=8)
    model = MMDLS(image_encoder=encoder, random_state=0).set_params(**{"trainer__max_epochs": 3} | params)
    with nullcontext() if noisy else double_precision():
        return model.fit(X, y), X


def answers(model, X):
    """What a fitted model holds and says."""
    return {
        "weights": model.net_.module_.state_dict(),
        "survival": torch.as_tensor(model.predict_survival_function(X, "os", return_array=True)),
        "history": torch.tensor(model.history_.filter(like="loss").to_numpy(dtype=float)),
        "cutpoints": torch.as_tensor(model.risk_cutpoints_["os"]),
    }


FITS = {
    "one batch": {"trainer__validation_fraction": 0, "trainer__max_epochs": 2},
    "batches": {"trainer__batch_size": 12},
    "early stop": {"trainer__learning_rate": 0.1, "trainer__patience": 1, "trainer__max_epochs": 15},
    "noisy": {"noisy": True, "trainer__batch_size": 20, "trainer__micro_batch_size": 5, "random_state": None},
}


def _work(rank, folder):
    """What one of the processes does: every step, every fit, and fits that must be refused."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=N_RANKS,
        timeout=timedelta(seconds=120),
    )
    found = {"steps": [step(batch, **settings) for batch, settings in STEPS]}
    models = {name: fit(**params) for name, params in FITS.items()}
    found["fits"] = {name: answers(*model) for name, model in models.items()}
    found["refused"] = []
    for params in ({"n": 40 + 10 * rank}, {"trainer__learning_rate": 0.1 + rank}, {"hidden_features": 8 + 8 * rank}):
        try:
            fit(**params)
        except ValueError as error:
            found["refused"].append(str(error))
    if rank == 0:
        found["alone"] = answers(*models["one batch"])
    torch.save(found, folder / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("ranks")
    processes = multiprocessing.spawn(_work, (folder,), nprocs=N_RANKS, join=False)
    end = time.monotonic() + 300
    while not processes.join(timeout=1):
        if time.monotonic() > end:
            for process in processes.processes:
                process.kill()
            pytest.fail("the processes wait for each other")
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(N_RANKS)]


def same(one, other, **tolerance):
    """Whether two trees of dicts hold the same tensors."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key], **tolerance) for key in one)
    if not tolerance:
        return torch.equal(one, other)
    return one.shape == other.shape and torch.allclose(one, other, **tolerance)


@pytest.mark.parametrize("number", range(len(STEPS)), ids=[f"{batch}, {s}" for batch, s in STEPS])
def test_a_step_has_the_gradient_of_one_process(found, number):
    batch, settings = STEPS[number]
    loss, gradients, state = step(batch, **settings)
    encoded = [n for n, g in gradients.items() if "backbone" in n and g is not None and g.abs().max() > 0]
    assert bool(encoded) == (batch != "no image at all")
    for rank in range(N_RANKS):
        ranks_loss, ranks_gradients, ranks_state = found[rank]["steps"][number]
        assert ranks_loss == pytest.approx(loss, rel=1e-12)
        assert torch.equal(ranks_state, state), "the random numbers of the next step are the same too"
        for name, gradient in gradients.items():
            if gradient is None:
                assert ranks_gradients[name] is None, name
            else:
                assert torch.allclose(ranks_gradients[name], gradient, rtol=1e-6, atol=1e-12), name
                assert torch.equal(ranks_gradients[name], found[0]["steps"][number][1][name]), name


@pytest.mark.parametrize("name", FITS)
def test_all_ranks_hold_the_same_model(found, name):
    assert same(found[0]["fits"][name], found[1]["fits"][name])


@pytest.mark.parametrize("name", [name for name, params in FITS.items() if params.get("random_state", 0) == 0])
def test_the_model_is_that_of_one_process(found, name):
    assert same(found[0]["fits"][name], answers(*fit(**FITS[name])), rtol=0, atol=1e-9)


def test_fits_differ_where_they_should(found):
    """The comparisons above compare something."""
    assert len(found[0]["fits"]["early stop"]["history"]) < 15
    weights = found[0]["fits"]["batches"]["weights"]
    start = answers(*fit(**FITS["batches"] | {"trainer__max_epochs": 1, "trainer__learning_rate": 1e-12}))["weights"]
    changed = [name for name in weights if not torch.allclose(weights[name], start[name], atol=1e-4)]
    assert any("backbone" in name for name in changed) and any("heads" in name for name in changed)


def test_a_rank_predicts_without_the_others(found):
    assert same(found[0]["alone"], found[1]["fits"]["one batch"])


def test_different_cohorts_or_parameters_are_refused_on_every_rank(found):
    for rank in range(N_RANKS):
        assert len(found[rank]["refused"]) == 3
        assert all("different patients, outcomes or parameters" in message for message in found[rank]["refused"])


def test_shares_are_even_and_complete():
    for n in (0, 1, 2, 5, 7, 100):
        shares = [Ranks(rank, 3, torch.device("cpu")).own_part(n) for rank in range(3)]
        assert [i for share in shares for i in range(n)[share]] == list(range(n))
        sizes = [share.stop - share.start for share in shares]
        assert max(sizes) - min(sizes) <= 1


def test_each_rank_takes_the_gpu_of_its_number(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setenv("LOCAL_RANK", "2")
    assert own_device(torch.device("cuda")) == torch.device("cuda"), "alone, torch chooses"
    monkeypatch.setattr("mmdls.training._ranks._together", lambda: True)
    assert own_device(torch.device("cuda")) == torch.device("cuda:2")
    assert own_device(torch.device("cuda:1")) == torch.device("cuda:1")
    assert own_device(torch.device("cpu")) == torch.device("cpu")


def test_own_random_numbers_leave_the_common_ones_alone():
    cpu = torch.device("cpu")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        common = torch.rand(4)
        drawn = []
        for rank in range(2):
            ranks = Ranks(rank, 2, cpu)
            torch.manual_seed(0)
            for _ in range(2):
                with ranks.own_random_numbers():
                    drawn.append(torch.rand(4))
            assert torch.equal(torch.rand(4), common)
    assert len({tuple(numbers.tolist()) for numbers in [common, *drawn]}) == 5
