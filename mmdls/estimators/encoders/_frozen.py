"""Images seen by a model that does not train, such as a foundation model: its features are computed once."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from copy import copy
from functools import partial
from inspect import getclosurevars
from os import PathLike
from pathlib import Path
from threading import get_ident
from types import FunctionType, MethodType, ModuleType
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import joblib
import numpy as np
import pandas as pd
import torch
from sklearn.utils._param_validation import HasMethods
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from mmdls._files import whole_file
from mmdls._parameters import count
from mmdls.encoders import BagData
from mmdls.estimators.encoders._vectors import VectorBagEncoder
from mmdls.images import fingerprint
from mmdls.images._files import of_patient
from mmdls.parts import Slot
from mmdls.registry import encoders
from mmdls.training._trainer import Trainer

__all__ = ["FrozenFeatures"]

# What each model has computed: {model: {key of weights, images and settings: features (K, D)}}, while it exists.
_COMPUTED: WeakKeyDictionary[Any, dict[str, np.ndarray]] = WeakKeyDictionary()


class FrozenFeatures(VectorBagEncoder):
    """Images as seen by a model that does not train: any network or function from images to vectors.

    The vectors of a patient's images are standardised, projected and pooled as in :class:`VectorBagEncoder`, and only
    that is trained. The model sees each patient once: vectors are known by the contents of the patient's image and
    mask, how they are read, and the weights of the model, so that all folds and trials share them, in this process or,
    with ``memory``, wherever the same folder is used. Copies by ``clone`` share the model.

    Parameters
    ----------
    model : nn.Module or callable
        From a Tensor of images (k, C, H, W), or volumes (k, C, S, H, W), float32 from 0 to 1, to k vectors: a Tensor or
        array of shape (k, D), maps (k, D, ...), of which the mean is taken, or a list of maps, of which the last one
        counts. What is seen of one image must not depend on the others. What else it needs, such as its own scaling of
        intensities, belongs into a module or function around it. A module, or a method of one, gets images on the
        device where its weights are. Networks run in evaluation mode, also those that a function calls; vectors are
        known by the weights of all networks that are found in its variables, in a ``functools.partial`` or in its
        object. Whatever else a function reads must stay as it is.
    images : str or estimator, default="slices"
        The encoder that says how images are read: ``SliceEncoder(image_size=224)``. Its backbone is not used.
    n_channels : int, default=1
        Channels into which each grey image is repeated, such as 3 for a model of colour images.
    model_name : str, default=None
        Name and version of the model, for ``model_origin_``. With ``memory`` a model that is no ``nn.Module`` needs
        one, by which its vectors are found again; so does a function that calls a network which is not found in it.
    micro_batch_size : int, default=16
        Images that the model sees at a time.
    memory : str or joblib.Memory, default=None
        A folder that keeps vectors between processes; None keeps them while the model exists.
    pooling, embedding_dim, standardize, trainer, random_state
        As in :class:`VectorBagEncoder`.

    Attributes
    ----------
    model_origin_ : dict
        ``name`` of the model, and ``digest`` of class, layout and weights of its networks; None without any.
    n_vector_features_, mean_, std_, network_, history_, n_features_in_, feature_names_in_
        As in :class:`VectorBagEncoder`.

    Examples
    --------
    >>> from mmdls.datasets import make_nsclc_cohort
    >>> X, y = make_nsclc_cohort(30, n_slices=2, image_size=16, return_X_y=True, random_state=0)
    >>> encoder = FrozenFeatures(
    ...     lambda images: images.flatten(1), embedding_dim=8, trainer=Trainer(max_epochs=2), random_state=0
    ... )
    >>> encoder.fit(X[["lesion_image"]], y).transform(X[["lesion_image"]]).shape
    (30, 8)
    """

    reads = "images"

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **VectorBagEncoder._parameter_constraints,
        "model": [callable],
        "images": [str, HasMethods(["prepare"])],
        "n_channels": [count(1)],
        "model_name": [str, None],
        "micro_batch_size": [count(1)],
        "memory": [str, PathLike, HasMethods(["cache"]), None],
    }

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        images: Any = "slices",
        n_channels: int = 1,
        model_name: str | None = None,
        micro_batch_size: int = 16,
        memory: Any = None,
        pooling: Any = "gated_attention",
        embedding_dim: int = 64,
        standardize: bool = True,
        trainer: Trainer | None = None,
        random_state: Any = None,
    ):
        super().__init__(
            pooling=pooling,
            embedding_dim=embedding_dim,
            standardize=standardize,
            trainer=trainer,
            random_state=random_state,
        )
        self.model = model
        self.images = images
        self.n_channels = n_channels
        self.model_name = model_name
        self.micro_batch_size = micro_batch_size
        self.memory = memory

    def __sklearn_clone__(self) -> "FrozenFeatures":
        bare = copy(self)
        bare.model = None  # type: ignore[assignment]  # else it would be copied, and what it has computed be lost
        cloned: FrozenFeatures = super(FrozenFeatures, bare).__sklearn_clone__()
        cloned.model = self.model
        return cloned

    def _slots(self) -> dict[str, Slot]:
        return super()._slots() | {"images": Slot(encoders, used=False)}

    def fit_preprocessing(self, X: pd.DataFrame, y: Any = None, sample_weight: np.ndarray | None = None) -> None:
        """Compute the vectors of the training patients, and learn their mean and standard deviation."""
        super().fit_preprocessing(X, y, sample_weight)
        name = self.model_name or _qualified_name(self.model)
        self.model_origin_ = {"name": name, "digest": _digest(self.model)}

    def _column(self, X: pd.DataFrame) -> pd.Series:
        """The vectors of all patients, computed where they are not known yet; None where there is no image."""
        model, root = self.model, getattr(self.memory, "location", self.memory)
        digest = _digest(model)
        if _network_of(model) is None and root is not None and self.model_name is None:
            raise ValueError(
                f"memory={self.memory!r} keeps features for later, and a function has no layout to be known by; "
                "give model_name='<name and version>', or memory=None."
            )
        reader = Slot(encoders).resolve(self.images)
        name = self.model_name or _qualified_name(model)
        settings = joblib.hash((digest, name, self.n_channels, reader.get_params(deep=True)))
        known = _COMPUTED.setdefault(getattr(model, "__self__", model), {})
        keys = []
        for patient, *cells in X.itertuples(name=None):
            marks = " ".join(fingerprint(cell, patient) for cell in cells)
            keys.append(hashlib.blake2b(f"{settings} {marks}".encode(), digest_size=16).hexdigest())
        folder = None if root is None else Path(root) / "mmdls-features" / settings
        for key in keys:
            if folder is not None and key not in known and (folder / f"{key}.npy").is_file():
                known[key] = np.load(folder / f"{key}.npy", allow_pickle=False)
        lacking = [row for row, key in enumerate(keys) if key not in known and keys.index(key) == row]
        for start in range(0, len(lacking), 64):  # the pixels of all patients at once might exceed the memory
            rows = lacking[start : start + 64]
            data = reader.prepare(X.iloc[rows])
            for row, vectors in zip(rows, self._vectors(data, X.index[rows]), strict=True):
                known[keys[row]] = vectors
                if folder is not None and len(vectors):
                    _write(folder / f"{keys[row]}.npy", vectors)
        bags = [known[key] if len(known[key]) else None for key in keys]
        return pd.Series(bags, index=X.index, name=X.columns[0], dtype=object)

    def _vectors(self, data: BagData, patients: pd.Index) -> list[np.ndarray]:
        """The vectors of each patient, (K, D); (0, 0) for a patient without images."""
        found = []
        for row, patient in enumerate(patients):
            index, _ = data.index_of(np.array([row]))
            parts = [
                self._features(data.read(index[start : start + self.micro_batch_size]), patient)
                for start in range(0, len(index), self.micro_batch_size)
            ]
            found.append(np.concatenate(parts) if parts else np.empty((0, 0), dtype=np.float32))
        return found

    def _features(self, images: Tensor, patient: Any) -> np.ndarray:
        """Vectors (k, D) of images (k, C, ...), by a model that is afterwards as it was."""
        if self.n_channels > 1 and images.shape[1] == 1:
            images = images.expand(-1, self.n_channels, *images.shape[2:])
        network = _network_of(self.model)
        first = images if network is None else next(network.parameters(), images)
        with _evaluating(self.model, named=self.model_name is not None), torch.inference_mode():
            answer = self.model(images.to(first.device))
        last = answer[-1] if isinstance(answer, list | tuple) and len(answer) else answer
        found = torch.as_tensor(last) if isinstance(last, Tensor | np.ndarray) else None
        if found is None or found.ndim < 2 or found.ndim == 3 or len(found) != len(images):
            got = type(last).__name__ if found is None else f"shape {tuple(found.shape)}"
            raise ValueError(
                f"model must give one vector an image, ({len(images)}, D), or maps ({len(images)}, D, ...), for images "
                f"of shape {tuple(images.shape)}{of_patient(patient)}; got {got}. Put a function around it that "
                "chooses, such as lambda images: model(images)['features'], or model(images)[:, 0] of tokens."
            )
        found = found.detach().cpu().float()
        found = found.flatten(2).mean(dim=2) if found.ndim > 2 else found
        if bad := int((~found.isfinite()).any(dim=1).sum()):
            raise ValueError(
                f"model gives NaN or infinite numbers for {bad} of {len(found)} images{of_patient(patient)}, of values "
                f"from {images.min():.3g} to {images.max():.3g}. Look at this image and at the weights of the model."
            )
        return found.numpy()


@contextmanager
def _evaluating(model: Any, named: bool) -> Iterator[None]:
    """Networks of a model, and those that a function calls, in evaluation mode; afterwards each module is as it was.

    A function without a name may only call networks that are found in it: nobody would notice that the weights of
    another one have changed.
    """
    known = {module for network in _networks_in(model) for module in network.modules()}
    training = [module for module in known if module.training]
    thread = get_ident()

    def stop_training(module: nn.Module, arguments: Any) -> None:
        if get_ident() != thread:  # another thread may train a network of its own
            return
        if not named and module not in known:
            raise ValueError(
                f"model calls the network {type(module).__name__}, which is in none of its variables, so that features "
                "of other weights would be taken for those of these. Make the network once, outside of the function; "
                "or, if its weights never change, give model_name='<name and version>'."
            )
        training.extend(inner for inner in module.modules() if inner.training)
        module.eval()

    for module in known:
        module.training = False
    hook = register_module_forward_pre_hook(stop_training) if _network_of(model) is None else nullcontext()
    try:
        with hook:
            yield
    finally:
        for module in training:
            module.training = True


def _network_of(model: Any) -> nn.Module | None:
    """A module, or the module of which a model is a method."""
    owner = getattr(model, "__self__", model)
    return owner if isinstance(owner, nn.Module) else None


def _networks_in(model: Any) -> list[nn.Module]:
    """The networks that a model is, or that are found in the variables of a function, a partial or an object."""
    networks, seen, waiting = list[nn.Module](), dict[int, Any](), [model]
    while waiting:
        each = waiting.pop()
        if id(each) in seen or isinstance(each, type | ModuleType | Tensor | np.ndarray):
            continue
        seen[id(each)] = each
        if isinstance(each, nn.Module):
            networks.append(each)
        elif isinstance(each, Mapping):
            waiting += each.values()
        elif isinstance(each, list | tuple):
            waiting += each
        elif isinstance(each, partial):
            waiting += [each.func, each.args, each.keywords]
        elif isinstance(each, MethodType):
            waiting += [each.__self__, each.__func__]
        elif isinstance(each, FunctionType):
            read = getclosurevars(each)
            waiting += [read.nonlocals, read.globals, each.__defaults__, each.__kwdefaults__]
        else:
            waiting.append(getattr(each, "__dict__", None))
    return networks


def _digest(model: Any) -> str | None:
    """A hash of the class, layout and weights of the networks of a model; None without any."""
    networks = _networks_in(model)
    if not networks:
        return None
    digest = hashlib.blake2b(_qualified_name(model).encode(), digest_size=16)
    for network in networks:
        digest.update(f" {network!r}".encode())
        for name, tensor in network.state_dict().items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _qualified_name(model: Any) -> str:
    named = model if hasattr(model, "__qualname__") else type(model)
    return f"{named.__module__}:{named.__qualname__}"


def _write(path: Path, vectors: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial, partial.open("wb") as file:
        np.save(file, vectors)
