"""What the checks of network parts have in common."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = ["close", "gradients_reach", "no_batch_statistics", "seeded", "without_dropout"]


@contextmanager
def seeded() -> Iterator[None]:
    """Seed torch inside; its state is the same afterwards."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        yield


def close(one: Tensor, other: Tensor, what: str, tolerance: float = 1e-5) -> None:
    """Two tensors must agree; ``what`` is the complaint."""
    one, other = one.detach().double(), other.detach().double()
    agree = one.shape == other.shape and torch.allclose(one, other, rtol=1e-5, atol=tolerance)
    assert agree, f"{what} ({tuple(one.shape)} against {tuple(other.shape)}, or different values)"


def without_dropout(net: nn.Module) -> None:
    """Turn dropout off, whatever the mode of the network is."""
    for module in net.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.eval()


def no_batch_statistics(net: nn.Module) -> None:
    """Refuse batch normalisation."""
    for name, module in net.named_modules():
        assert not isinstance(module, nn.modules.batchnorm._BatchNorm), (
            f"{name} normalises over the batch, so a patient's answer would depend on the others; "
            "use nn.GroupNorm or no normalisation"
        )


def gradients_reach(net: nn.Module, loss: Callable[[], Tensor]) -> None:
    """Every trainable parameter must get a finite gradient of the loss."""
    parameters = {name: p for name, p in net.named_parameters() if p.requires_grad}
    if not parameters:
        return
    net.zero_grad()
    loss().backward()
    for name, parameter in parameters.items():
        reached = parameter.grad is not None and torch.isfinite(parameter.grad).all()
        assert reached, f"the parameter {name} gets no finite gradient"
