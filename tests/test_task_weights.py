"""Learned weights of tasks: their optimum, the update of FAMO step by step, and training of a model."""

import numpy as np
import pytest
import torch

from mmdls import MMDLS, Part, Trainer
from mmdls.datasets import make_nsclc_cohort
from mmdls.modules import FamoWeights, UncertaintyWeights
from mmdls.registry import task_weights


def test_uncertainty_settles_where_a_weight_is_one_over_twice_the_loss():
    weights, losses = UncertaintyWeights(3), torch.tensor([0.2, 1.0, 30.0])
    optimizer = torch.optim.LBFGS(weights.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        total = weights(losses)
        total.backward()
        return total

    optimizer.step(closure)
    assert torch.allclose(torch.exp(-weights.log_variance), 1 / (2 * losses), rtol=1e-3)


def test_famo_follows_its_algorithm():
    """The steps of Liu et al., with their autograd of the softmax, on two quadratic losses of very different size."""

    def losses_of(x):
        return torch.stack([(x[0] - 1).square() + x[1].square(), 100 * ((x[1] - 1).square() + 0.1)])

    net = FamoWeights(2)
    x = torch.tensor([3.0, -2.0], requires_grad=True)
    y, w, before = x.detach().clone().requires_grad_(), torch.zeros(2, requires_grad=True), None
    optimizer = torch.optim.Adam([{"params": [x], "lr": 0.05}, {"params": net.parameters(), "lr": 0.025}])
    reference = torch.optim.Adam([{"params": [y], "lr": 0.05}, {"params": [w], "lr": 0.025}])
    for _ in range(30):
        optimizer.zero_grad()
        net(losses_of(x)).backward()
        optimizer.step()

        reference.zero_grad()
        losses = losses_of(y)
        if before is not None:
            delta = before.log() - losses.detach().log()
            (w.grad,) = torch.autograd.grad(torch.softmax(w, 0), w, delta)
        else:
            w.grad = torch.zeros(2)
        z = torch.softmax(w.detach(), 0)
        c = 1 / (z / losses.detach()).sum()
        y.grad = torch.autograd.grad((c * z * losses.log()).sum(), y)[0]
        reference.step()
        before = losses.detach()
    assert torch.allclose(x, y, atol=1e-4) and torch.allclose(net.logits, w, atol=1e-4)


def test_famo_lowers_a_small_loss_that_a_large_one_drowns():
    """Known truth: of two losses that ask one weight for different values, the sum hears the larger one only."""

    def losses_of(x):
        return torch.stack([(x - 1).square().sum() + 0.01, 1000 * ((x + 1).square().sum() + 0.01)])

    found = {}
    for name in ("fixed", "famo"):
        net = FamoWeights(2)
        x = torch.zeros(1, requires_grad=True)
        optimizer = torch.optim.Adam([{"params": [x], "lr": 0.01}, {"params": net.parameters(), "lr": 0.025}])
        for _ in range(150):
            optimizer.zero_grad()
            (net(losses_of(x)) if name == "famo" else losses_of(x).sum()).backward()
            optimizer.step()
        found[name] = float(x.detach())
    assert found["fixed"] < -0.9 and abs(found["famo"]) < 0.7


@pytest.fixture(scope="module")
def cohort():
    X, y = make_nsclc_cohort(60, n_slices=1, image_size=8, n_radiomics=3, return_X_y=True, random_state=0)
    return X.filter(like="clinical_"), y


@pytest.mark.parametrize("name", list(task_weights))
def test_a_model_learns_with_learned_weights(cohort, name):
    X, y = cohort

    def model(choice):
        trainer = Trainer(max_epochs=6, validation_fraction=0, task_weights=choice)
        return MMDLS(trainer=trainer, n_members=1, random_state=0).fit(X, y)

    plain, learned, again = model(None), model(name), model(Part(name))
    assert not np.allclose(plain.transform(X), learned.transform(X))
    np.testing.assert_array_equal(learned.transform(X), again.transform(X))


def test_every_member_learns_weights_of_its_own(cohort):
    X, y = cohort
    made = []

    class Watched(UncertaintyWeights):
        def __init__(self, n_tasks):
            super().__init__(n_tasks)
            made.append(self)

    MMDLS(trainer=Trainer(max_epochs=6, task_weights=Watched), n_members=3, random_state=0).fit(X, y)
    assert len(made) == 3 and all(len(each.log_variance) == 4 for each in made)
    used = [each.log_variance.detach() for each in made]
    assert all(values.abs().min() > 0.01 for values in used) and not torch.equal(used[0], used[1])


def test_an_unknown_name_is_refused_with_the_known_ones(cohort):
    X, y = cohort
    with pytest.raises(ValueError, match="must be a dict of weights, or one of 'famo', 'uncertainty'. Got 'famoo'"):
        MMDLS(trainer=Trainer(task_weights="famoo")).fit(X, y)
