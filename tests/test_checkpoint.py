"""What runs for hours survives faults: a killed training goes on, too large micro-batches are halved."""

import multiprocessing
import os
import signal

import numpy as np
import pandas as pd
import pytest
import torch
from skorch.callbacks import Callback, EarlyStopping

from mmdls import MMDLS, SliceEncoder, Trainer, cross_predict
from mmdls.datasets import make_nsclc_cohort
from mmdls.modules.heads import CoxHead
from mmdls.training._compute import Compute

COLUMNS, OUTCOMES = ["clinical_age", "lesion_image"], ["os_time", "os_event", "subtype"]


class Epochs(Callback):
    """Counts epochs, and ends the process or the training at the beginning of one."""

    def __init__(self, end=None, kill=False):
        self.end, self.kill, self.begun = end, kill, []

    def on_epoch_begin(self, net, **kwargs):
        done = len(net.history) - 1
        if done == self.end:
            if self.kill:
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError("the power went out")
        self.begun.append(done)


@pytest.fixture(scope="module")
def cohort():
    X, y = make_nsclc_cohort(40, n_slices=1, image_size=16, missing=0.1, return_X_y=True, random_state=0)
    return X[COLUMNS], y[OUTCOMES]


def _model(folder, *callbacks, **settings):
    names = MMDLS().get_params(deep=False)
    own = {name: settings.pop(name) for name in list(settings) if name in names}
    trainer = Trainer(**{"max_epochs": 6, "batch_size": 20} | settings, callbacks=callbacks, checkpoint=folder)
    return MMDLS(**{"random_state": 0} | own, trainer=trainer)


def _same(one, other, X):
    pd.testing.assert_frame_equal(one.predict(X), other.predict(X), check_exact=True)
    pd.testing.assert_frame_equal(
        *(model.history_.drop(columns="dur") for model in (one, other)), check_exact=True, check_dtype=False
    )
    curves = [model.predict_survival_function(X, "os", return_array=True) for model in (one, other)]
    np.testing.assert_array_equal(*curves)


def _fit_and_die(folder, X, y):
    torch.set_num_threads(1)  # as in the tests
    _model(folder, Epochs(end=4, kill=True)).fit(X, y)


def test_a_killed_fit_goes_on_to_the_same_model(cohort, tmp_path):
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_fit_and_die, args=(tmp_path / "states", *cohort))
    process.start()
    process.join(timeout=120)
    assert process.exitcode == -signal.SIGKILL
    (state,) = (tmp_path / "states").iterdir()
    assert state.suffix == ".pt"
    epochs = Epochs()
    resumed = _model(tmp_path / "states", epochs).fit(*cohort)
    assert epochs.begun == [4, 5]
    assert not list((tmp_path / "states").iterdir())
    _same(resumed, _model(None).fit(*cohort), cohort[0])


@pytest.mark.parametrize(
    "settings",
    [
        {"task_weights": "famo", "schedule": None},
        {"task_weights": "uncertainty", "optimizer": "adam", "gradient_clip": None},
        {"patience": 3, "learning_rate": 0.1, "max_epochs": 12},
        {"validation_fraction": 0.0, "image_encoder": SliceEncoder(trainable=False)},
        {"n_members": 2, "heads": {"os": "logistic_hazard"}, "image_encoder": SliceEncoder(augmentation="standard")},
    ],
    ids=lambda settings: "-".join(settings),
)
def test_a_resumed_fit_gives_the_same_model_under_every_setting(cohort, tmp_path, settings):
    X, y = cohort
    settings = {"n_members": 1} | settings
    with pytest.raises(OSError, match="the power went out"):
        _model(tmp_path, Epochs(end=3), **settings).fit(X, y)
    _same(_model(tmp_path, **settings).fit(X, y), _model(None, **settings).fit(X, y), X)
    assert not list(tmp_path.iterdir())


def test_another_training_starts_anew(cohort, tmp_path):
    X, y = cohort
    with pytest.raises(OSError):
        _model(tmp_path, Epochs(end=3), n_members=1).fit(X, y)
    brighter = X.assign(
        lesion_image=[None if cell is None else np.clip(cell + 1, 0, 255) for cell in X["lesion_image"]]
    )
    older = X.assign(clinical_age=X["clinical_age"] + np.arange(len(X)) % 2)
    later = y.assign(os_time=y["os_time"] + np.arange(len(y)) % 2)
    for data, target, settings in (
        (brighter, y, {}),
        (older, y, {}),
        (X, later, {}),
        (X.iloc[::-1], y.iloc[::-1], {}),
        (X, y, {"random_state": 1}),
        (X, y, {"learning_rate": 1e-3}),
        (X, y, {"max_epochs": 7}),
        (X, y, {"dropout": 0.0}),
        (X, y, {"task_weights": {"os": 2.0}}),
    ):
        epochs = Epochs(end=1)
        with pytest.raises(OSError):
            _model(tmp_path, epochs, n_members=1, **settings).fit(data, target)
        assert epochs.begun == [0], settings


def test_a_damaged_state_is_said_and_not_used(cohort, tmp_path):
    X, y = cohort
    with pytest.raises(OSError):
        _model(tmp_path, Epochs(end=2), n_members=1).fit(X, y)
    (state,) = tmp_path.iterdir()
    content = bytearray(state.read_bytes())
    content[len(content) // 2] ^= 1
    state.write_bytes(content)
    epochs = Epochs()
    with pytest.warns(UserWarning, match=r"the checkpoint '.*\.pt' is damaged; training starts anew"):
        _model(tmp_path, epochs, n_members=1).fit(X, y)
    assert epochs.begun == list(range(6))


def test_ctrl_c_keeps_the_state_and_every_fold_has_its_own(cohort, tmp_path):
    X, y = cohort

    class Stop(Epochs):
        def on_epoch_begin(self, net, **kwargs):
            super().on_epoch_begin(net)
            if len(self.begun) == 9:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cross_predict(_model(tmp_path, Stop(), n_members=1), X, y, cv=3)
    assert len(list(tmp_path.iterdir())) == 1
    epochs = Epochs()
    resumed = cross_predict(_model(tmp_path, epochs, n_members=1), X, y, cv=3)
    assert epochs.begun == [*range(6), *range(2, 6), *range(6)]
    whole = cross_predict(_model(None, n_members=1), X, y, cv=3)
    pd.testing.assert_frame_equal(resumed.predictions["os"], whole.predictions["os"], check_exact=True)


def test_callbacks_go_on_too(cohort, tmp_path):
    X, y = cohort
    settings = {"n_members": 1, "max_epochs": 30, "learning_rate": 0.1, "patience": None}
    whole = _model(None, EarlyStopping(patience=4), **settings).fit(X, y)
    end = len(whole.history_) - 2
    with pytest.raises(OSError):
        _model(tmp_path, EarlyStopping(patience=4), Epochs(end=end), **settings).fit(X, y)
    _same(_model(tmp_path, EarlyStopping(patience=4), Epochs(), **settings).fit(X, y), whole, X)


def _limited(monkeypatch, n_items, error):
    """Memory for so many items at a time; returns the sizes that were encoded."""
    sizes, features = [], Compute.features

    def limited(self, encoder, data, index):
        sizes.append(len(index))
        if len(index) > n_items:
            raise error
        return features(self, encoder, data, index)

    monkeypatch.setattr(Compute, "features", limited)
    return sizes


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"
        ),
        MemoryError("Unable to allocate 9 GiB for an array"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("encoder", [SliceEncoder(), SliceEncoder(trainable=False)], ids=["trained", "frozen"])
def test_a_too_large_micro_batch_is_halved_and_said(cohort, monkeypatch, error, encoder):
    X, y = cohort
    settings = {"n_members": 2, "max_epochs": 2, "dropout": 0.0, "image_encoder": encoder}
    expected = _model(None, **settings, micro_batch_size=2).fit(X, y).predict(X)
    sizes = _limited(monkeypatch, 6, error)
    with pytest.warns(UserWarning, match="out of memory: .*Micro-batches of items are halved.* halved 2 times"):
        model = _model(None, **settings, micro_batch_size=16).fit(X, y)
    assert 4 in sizes and max(sizes) > 6
    with pytest.warns(UserWarning, match="out of memory"):
        pd.testing.assert_frame_equal(model.predict(X), expected, rtol=1e-4)


def test_memory_that_does_not_suffice_for_one_item_and_other_errors_are_raised(cohort, monkeypatch):
    X, y = cohort
    _limited(monkeypatch, 0, torch.OutOfMemoryError("CUDA out of memory."))
    with pytest.warns(UserWarning), pytest.raises(torch.OutOfMemoryError):
        _model(None, n_members=1, micro_batch_size=4).fit(X, y)
    _limited(monkeypatch, 0, RuntimeError("a wrong shape"))
    with pytest.raises(RuntimeError, match="a wrong shape"):
        _model(None, n_members=1).fit(X, y)


def _poisoned(loss):
    """The same value with a gradient that is no number."""
    return loss + (loss * 0).sqrt()


@pytest.mark.parametrize("clip", [5.0, None])
def test_a_gradient_that_is_no_number_ends_the_training_and_names_epoch_and_term(cohort, monkeypatch, clip):
    X, y = cohort
    loss, epochs = CoxHead.loss, Epochs()

    def poisoned(self, *args):
        return _poisoned(loss(self, *args)) if len(epochs.begun) == 2 else loss(self, *args)

    monkeypatch.setattr(CoxHead, "loss", poisoned)
    with pytest.raises(FloatingPointError, match=r"diverged in epoch 2: the gradient of \['os_loss.*, in .*") as found:
        _model(None, epochs, n_members=2, gradient_clip=clip).fit(X, y)
    assert "subtype" not in str(found.value).partition(", in ")[0] and "Lower learning_rate" in str(found.value)
