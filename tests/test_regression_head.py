"""The regression head: its losses are PyTorch's, and a few extreme values do not move Huber's."""

import pytest
import torch
from torch.nn import functional

from mmdls.modules import RegressionHead
from tests.simulated_outcomes import draw_values


def errors(n=100):
    torch.manual_seed(0)
    return torch.randn(n, 1, dtype=torch.float64) * 3, torch.randn(n, dtype=torch.float64)


@pytest.mark.parametrize("delta", [0.3, 1.0, 2.5])
def test_losses_and_gradients_are_those_of_pytorch(delta):
    parameters, target = errors()
    parameters.requires_grad_()
    squared = RegressionHead(1).loss(parameters, target)
    huber = RegressionHead(1, "huber", delta).loss(parameters, target)
    for loss, expected in (
        (squared, functional.mse_loss(parameters[:, 0], target) / 2),
        (huber, functional.huber_loss(parameters[:, 0], target, delta=delta)),
    ):
        torch.testing.assert_close(loss, expected)
        gradients = [torch.autograd.grad(value, parameters)[0] for value in (loss, expected)]
        torch.testing.assert_close(*gradients)


def test_a_large_delta_is_the_squared_loss_and_weights_are_repetitions():
    parameters, target = errors()
    squared, huber = RegressionHead(1), RegressionHead(1, "huber", 1e6)
    torch.testing.assert_close(huber.loss(parameters, target), squared.loss(parameters, target))
    weight = torch.arange(100) % 3 + 0.0
    rows = torch.repeat_interleave(torch.arange(100), weight.long())
    for head in (squared, RegressionHead(1, "huber")):
        torch.testing.assert_close(head.loss(parameters, target, weight), head.loss(parameters[rows], target[rows]))


def slope(loss):
    signal, target = (torch.as_tensor(values) for values in draw_values(300, mean=0.0, slope=0.8, noise=0.5))
    target[signal > 2.0] -= 30.0
    head = RegressionHead(1, loss).double()
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        value = head.loss(head(signal[:, None]), target)
        value.backward()
        return value

    optimizer.step(closure)
    return head.linear.weight.item()


def test_extreme_values_move_the_squared_loss_and_hardly_the_huber_loss():
    assert slope("squared") < 0.4 < 0.6 < slope("huber") < 0.9


def test_what_is_wrong_is_refused():
    with pytest.raises(ValueError, match="'loss' parameter of RegressionHead must be a str among .*Got 'absolute'"):
        RegressionHead(1, "absolute")
    for delta in (0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="'delta' parameter of RegressionHead must be a float"):
            RegressionHead(1, "huber", delta)
    assert set(RegressionHead.search_space()["loss"].choices) == {"squared", "huber"}
