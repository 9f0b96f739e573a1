"""The contract of an encoder as a part of a model."""

import warnings
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.base import clone

from mmdls.datasets import make_nsclc_cohort
from mmdls.encoders import BagData, Encoder
from mmdls.estimators import MMDLS
from mmdls.modules import BagNet
from mmdls.testing._assertions import close, gradients_reach, no_batch_statistics, seeded, without_dropout
from mmdls.testing._studies import readable, shrunk

__all__ = ["check_encoder"]


def check_encoder(encoder: type, X: pd.DataFrame | None = None) -> None:
    """Data by rows, a network whose answers do not depend on the batch, and a model that trains with it.

    Parameters
    ----------
    encoder : class
        Built with its defaults.
    X : pandas.DataFrame of shape (48, n_columns), default=None
        What it reads, missing for some patients and there for most. None takes images, a table or vectors of a
        simulated cohort, and short texts for an encoder that reads columns of its own.

    Raises
    ------
    AssertionError
        If the contract is broken.

    Examples
    --------
    >>> from mmdls import VectorBagEncoder
    >>> check_encoder(VectorBagEncoder)
    """
    assert issubclass(encoder, Encoder), f"{encoder.__name__} must derive from mmdls.encoders.Encoder"
    cohort, y = make_nsclc_cohort(48, n_slices=(1, 3), image_size=16, missing=0.2, return_X_y=True, random_state=0)
    y = y[["subtype"]]
    part: Any = shrunk(encoder)
    takes_texts = X is None and encoder.reads not in ("images", "table", "vectors")
    if X is None:
        X = _texts(encoder.reads) if takes_texts else readable(cohort, part)
        X = X[[column for column in X.columns if column.split("_")[0] == X.columns[0].split("_")[0]]]
    X = X.set_axis(y.index)
    with warnings.catch_warnings(), seeded():
        warnings.simplefilter("ignore")
        try:
            part.fit_preprocessing(X, y, None)
            part.prepare(X)
        except Exception as error:
            if not takes_texts:
                raise
            raise AssertionError(
                f"texts such as {X.iloc[1, 0]!r} raise {type(error).__name__}: {error}. If {encoder.__name__} reads "
                f"something else, call mmdls.testing.check_encoder({encoder.__name__}, X=...) with a table of 48 rows."
            ) from error
        _check_network(part, X)
        _check_model(encoder, X, y)


def _texts(reads: str) -> pd.DataFrame:
    words = np.random.default_rng(0).choice(["mass", "nodule", "lobe", "upper", "left", "effusion"], (48, 8))
    texts = pd.Series([" ".join(row) for row in words], dtype=object)
    return texts.where(texts.index % 5 != 0, None).to_frame(f"own_{reads}")


def _check_network(encoder: Any, X: pd.DataFrame) -> None:
    """Rows, batches and gradients of one network."""
    data = encoder.prepare(X)
    n = len(X)
    assert len(data) == n, f"prepare gave data of {len(data)} patients for {n}"
    assert data.present.dtype == bool and data.present.shape == (n,), "present must be boolean, one value a patient"
    assert data.present.any(), "nobody has the modality; give an X that the encoder reads"
    network = encoder.build(data)
    assert not isinstance(network, BagNet) or isinstance(data, BagData), "a BagNet reads BagData"
    no_batch_statistics(network)
    without_dropout(network.eval())
    rows = np.flatnonzero(data.present)
    batch = data.take(rows)
    assert isinstance(batch, tuple), f"take must give a tuple of tensors; got {type(batch).__name__}"
    together = network(*batch)
    assert together.shape == (len(rows), network.out_features), (
        f"the network must give (B, out_features); got {tuple(together.shape)}"
    )
    assert torch.isfinite(together).all(), "an embedding must be finite"
    close(network(*data.take(rows[::-1].copy())), together.flip(0), "the order of patients changed the result", 1e-4)
    close(network(*data.take(rows[:1])), together[:1], "a patient alone must equal itself in a batch", 1e-4)
    assert not torch.allclose(together[:1], together), "all patients have the same embedding"
    assert torch.isfinite(network(*data.take(np.arange(n)))).all(), "the row of a patient without it must be finite"
    again = encoder.prepare(X.iloc[rows])
    assert again.present.all(), "a patient who has the modality must have it in another table too"
    close(network(*again.take(np.arange(len(rows)))), together, "the same patients in another table differ", 1e-4)
    gradients_reach(network.train(), lambda: network(*batch).square().sum())


def _check_model(encoder: type, X: pd.DataFrame, y: pd.DataFrame) -> None:
    """A model that is trained with it, beside another modality."""
    age = pd.Series(np.linspace(40, 80, len(X)), index=X.index)
    table = X.assign(other_age=age)
    modalities = [("own", shrunk(encoder), list(X.columns)), ("other", "table", ["other_age"])]
    model = clone(shrunk(MMDLS)).set_params(modalities=modalities)
    answer = model.fit(table, y).predict_proba(table, "subtype")
    assert np.isfinite(answer).all() and np.allclose(answer.sum(axis=1), 1), "probabilities must be finite, with sum 1"
    same = clone(model).fit(table, y).predict_proba(table, "subtype")
    assert np.array_equal(answer, same), "equal seeds must give equal answers"
    alone = model.predict_proba(table.iloc[[3]], "subtype")
    assert np.allclose(alone, answer[[3]], atol=1e-5), "a patient alone differs from itself in the table"
