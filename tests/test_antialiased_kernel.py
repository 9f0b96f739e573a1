"""The default encoder by kernels is the one of torch: in value, gradient, and what happens to odd input."""

import copy
import pickle
import threading

import numpy as np
import pytest
import torch

from mmdls.kernels import _operators, antialiased_sums, using
from mmdls.modules import AntialiasedBackbone, SliceNet
from mmdls.registry import poolings
from mmdls.training._compute import Compute, _map_sizes
from tests.test_kernels import COMPILED, WAYS, features_of, times_the_error_of_torch, values_and_gradients


def network(seed, channels=1, width=8, depth=3):
    """A backbone none of whose parameters is zero or one, and its parameters in the order of the kernel."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        backbone = AntialiasedBackbone(channels, width, depth)
        with torch.no_grad():
            for parameter in backbone.parameters():
                if parameter.ndim == 1:
                    parameter += 0.3 * torch.randn_like(parameter)
    return backbone, [parameter.detach() for parameter in backbone.parameters()]


def by_torch(image, *parameters):
    """Sums over the pixels of the last map, from the definition."""
    channels, depth = image.shape[1], len(parameters) // 4 + 1
    backbone = AntialiasedBackbone(channels, len(parameters[0]), depth).to(image.dtype)
    names = [name for name, _ in backbone.named_parameters()]
    with using("plain"):
        maps = torch.func.functional_call(backbone, dict(zip(names, parameters, strict=True)), (image,))
    return maps[-1].sum(dim=(2, 3))


def by_kernel(way):
    return lambda image, *parameters: _operators.antialiased_operator(image, list(parameters), 1e-5, True, way)[0]


def example(seed, n, channels, shape, scale=1.0, **sizes):
    image = scale * torch.randn(n, channels, *shape, generator=torch.Generator().manual_seed(seed))
    parameters = network(seed, channels, **sizes)[1]
    n_found = parameters[0].shape[0] * (2 ** (len(parameters) // 4 + 1) - 1)
    return (image, *parameters), torch.randn(n, n_found, generator=torch.Generator().manual_seed(seed + 1))


def check_errors(way, seeds):
    found = []
    for seed in seeds:
        draw = np.random.default_rng(seed)
        n, channels, height, width = (int(draw.integers(*bounds)) for bounds in ((1, 30), (1, 4), (1, 90), (1, 90)))
        sizes = {"width": int(4 * draw.integers(1, 5)), "depth": int(draw.integers(1, 5))}
        tensors, gradient = example(seed, n, channels, (height, width), 10.0 ** draw.uniform(-4, 4), **sizes)
        errors = times_the_error_of_torch(by_kernel(way), by_torch, tensors, gradient, image_too=False)
        found.append([errors[0], np.max(errors[1:])])
    found = np.array(found)
    assert np.max(found[:, 0]) <= 3, found.round(1)
    # A number of a map that is nearly zero may be rounded to either side, in torch as well: the gradient of a pixel.
    assert np.mean(found[:, 1] <= 3) >= 0.9, found.round(1)
    assert np.median(found) <= 1.5, found.round(1)


@pytest.mark.parametrize("way", WAYS)
def test_errors_are_those_of_single_precision(way):
    check_errors(way, range(20))


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_errors_are_those_of_single_precision_for_500_shapes(way):
    check_errors(way, range(100, 600))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_comes_out_where_torch_has_it(way, value):
    (image, *parameters), _ = example(0, 30, 1, (21, 18))
    image[4, 0, 6, 7] = value
    ours, plain = by_kernel(way)(image, *parameters), by_torch(image, *parameters)
    assert not plain[4].isfinite().all()
    assert torch.equal(ours.isfinite(), plain.isfinite())
    usual = [i for i in range(30) if i != 4]
    assert torch.allclose(ours[usual], plain[usual], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 4), (3, 5), (7, 1), (65, 3), (32, 32), (130, 6)])
@pytest.mark.parametrize("n", [0, 1, 8, 9, 70])  # vectors hold 8 or 16 images
def test_any_height_width_and_number_of_images(way, shape, n):
    (image, *parameters), gradient = example(1, n, 2, shape, width=4)
    with using(way):
        backbone = network(1, 2, 4)[0]
        means = SliceNet(backbone, poolings["mean"](8), 8).pixel_means(image)
    n_pixels = -(-shape[0] // 8) * -(-shape[1] // 8)
    assert torch.allclose(means, by_torch(image, *parameters) / n_pixels, rtol=1e-4, atol=1e-5)
    if n:
        exact = values_and_gradients(by_torch, (image, *parameters), gradient, torch.float64, image_too=False)
        ours = values_and_gradients(by_kernel(way), (image, *parameters), gradient, torch.float32, image_too=False)
        for one, other in zip(ours, exact, strict=True):
            assert float((one - other).norm()) <= 1e-4 * float(other.norm()) + 1e-5


@pytest.mark.parametrize("way", WAYS)
def test_neither_threads_nor_other_images_nor_what_is_kept_change_an_image(way):
    (image, *parameters), gradient = example(2, 90, 1, (32, 32))
    found, before = [], torch.get_num_threads()
    try:
        for n_threads in (1, 2, 5):
            torch.set_num_threads(n_threads)
            kernel = by_kernel(way)
            found.append(values_and_gradients(kernel, (image, *parameters), gradient, torch.float32, image_too=False))
    finally:
        torch.set_num_threads(before)
    for others in found[1:]:  # gradients, too: what is summed up over images does not depend on threads
        assert all(torch.equal(one, other) for one, other in zip(found[0], others, strict=True))
    with using(way):
        alone = torch.cat([antialiased_sums(each[None], parameters) for each in image])
    assert torch.equal(alone.double(), found[0][0])


@pytest.mark.parametrize("way", WAYS)
def test_numbers_may_lie_anywhere_in_memory(way):
    (image, *parameters), gradient = example(3, 3, 2, (20, 24))
    kernel = by_kernel(way)
    expected = values_and_gradients(kernel, (image, *parameters), gradient, torch.float32, image_too=False)
    odd = torch.zeros(3, 5, 20, 49)[:, 1:3, :, 1::2].copy_(image)
    form = {"memory_format": torch.channels_last}
    others = [each.contiguous(**form) if each.ndim == 4 else each.repeat_interleave(2)[::2] for each in parameters]
    for form in (odd, image.transpose(2, 3).contiguous().transpose(2, 3)):
        out = kernel(form, *(each.requires_grad_() for each in others))
        out.backward(gradient.t().contiguous().t())
        found = [out.detach(), *(each.grad for each in others)]
        assert all(torch.equal(one.double(), other) for one, other in zip(found, expected, strict=True))
        others = [each.detach() for each in others]


def test_what_the_kernel_cannot_do_is_left_to_the_definition():
    (image, *parameters), _ = example(4, 2, 1, (16, 16))
    backbone, _ = network(4)
    expected = by_torch(image, *parameters) / 4
    refused = [
        ("the gradient of the image", image.clone().requires_grad_(), parameters),
        ("double precision", image.double(), [each.double() for each in parameters]),
        ("a parameter too few", image, parameters[:-1]),
        ("a volume", image[None], parameters),
        ("another shape", image, [parameters[0][:, :, :3, :3], *parameters[1:]]),
        ("four channels", image.expand(2, 4, 16, 16), network(4, 4)[1]),
        ("six filters", image, network(4, width=6)[1]),
    ]
    for what, given, layers in refused:
        assert antialiased_sums(given, layers) is None, what
    with torch.autocast("cpu", torch.bfloat16):
        assert antialiased_sums(image, parameters) is None
    with using("plain"):
        assert backbone.pixel_means(image) is None
    encoder = SliceNet(backbone, poolings["mean"](8), 8)
    image.requires_grad_()
    means = encoder.pixel_means(image)
    assert torch.allclose(means, expected, atol=1e-5)
    means.sum().backward()
    assert image.grad is not None


@pytest.mark.skipif(not COMPILED, reason="nothing is compiled here")
def test_the_default_encoder_is_computed_by_the_kernel_unless_it_is_listened_to():
    encoder = SliceNet(network(5)[0], poolings["mean"](8), 8)
    image = torch.rand(2, 1, 16, 16)
    assert [tuple(each.shape) for each in encoder.maps(image)] == [(2, 56)]
    heard = []
    encoder.backbone.register_forward_hook(lambda *_: heard.append(1))
    assert len(encoder.maps(image)) == 3 and heard


@pytest.mark.skipif(not COMPILED, reason="nothing is compiled here")
def test_the_memory_of_an_image_is_its_share_of_that_of_many():
    encoder = SliceNet(network(5)[0], poolings["mean"](8), 8)
    blurred, found = 8 * 8**2 + 24 * 4**2, 8 * 16**2 + 16 * 8**2 + 32 * 4**2
    kept = 4 * 32**2 + 4 * blurred + 8 * 2 * 2 + found // 8  # image, blurred maps, moments, a bit where ReLU passes
    assert _map_sizes(encoder, (1, 32, 32), Compute()) == (4 * 32**2, kept)


@pytest.mark.parametrize("way", WAYS)
def test_the_operator_keeps_the_rules_of_torch(way):
    (image, *parameters), _ = example(6, 2, 1, (9, 12))
    parameters = [each.requires_grad_() for each in parameters]
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    for keep in (True, False):
        chosen = tests if keep else tests[::2]
        torch.library.opcheck(_operators.antialiased_operator, (image, parameters, 1e-5, keep, way), test_utils=chosen)


def test_transformations_of_functions():
    encoder = SliceNet(network(7)[0], poolings["mean"](8), 8)
    image, counts = torch.rand(2, 1, 12, 12), torch.tensor([1, 1])
    named = {f"backbone.{name}": each.detach() for name, each in encoder.backbone.named_parameters()}

    def total(parameters):
        return torch.func.functional_call(encoder, parameters, (image, counts)).sum()

    twice = {name: torch.stack([each, 2 * each]) for name, each in named.items()}
    found = torch.vmap(total)(twice)
    assert torch.allclose(found[0], total(named), rtol=1e-5) and found[0] != found[1]
    total({name: each.requires_grad_() for name, each in named.items()}).backward()
    for name, gradient in torch.func.grad(total)({name: each.detach() for name, each in named.items()}).items():
        assert torch.allclose(gradient, named[name].grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("way", WAYS)
def test_threads_and_copies_and_the_default_precision(way):
    encoder = SliceNet(network(8)[0], poolings["mean"](8), 8).eval()
    images = torch.rand(30, 1, 40, 40)
    with using(way), torch.inference_mode():
        expected = encoder.features(images)
    found = [features_of(each, images, way) for each in (copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder)))]
    workers = [
        threading.Thread(target=lambda: found.extend(features_of(encoder, images, way) for _ in range(5)))
        for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    torch.set_default_dtype(torch.float64)
    try:
        found.append(features_of(encoder, images, way))
    finally:
        torch.set_default_dtype(torch.float32)
    assert len(found) == 23 and all(torch.equal(each, expected) for each in found)


def test_exported_graphs_hold_usual_convolutions_only():
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = SliceNet(network(9)[0], poolings["mean"](8), 8)

        def forward(self, image):
            return self.encoder.features(image)

    program = torch.export.export(Net().eval(), (torch.rand(2, 1, 16, 16),))
    assert not [node for node in program.graph.nodes if "mmdls" in str(node.target)]
