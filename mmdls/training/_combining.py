"""How much weight networks and linear part get in the answers, by patients that neither has learned from."""

from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from mmdls.modules import Combination

__all__ = ["combination_of"]

_PRIOR_SD = 0.5  # of each weight around that of the plain mean
_SHIFT_SD = 1.0


def combination_of(
    loss: Callable[[Tensor], Tensor], networks: Tensor, linear: Tensor | None, n_informative: float
) -> Combination:
    """The most probable weights of networks and linear part, given their predictions of held-out patients.

    Before any patient is seen, each weight is normally distributed around that of the plain mean, with a standard
    deviation of 0.5, and not negative. Few patients therefore leave the mean as it is, and many say how far predictions
    must shrink, and which of the two they follow.

    Parameters
    ----------
    loss : callable
        Parameters (n, P) -> mean negative log likelihood over ``n_informative`` patients or events.
    networks : Tensor of shape (n, P)
    linear : Tensor of shape (n, P), default=None
        None without a linear part.
    n_informative : float

    Returns
    -------
    Combination
    """
    mean = np.array([1.0] if linear is None else [0.5, 0.5])
    parts = torch.stack([networks] if linear is None else [networks, linear]).double()
    prior = np.r_[mean, np.zeros(networks.shape[1])]
    precision = np.r_[np.full(len(mean), _PRIOR_SD**-2), np.full(networks.shape[1], _SHIFT_SD**-2)] / n_informative

    def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
        at = torch.as_tensor(x).requires_grad_()
        value = loss(torch.einsum("k,knp->np", at[: len(mean)], parts) + at[len(mean) :])
        gradient = torch.autograd.grad(value, at)[0].numpy()
        away = x - prior
        return float(value.detach()) + 0.5 * float(precision @ away**2), gradient + precision * away

    bounds = [(0.0, None)] * len(mean) + [(None, None)] * networks.shape[1]
    found = minimize(objective, prior, jac=True, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-10}).x
    return Combination(found[: len(mean)].tolist(), torch.as_tensor(found[len(mean) :]))
