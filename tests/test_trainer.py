"""How networks are trained: one Trainer for every estimator, with callbacks of skorch."""

import pickle

import pytest
from sklearn.base import clone
from skorch.callbacks import Callback

from mmdls import MMDLS, MultimodalClassifier, MultimodalSurvival, SliceEncoder, Trainer
from mmdls.datasets import make_nsclc_cohort


class Counting(Callback):
    """Counts what it is told, and copies the losses of every epoch."""

    def __init__(self):
        self.begun, self.ended, self.batches, self.rows = 0, 0, 0, []

    def on_train_begin(self, net, **kwargs):
        self.begun += 1

    def on_batch_end(self, net, training=False, **kwargs):
        self.batches += training

    def on_epoch_end(self, net, **kwargs):
        row = net.history[-1]
        self.rows.append((row["epoch"], row["train_loss"], row["valid_loss"], row["train_os_loss"]))

    def on_train_end(self, net, **kwargs):
        self.ended += 1


@pytest.fixture(scope="module")
def cohort():
    X, y = make_nsclc_cohort(48, n_slices=1, image_size=16, return_X_y=True, random_state=0)
    return X[["clinical_age", "clinical_diameter", "lesion_image"]], y[["os_time", "os_event"]]


@pytest.mark.parametrize("named", [False, True])
def test_callbacks_hear_of_every_epoch_as_in_skorch(cohort, named):
    X, y = cohort
    counting = Counting()
    trainer = Trainer(max_epochs=4, batch_size=20, callbacks=[("counting", counting) if named else counting])
    model = MMDLS(trainer=trainer, random_state=0).fit(X[["clinical_age"]], y)
    assert (counting.begun, counting.ended, counting.batches) == (1, 1, 4 * 3)
    assert [row[0] for row in counting.rows] == [1, 2, 3, 4]
    assert [list(row[1:]) for row in counting.rows] == model.history_[
        ["train_loss", "valid_loss", "train_os_loss"]
    ].to_numpy().tolist()
    assert model.net_.history[:, "epoch"] == [1, 2, 3, 4]


def test_callbacks_hear_of_the_epoch_that_ends_the_training(cohort):
    X, y = cohort
    counting = Counting()
    trainer = Trainer(learning_rate=0.3, schedule=None, patience=1, max_epochs=40, callbacks=[counting])
    model = MMDLS(trainer=trainer, random_state=0).fit(X[["clinical_age"]], y)
    assert len(model.history_) < 40 and len(counting.rows) == len(model.history_)


def test_callbacks_change_nothing(cohort):
    X, y = cohort
    plain = MMDLS(trainer=Trainer(max_epochs=2), random_state=0).fit(X[["clinical_age"]], y)
    heard = clone(plain).set_params(trainer__callbacks=[Counting()]).fit(X[["clinical_age"]], y)
    assert plain.predict(X[["clinical_age"]]).equals(heard.predict(X[["clinical_age"]]))


def test_copies_share_callbacks_that_cannot_be_copied(cohort):
    X, y = cohort

    class Writer(Counting):
        def __deepcopy__(self, memo):
            raise TypeError("an open file cannot be copied")

    writer = Writer()
    model = clone(MMDLS(trainer=Trainer(max_epochs=1, callbacks=[writer]), random_state=0))
    model.fit(X[["clinical_age"]], y)
    assert model.trainer.callbacks[0] is writer and len(writer.rows) == 1


@pytest.mark.parametrize("kind", [MMDLS, MultimodalClassifier, MultimodalSurvival, SliceEncoder])
def test_every_estimator_has_a_trainer_and_leaves_it_as_it_is(cohort, kind):
    X, y = cohort
    trainer = Trainer(max_epochs=2)
    X = X[["lesion_image"]].dropna() if kind is SliceEncoder else X[["clinical_age"]]
    y = y.loc[X.index]
    model = kind(trainer=trainer, random_state=0)
    model.fit(X, y["os_event"].astype(str).rename("died") if kind is MultimodalClassifier else y)
    assert len(model.history_) == 2
    assert model.trainer is trainer and vars(trainer) == vars(Trainer(max_epochs=2))
    assert pickle.loads(pickle.dumps(model)).trainer.max_epochs == 2


def test_none_is_the_default_trainer_and_parameters_make_one():
    assert MMDLS().trainer is None and MMDLS().get_params()["trainer__max_epochs"] == Trainer().max_epochs
    model = MMDLS().set_params(trainer__max_epochs=3)
    assert repr(model.trainer) == "Trainer(max_epochs=3)"


def test_only_the_trainer_of_the_whole_model_counts(cohort):
    X, y = cohort
    encoder = SliceEncoder(embedding_dim=4, trainer=Trainer(max_epochs=9))
    model = MMDLS(image_encoder=encoder, trainer=Trainer(max_epochs=1), random_state=0).fit(X[["lesion_image"]], y)
    assert len(model.history_) == 1
