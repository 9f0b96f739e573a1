"""What an encoder offers to the multimodal models: data of all patients, and a network that embeds them.

An encoder turns the columns of one modality into an embedding of each patient. It is a scikit-learn estimator that
also derives from :class:`Encoder`. The models know no encoder by name: they call its methods in this order.

1. ``fit_preprocessing(X, y, sample_weight)``, in ``fit`` only: what is learned without a network, such as a scale.
2. ``prepare(X)``: the data of all patients of a table, and who has any.
3. ``build(data)``, in ``fit`` only: a network for data like these.

The network is trained end to end with everything else. It maps ``data.take(rows)`` to one embedding a patient.

An encoder whose patients bring many items each (slices, vectors, tiles) may use :class:`BagData` with a
:class:`~mmdls.modules.BagNet`: its items are then encoded in micro-batches, with the exact gradient of the whole batch
in the memory of one micro-batch.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = ["BagData", "Encoder", "ModalityData", "TableData"]


class ModalityData:
    """The data of one modality for all patients of a table: who has it, and what the network reads of some rows.

    Parameters
    ----------
    present : ndarray of bool, shape (n_patients,)
        Who has the modality.

    Attributes
    ----------
    linear : Tensor of shape (n_patients, P) or None
        Columns from which a linear part of the model predicts every task directly, beside the network.

    Examples
    --------
    Texts of different lengths, as the numbers of their letters:

    >>> class Letters(ModalityData):
    ...     def __init__(self, texts):
    ...         super().__init__([text is not None for text in texts])
    ...         self.texts = [text or "" for text in texts]
    ...
    ...     def take(self, rows):
    ...         import torch
    ...         return (torch.tensor([[float(len(self.texts[row]))] for row in rows]),)
    >>> data = Letters(["nodule", None])
    >>> len(data), data.present.tolist(), data.take(np.array([0]))[0].tolist()
    (2, [True, False], [[6.0]])
    """

    linear: "Tensor | None" = None

    def __init__(self, present: np.ndarray):
        self.present = np.array(present, dtype=bool)

    def __len__(self) -> int:
        return len(self.present)

    def take(self, rows: np.ndarray) -> "tuple[Tensor, ...]":
        """The arguments of the network for some patients, on the CPU.

        Parameters
        ----------
        rows : ndarray of int, shape (B,)
            A patient without the modality may stand among them; its embedding is not used, but must be finite.

        Returns
        -------
        tuple of Tensor
            Floating-point tensors are float32.
        """
        raise NotImplementedError(f"{type(self).__name__} must define take(rows).")

    def facts(self) -> tuple[Any, ...]:
        """Arrays and values that differ if the data do; processes that train together compare them."""
        return (self.present,)


class TableData(ModalityData):
    """A table of numbers, one row a patient.

    Parameters
    ----------
    table : ndarray of shape (n_patients, P)
        Finite in the rows of ``present``; the other rows become zeros.
    present : ndarray of bool, shape (n_patients,)
    linear : bool, default=False
        Whether a linear part of the model reads the columns too.

    Examples
    --------
    >>> data = TableData(np.array([[1.0, 2.0], [np.nan, np.nan]]), np.array([True, False]))
    >>> data.take(np.array([1, 0]))[0].tolist()
    [[0.0, 0.0], [1.0, 2.0]]
    """

    def __init__(self, table: np.ndarray, present: np.ndarray, linear: bool = False):
        import torch  # here, since models of tables alone must not wait for it

        super().__init__(present)
        self.table = torch.as_tensor(np.where(self.present[:, None], np.asarray(table, dtype=np.float32), 0.0))
        self.linear = self.table if linear else None

    def take(self, rows: np.ndarray) -> "tuple[Tensor, ...]":
        """Numbers of some patients, (B, P)."""
        import torch

        return (self.table[torch.as_tensor(rows)],)

    def facts(self) -> tuple[Any, ...]:
        """The numbers."""
        return self.present, self.table


class BagData(ModalityData):
    """Bags of items of one shape, one bag a patient: slices of a stack, vectors, tiles.

    Items of all patients are numbered one after the other. The network is a :class:`~mmdls.modules.BagNet`.

    Parameters
    ----------
    counts : ndarray of int, shape (n_patients,)
        Items of each patient; 0 = missing.
    item_shape : tuple of int
        Shape of one item.

    Attributes
    ----------
    items : str
        What an item is, in the plural; attention weights are given in a column ``<modality>_<items>``.

    Examples
    --------
    Patients with two vectors, none and one:

    >>> import torch
    >>> class Vectors(BagData):
    ...     def read(self, index, device="cpu"):
    ...         return torch.arange(3.0)[torch.as_tensor(index), None].to(device)
    >>> data = Vectors([2, 0, 1], item_shape=(1,))
    >>> items, counts = data.take(np.array([2, 0]))
    >>> data.present.tolist(), items.flatten().tolist(), counts.tolist()
    ([True, False, True], [2.0, 0.0, 1.0], [1, 2])
    """

    items: ClassVar[str] = "items"

    def __init__(self, counts: np.ndarray, item_shape: Sequence[int]):
        self.counts = np.asarray(counts, dtype=np.int64)
        super().__init__(self.counts > 0)
        self.offsets = np.r_[0, np.cumsum(self.counts)]
        self.item_shape = tuple(item_shape)

    @property
    def n_items(self) -> int:
        """Items of all patients together."""
        return int(self.offsets[-1])

    def index_of(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which items belong to some patients.

        Parameters
        ----------
        rows : ndarray of int, shape (B,)

        Returns
        -------
        index : ndarray of int64, shape (K,)
            Packed, in the order of the rows.
        counts : ndarray of int64, shape (B,)
        """
        counts = self.counts[rows]
        shift = self.offsets[rows] - (np.cumsum(counts) - counts)
        return np.repeat(shift, counts) + np.arange(counts.sum()), counts

    def read(self, index: np.ndarray, device: "torch.device | str" = "cpu") -> "Tensor":
        """Some items as float32 on a device, (k,) + item_shape."""
        raise NotImplementedError(f"{type(self).__name__} must define read(index, device).")

    def cached(self, key: str, make: Callable[[], np.ndarray]) -> np.ndarray:
        """An array computed from all items; data that outlive a fit may keep it under its key."""
        return make()

    def take(self, rows: np.ndarray) -> "tuple[Tensor, ...]":
        """Packed items, (K,) + item_shape, of some patients, and the items of each, (B,)."""
        import torch

        index, counts = self.index_of(rows)
        return self.read(index), torch.as_tensor(counts)

    def facts(self) -> tuple[Any, ...]:
        """The numbers of items."""
        return self.counts, self.item_shape


class Encoder:
    """What a model asks of an encoder; derive from it, beside ``TransformerMixin`` and ``BaseEstimator``.

    :meth:`prepare` and :meth:`build` must be defined; the other methods do nothing unless they are.

    Attributes
    ----------
    reads : str
        What its column holds: ``"images"`` are columns ``<name>_image``, ``"table"`` the columns of a block. Anything
        else is read from columns ``<name>_<reads>``: an encoder that is registered under the name of what it reads
        gets the columns with this ending, and ``modalities="auto"`` finds them.

    Examples
    --------
    An encoder of columns such as ``ct_report``, texts that it describes by the length of their sentences:

    >>> from sklearn.base import BaseEstimator
    >>> from torch import nn
    >>> class ReportEncoder(Encoder, BaseEstimator):
    ...     reads = "report"
    ...
    ...     def prepare(self, X, *, n_jobs=None, verbose=0):
    ...         texts = X.iloc[:, 0]
    ...         lengths = [[len(s) for s in text.split(".")] if isinstance(text, str) else [] for text in texts]
    ...         table = np.array([[np.mean(each), len(each)] if each else [0, 0] for each in lengths])
    ...         return TableData(table, texts.notna().to_numpy())
    ...
    ...     def build(self, data):
    ...         network = nn.Linear(data.table.shape[1], 8)
    ...         network.out_features = 8
    ...         return network
    """

    reads: ClassVar[str] = "table"

    def fit_preprocessing(self, X: Any, y: Any = None, sample_weight: np.ndarray | None = None) -> None:
        """Check the parameters, and learn from the training rows whatever is learned without the network.

        Parameters
        ----------
        X : pandas.DataFrame of shape (n_patients, n_columns)
            The columns of this modality.
        y : pandas.DataFrame, default=None
            Outcomes, in the same order.
        sample_weight : ndarray of shape (n_patients,), default=None
        """

    def prepare(self, X: Any, *, n_jobs: int | None = None, verbose: int = 0) -> ModalityData:
        """Read the patients of a table.

        Parameters
        ----------
        X : pandas.DataFrame of shape (n_patients, n_columns)
            The columns of this modality.
        n_jobs : int, default=None
            Workers of the model, for an encoder that names none itself.
        verbose : int, default=0

        Returns
        -------
        ModalityData
        """
        raise NotImplementedError(f"{type(self).__name__} must define prepare(X, n_jobs, verbose).")

    def build(self, data: Any) -> "nn.Module":
        """A new network for data like these, with weights drawn from torch's current random state.

        Parameters
        ----------
        data : ModalityData
            What :meth:`prepare` gave.

        Returns
        -------
        nn.Module
            ``network(*data.take(rows))`` is an embedding of each patient, (B, ``network.out_features``); a patient's
            embedding does not depend on the other rows.
        """
        raise NotImplementedError(f"{type(self).__name__} must define build(data).")

    def initialize(self, network: Any, data: Any, rows: np.ndarray, compute: Any) -> "Tensor | None":
        """Prepare a new network for its training on some rows, for example by statistics of its features.

        Parameters
        ----------
        network : nn.Module
            What :meth:`build` gave.
        data : ModalityData
        rows : ndarray of int
            The training rows.
        compute : Compute
            Device, precision and micro-batches.

        Returns
        -------
        Tensor of shape (n_items, D) or None
            For bags whose items are not encoded in training: the embeddings of all items.
        """
        return None

    def learning_rate_factors(self) -> Mapping[str, float]:
        """Factors of the learning rate, by patterns of the names of the network's parameters (``"backbone.*"``)."""
        return {}

    def set_network(self, network: Any, columns: Sequence[str]) -> None:
        """Keep the trained network, so that the fitted encoder can embed patients on its own.

        Parameters
        ----------
        network : nn.Module
        columns : sequence of str
            The columns it reads.
        """
