"""The contract every registered part keeps, as checks that plug-in authors can run on their own.

Each check raises ``AssertionError`` with what was broken. ``check_part("backbones", "my_backbone")`` runs the checks of
one registered part, whatever its kind; the library's own tests run it over every registered name.
"""

import io
import pickle
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import joblib
import numpy as np
import pandas as pd
import torch
from optuna.distributions import BaseDistribution
from sklearn.base import BaseEstimator, clone
from torch import nn

from mmdls import registry
from mmdls.datasets import make_nsclc_cohort

__all__ = [
    "all_parts",
    "check_backbone",
    "check_estimator",
    "check_fusion",
    "check_part",
    "check_pooling",
    "check_survival_head",
]


def all_parts() -> Iterator[tuple[str, str]]:
    """Every registered part, as (kind, name)."""
    for kind in _CHECKS:
        for name in getattr(registry, kind):
            yield kind, name


def check_part(kind: str, name: str) -> None:
    """Run the contract checks of one registered part.

    Parameters
    ----------
    kind : str
        A registry's name, for example ``"poolings"``.
    name : str
        The part's name in it.

    Raises
    ------
    AssertionError
        If the contract is broken.
    """
    part = getattr(registry, kind)[name]
    assert (part.__doc__ or "").strip(), f"{part.__name__} has no docstring"
    if hasattr(part, "search_space"):
        space = part.search_space()
        assert space and all(isinstance(d, BaseDistribution) for d in space.values()), (
            f"{part.__name__}.search_space() must map parameters to optuna distributions; got {space}"
        )
    _CHECKS[kind](part)


def check_backbone(backbone: Callable[..., nn.Module]) -> None:
    """Maps fine to coarse with ``out_channels``; an image's features do not depend on the images beside it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for in_channels in (1, 3):
            net = backbone(in_channels=in_channels).eval()
            image = torch.randn(3, in_channels, 48, 40)
            maps = net(image)
            assert [m.shape[1] for m in maps] == list(net.out_channels), "out_channels must tell the maps' channels"
            sizes = [m.shape[2] * m.shape[3] for m in maps]
            assert sizes == sorted(sizes, reverse=True), "feature maps must go from fine to coarse"
            alone = [m for m in net(image[:1])]
            for together, single in zip(maps, alone, strict=True):
                assert torch.allclose(together[:1], single, atol=1e-4), "an image alone must equal itself in a batch"
            net.train()
            trained = [m for m in net(image)]
            for together, single in zip(trained, net(image[:1]), strict=True):
                assert torch.allclose(together[:1], single, atol=1e-4), "no batch statistics in training either"
        _gradients_reach(net, lambda: net(image)[-1].square().sum())


def check_pooling(pooling: Callable[..., nn.Module]) -> None:
    """Padding, order of patients and of slices never change the result; no slices give zeros."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = pooling(16).eval()
        counts = torch.tensor([5, 1, 0, 3])
        mask = torch.arange(5) < counts[:, None]
        slices = torch.randn(4, 5, 16)
        pooled = net(slices, mask)
        assert pooled.shape == (4, 16), f"expected (4, 16), got {tuple(pooled.shape)}"
        assert torch.isfinite(pooled).all(), "the result must be finite"
        assert (pooled[2] == 0).all(), "a patient without slices must get zeros"
        for filler in (1e4, torch.nan, torch.inf):
            dirty = torch.where(mask[..., None], slices, filler)
            assert torch.allclose(net(dirty, mask), pooled, atol=1e-5), f"padding with {filler} changed the result"
        wide = torch.cat([slices, torch.randn(4, 3, 16)], dim=1)
        wide_mask = torch.cat([mask, torch.zeros(4, 3, dtype=torch.bool)], dim=1)
        assert torch.allclose(net(wide, wide_mask), pooled, atol=1e-5), "more padding changed the result"
        assert torch.allclose(net(slices[3:, :3], mask[3:, :3]), pooled[3:], atol=1e-5), "alone differs from in a batch"
        if hasattr(net, "attention"):
            weights = net.attention(slices, mask)
            assert weights.shape == mask.shape and (weights >= 0).all(), "weights must be (B, S) and non-negative"
            assert (weights[~mask] == 0).all(), "padded slices must have no weight"
            total = weights.sum(dim=1)
            assert torch.allclose(total, (counts > 0).float(), atol=1e-5), "weights must sum to 1 over real slices"
        _gradients_reach(net, lambda: net(slices, mask).square().sum())


def check_fusion(fusion: Callable[..., nn.Module]) -> None:
    """An absent modality never changes the result; patients do not see one another."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = fusion({"ct": 12, "pet": 5, "clinical": 1}, out_features=16).eval()
        assert net.out_features == 16, "out_features must be kept"
        embeddings = {"ct": torch.randn(4, 12), "pet": torch.randn(4, 5), "clinical": torch.randn(4, 1)}
        present = torch.tensor([[1, 1, 1], [0, 1, 1], [1, 0, 0], [0, 0, 0]], dtype=torch.bool)
        fused = net(embeddings, present)
        assert fused.shape == (4, 16) and torch.isfinite(fused).all(), "expected a finite (B, out_features)"
        for filler in (1e4, torch.nan):
            dirty = {
                name: torch.where(present[:, [i]], value, filler) for i, (name, value) in enumerate(embeddings.items())
            }
            assert torch.allclose(net(dirty, present), fused, atol=1e-5), "an absent modality changed the result"
        alone = net({name: value[1:2] for name, value in embeddings.items()}, present[1:2])
        assert torch.allclose(alone, fused[1:2], atol=1e-5), "a patient alone must equal itself in a batch"
        changed = net(embeddings | {"pet": embeddings["pet"] + 1}, present)
        assert not torch.allclose(changed[0], fused[0]), "a present modality must count"
        if hasattr(net, "attention"):
            weights = net.attention(embeddings, present)
            assert weights.shape == present.shape and (weights[~present] == 0).all(), "absent modalities weigh nothing"
            assert torch.allclose(weights.sum(dim=1)[:3], torch.ones(3), atol=1e-5), "weights must sum to 1"
        _gradients_reach(net, lambda: net(embeddings, present).square().sum())


def check_survival_head(head: Callable[..., nn.Module]) -> None:
    """Permutation-invariant loss, one sign of risk, survival that starts at 1 and never rises."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        n = 60
        signal = torch.randn(n)
        features = torch.cat([signal[:, None], torch.randn(n, 7)], dim=1)
        time = (torch.distributions.Exponential(torch.exp(signal) / 20).sample() + 0.5).round().clamp(min=1).double()
        event = torch.rand(n) < 0.7
        net = head(8)
        net.prepare(event, time)
        optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
        first = None
        for _ in range(150):
            optimizer.zero_grad()
            loss = net.loss(net(features), event, time)
            loss.backward()
            optimizer.step()
            first = loss.item() if first is None else first
        assert loss.item() < first, "training must lower the loss"
        parameters = net(features).detach()
        order = torch.randperm(n)
        permuted = net.loss(parameters[order], event[order], time[order])
        assert torch.allclose(permuted, net.loss(parameters, event, time), rtol=1e-5), "the order of patients counted"
        silent = net.loss(net(features), torch.zeros(n, dtype=torch.bool), time)
        assert torch.isfinite(silent) and silent.requires_grad, "no event must give a finite, connected loss"
        risk = net.risk(parameters)
        assert risk.shape == (n,), f"risk must have shape ({n},); got {tuple(risk.shape)}"
        assert np.corrcoef(risk, signal)[0, 1] > 0.5, "higher risk must mean earlier event"
        net.fit_baseline(parameters, event, time)
        grid = torch.linspace(0, float(time.max()) + 5, 50, dtype=torch.float64)
        survival = net.survival_function(parameters, grid)
        assert survival.shape == (n, 50), f"survival must be (B, T); got {tuple(survival.shape)}"
        assert torch.allclose(survival[:, 0], torch.ones(n, dtype=survival.dtype)), "S(0) must be 1"
        assert (survival.diff(dim=1) <= 1e-9).all() and (survival >= 0).all(), "survival must never rise"
        assert (net.times.diff() > 0).all(), "times must rise"


def check_estimator(estimator: type[BaseEstimator]) -> None:
    """The scikit-learn contract on a table of patients with images, missing cells and several outcomes.

    The estimator is built with its defaults; conventional parameters (``max_epochs``, ``n_estimators``, ``endpoint``,
    ``random_state`` ...) are set to keep the check quick.
    """
    X, y = make_nsclc_cohort(48, n_slices=(1, 3), image_size=16, missing=0.1, return_X_y=True, random_state=0)
    model = _shrunk(estimator)
    if "image_column" in getattr(estimator, "_contract_input", ()) or _reads_images_only(model):
        X = X[["lesion_image"]]
    target = y["subtype"].astype(str) if hasattr(model, "predict_proba") and not hasattr(model, "transform") else y
    if not hasattr(model, "predict") and hasattr(model, "transform") and not _reads_images_only(model):
        X = X[[c for c in X.columns if c.startswith(("clinical_", "pet_"))]]
    parameters = repr(model.get_params())
    X_before, y_before, state = X.copy(), y.copy(), (torch.get_rng_state(), np.random.get_state()[1].copy())  # noqa: NPY002
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = clone(model).fit(X, target)
        answer = _answers(fitted, X)
        again = _answers(clone(model).fit(X, target), X)
        assert repr(model.get_params()) == parameters, "fit must not change parameters"
        pd.testing.assert_frame_equal(X.drop(columns=_objects(X)), X_before.drop(columns=_objects(X)))
        pd.testing.assert_frame_equal(y, y_before)
        assert torch.equal(torch.get_rng_state(), state[0]), "torch's global random state was moved"
        assert np.array_equal(np.random.get_state()[1], state[1]), "NumPy's global random state was moved"  # noqa: NPY002
        _same(answer, again, 0, "equal seeds must give equal answers")
        order = np.random.default_rng(0).permutation(len(X))
        _same(answer[order], _answers(fitted, X.iloc[order]), 1e-4, "the order of patients changed their answers")
        _same(answer[3:4], _answers(fitted, X.iloc[3:4]), 1e-4, "a patient alone differs from itself in the table")
        buffer = io.BytesIO()
        joblib.dump(fitted, buffer)
        for copy in (pickle.loads(pickle.dumps(fitted)), joblib.load(io.BytesIO(buffer.getvalue()))):
            _same(answer, _answers(copy, X), 1e-6, "a pickled copy answers differently")
        assert not hasattr(clone(fitted), "n_features_in_"), "a clone must be unfitted"
        assert fitted.n_features_in_ == len(fitted.feature_names_in_), "n_features_in_ must count feature_names_in_"
        gone = X.drop(columns=[fitted.feature_names_in_[0]])
        try:
            _answers(fitted, gone)
        except (ValueError, KeyError) as error:
            assert str(fitted.feature_names_in_[0]) in str(error), f"the error must name the lost column: {error}"
        else:
            raise AssertionError("a column that disappeared between fit and predict went unnoticed")


_CHECKS = {
    "backbones": check_backbone,
    "poolings": check_pooling,
    "fusions": check_fusion,
    "survival_heads": check_survival_head,
    "estimators": check_estimator,
}

_SHRUNK = {
    "max_epochs": 3,
    "n_estimators": 5,
    "endpoint": "os",
    "random_state": 0,
    "hidden_features": 16,
    "embedding_dim": 8,
    "batch_size": 32,
}


def _shrunk(estimator: type[BaseEstimator]) -> BaseEstimator:
    model = estimator()
    known = model.get_params(deep=False)
    return model.set_params(**{name: value for name, value in _SHRUNK.items() if name in known})


def _reads_images_only(model: BaseEstimator) -> bool:
    return hasattr(model, "open_slices")


def _objects(X: pd.DataFrame) -> list[str]:
    return [c for c in X.columns if str(c).endswith(("_image", "_mask"))]


def _answers(model: BaseEstimator, X: pd.DataFrame) -> np.ndarray:
    """Everything the model says about X as numbers, one row a patient."""
    parts = []
    if hasattr(model, "transform"):
        parts.append(np.asarray(model.transform(X), dtype=float))
    if hasattr(model, "predict"):
        predicted = model.predict(X)
        frame = predicted if isinstance(predicted, pd.DataFrame) else pd.DataFrame({"answer": predicted})
        parts += [pd.factorize(frame[c])[0] if frame[c].dtype.kind not in "fiub" else frame[c] for c in ()]
        numeric = frame.select_dtypes("number")
        parts.append(numeric.to_numpy(dtype=float))
    if hasattr(model, "classes_") and not isinstance(model.classes_, dict):
        parts.append(model.predict_proba(X))
    return np.column_stack([np.asarray(p).reshape(len(X), -1) for p in parts])


def _same(one: np.ndarray, other: np.ndarray, tolerance: float, what: str) -> None:
    close = np.allclose(one, other, rtol=tolerance, atol=tolerance, equal_nan=True)
    assert close, f"{what} (largest difference {np.nanmax(np.abs(one - other)):.2e})"


def _gradients_reach(net: nn.Module, loss: Callable[[], Any]) -> None:
    parameters = [p for p in net.parameters() if p.requires_grad]
    if not parameters:
        return
    net.zero_grad()
    loss().backward()
    for parameter in parameters:
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), "a parameter gets no gradient"
