"""Convolutions by kernels are those of torch: in value, gradient, and what happens to odd input."""

import copy
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
from functools import partial

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional

from mmdls import MMDLS, SliceEncoder, Trainer, kernels
from mmdls.datasets import make_nsclc_cohort
from mmdls.kernels import _operators, _ways, conv3x3, conv3x3_relu_chain, group_norm, info, stem, using
from mmdls.metrics import auc_score, concordance_index
from mmdls.modules import ConvBackbone, DenseNet121Backbone, ResNet10Backbone, SliceNet
from mmdls.registry import poolings

COMPILED = [way for way in ("avx512", "avx2") if not _ways._hindrance(way)]
WAYS = [
    pytest.param(way, marks=pytest.mark.skipif(way not in COMPILED, reason="not compiled here"))
    for way in ("avx512", "avx2")
]


def layer(seed, n, channels, out_channels, height, width, scale=1.0):
    """Image, weights, bias, and a gradient of the output."""
    draw = torch.Generator().manual_seed(seed)
    image = scale * torch.randn(n, channels, height, width, generator=draw)
    weight = (2 * torch.rand(out_channels, channels, 3, 3, generator=draw) - 1) / (9 * channels) ** 0.5
    bias = scale * torch.randn(out_channels, generator=draw)
    return image, weight, bias, torch.randn(n, out_channels, height, width, generator=draw)


def by_torch(image, weight, bias):
    return functional.conv2d(image, weight, bias, padding=1).relu()


def pair_by_torch(image, weight1, bias1, weight2, bias2):
    return by_torch(by_torch(image, weight1, bias1), weight2, bias2).sum(dim=(2, 3))


def values_and_gradients(function, tensors, gradient, dtype, image_too=True):
    """Output and gradients of all tensors, in double precision."""
    tensors = [tensor.to(dtype, copy=True) for tensor in tensors]
    trained = [tensor.requires_grad_() for tensor in (tensors if image_too else tensors[1:])]
    out = function(*tensors)
    out.backward(gradient.to(dtype))
    return [tensor.double() for tensor in (out.detach(), *(tensor.grad for tensor in trained))]


def times_the_error_of_torch(kernel, definition, tensors, gradient, image_too=True):
    """Errors of output and gradients, as multiples of those of torch in single precision."""
    exact = values_and_gradients(definition, tensors, gradient, torch.float64, image_too)
    plain = values_and_gradients(definition, tensors, gradient, torch.float32, image_too)
    ours = values_and_gradients(kernel, tensors, gradient, torch.float32, image_too)
    found = []
    for value, usual, mine in zip(exact, plain, ours, strict=True):
        # Where torch happens to be exact, a rounding error or two count as one.
        one = max(float((usual - value).norm()), 3e-8 * float(value.norm())) or 1.0
        found.append(float((mine - value).norm()) / one)
    return np.array(found)


def random_layer(seed):
    draw = np.random.default_rng(seed)
    n, channels, out_channels = draw.integers(1, 4), *(16 * draw.integers(1, 7, 2))
    height, width = draw.integers(4, 40, 2)
    image, weight, bias, gradient = layer(seed, n, channels, out_channels, height, width, 10.0 ** draw.uniform(-4, 4))
    return (image, weight, bias), gradient


def random_pair(seed):
    draw = np.random.default_rng(seed)
    n, channels, middle, out_channels = draw.integers(1, 4), draw.integers(1, 4), *(16 * draw.integers(1, 5, 2))
    height, width = draw.integers(4, 80, 2)
    scale = 10.0 ** draw.uniform(-4, 4)
    image, weight1, bias1, _ = layer(seed, n, channels, middle, height, width, scale)
    _, weight2, bias2, gradient = layer(seed + 1, n, middle, out_channels, 1, 1, scale)
    return (image, weight1, bias1, weight2, bias2), gradient[:, :, 0, 0]


def check_errors(way, seeds):
    def one(image, weight, bias):
        return _operators.conv3x3_operator(image, weight, bias, False, way)

    def two(*tensors):
        return _operators.pair_sum_operator(*tensors, True, way)[0]

    linear = lambda image, weight, bias: functional.conv2d(image, weight, bias, padding=1)  # noqa: E731
    layers = [times_the_error_of_torch(one, linear, *random_layer(seed)) for seed in seeds]
    pairs = np.array(
        [times_the_error_of_torch(two, pair_by_torch, *random_pair(seed), image_too=False) for seed in seeds]
    )
    assert np.max(layers) <= 3, np.round(layers, 1)
    assert np.median(layers) <= 2, np.round(layers, 1)
    assert np.max(pairs[:, 0]) <= 3, np.round(pairs, 1)
    assert np.median(pairs) <= 1, np.round(pairs, 1)
    # A number of a map that is nearly zero may be rounded to either side, in torch as well: the gradient of a pixel.
    assert np.mean(pairs[:, 1:] <= 3) >= 0.99, np.round(pairs, 1)


@pytest.mark.parametrize("way", WAYS)
def test_errors_are_those_of_single_precision(way):
    check_errors(way, range(25))


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_errors_are_those_of_single_precision_for_500_shapes(way):
    check_errors(way, range(100, 350))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("n", [2, 9])  # one chunk of tiles, and two
def test_layers_of_so_many_channels_that_their_outputs_are_computed_in_blocks(way, n):
    image, weight, bias, gradient = layer(n, n, 1024, 96, 5, 7)
    linear = lambda *tensors: functional.conv2d(*tensors, padding=1)  # noqa: E731
    ours = lambda *tensors: _operators.conv3x3_operator(*tensors, False, way)  # noqa: E731
    for form in (torch.contiguous_format, torch.channels_last):
        tensors = (image, weight.to(memory_format=form), bias)
        errors = times_the_error_of_torch(ours, linear, tensors, gradient)
        # Gradients of weights are sums over 70 pixels only, which torch rounds hardly at all.
        assert np.max(errors[[0, 1, 3]]) <= 3 and errors[2] <= 4, errors


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 3e38])
def test_what_is_not_finite_comes_out_where_torch_has_it(way, value):
    image, weight, bias, _ = layer(0, 2, 16, 32, 13, 19)
    image[1, 5, 6, 7] = value
    weight *= 40  # so that 3e38 is too much
    ours = _operators.conv3x3_operator(image, weight, bias, True, way)
    plain = by_torch(image, weight, bias)
    assert not plain.isfinite().all()
    for kind in (torch.isnan, torch.isposinf, torch.isfinite):
        assert torch.equal(kind(ours), kind(plain))
    usual = plain.isfinite()
    assert torch.allclose(ours[usual], plain[usual], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_in_an_image_comes_out_of_a_chain(way, value):
    (image, weight1, bias1, weight2, bias2), _ = random_pair(3)
    image = image.repeat(2, 1, 1, 1)[:2]
    image[1, 0, 2, 2] = value
    with using(way):
        ours = conv3x3_relu_chain(image, [weight1, weight2], [bias1, bias2], pooled=True)
    plain = pair_by_torch(image, weight1, bias1, weight2, bias2)
    assert torch.equal(ours.isnan(), plain.isnan())
    assert torch.equal(ours.isinf(), plain.isinf())
    assert ours[0].isfinite().all()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 4), (3, 5), (7, 1), (65, 3), (130, 6)])
@pytest.mark.parametrize("n", [0, 1, 3])
def test_any_height_width_and_number_of_images(way, shape, n):
    image, weight, bias, _ = layer(1, n, 16, 16, *shape)
    first, bias1 = torch.randn(16, 2, 3, 3), torch.randn(16)
    with using(way):
        out = conv3x3(image, weight, bias)
        pooled = conv3x3_relu_chain(image[:, :2], [first, weight], [bias1, bias], pooled=True)
    assert torch.allclose(out, functional.conv2d(image, weight, bias, padding=1), atol=1e-5)
    expected = pair_by_torch(image[:, :2], first, bias1, weight, bias) / (shape[0] * shape[1])
    assert torch.allclose(pooled, expected, atol=1e-5)
    if n:
        ours = _operators.conv3x3_operator(image, weight, bias, False, way)
        assert torch.allclose(ours, out, atol=1e-5)


@pytest.mark.parametrize("way", WAYS)
def test_numbers_may_lie_anywhere_in_memory(way):
    image, weight, bias, gradient = layer(2, 2, 32, 48, 12, 10)
    expected = values_and_gradients(by_torch, (image, weight, bias), gradient, torch.float32)
    odd = torch.zeros(2, 40, 12, 23)[:, 4:36, :, 1:21:2].copy_(image)
    forms = [
        image.contiguous(memory_format=torch.channels_last),
        odd,
        image.transpose(2, 3).contiguous().transpose(2, 3),
    ]
    for form in forms:
        for filters in (weight, weight.contiguous(memory_format=torch.channels_last), weight.flip(2).flip(2)):
            ours = _operators.conv3x3_operator(form, filters, bias.repeat_interleave(2)[::2], True, way)
            assert torch.allclose(ours.double(), expected[0], atol=1e-5)


@pytest.mark.parametrize("way", WAYS)
def test_threads_change_nothing(way):
    image, weight, bias, _ = layer(3, 3, 32, 32, 150, 21)
    first, bias1 = torch.randn(32, 1, 3, 3), torch.randn(32)
    found, before = [], torch.get_num_threads()
    try:
        for n_threads in (1, 2, 5):
            torch.set_num_threads(n_threads)
            parameters = [tensor.clone().requires_grad_() for tensor in (first, bias1, weight, bias)]
            sums, _ = _operators.pair_sum_operator(image[:, :1], *parameters, True, way)
            sums.sum().backward()
            out = _operators.conv3x3_operator(image, weight, bias, True, way)
            found.append([sums.detach(), out, *(parameter.grad for parameter in parameters)])
    finally:
        torch.set_num_threads(before)
    for others in found[1:]:
        assert torch.equal(found[0][0], others[0]) and torch.equal(found[0][1], others[1])
        for one, other in zip(found[0][2:], others[2:], strict=True):
            assert torch.allclose(one, other, rtol=1e-5, atol=1e-5 * float(one.abs().max()))


def test_the_definition_has_the_right_gradients():
    image, weight, bias, _ = layer(4, 1, 2, 3, 5, 4)
    tensors = [tensor.double().requires_grad_() for tensor in (image, weight, bias)]
    assert torch.autograd.gradcheck(lambda *t: conv3x3(*t, relu=True), tensors)


def test_without_kernels_nothing_changes_at_all():
    image, weight, bias, gradient = layer(5, 2, 32, 32, 20, 20)
    with using("plain"):
        ours = values_and_gradients(lambda *t: conv3x3(*t, relu=True), (image, weight, bias), gradient, torch.float32)
    plain = values_and_gradients(by_torch, (image, weight, bias), gradient, torch.float32)
    assert all(torch.equal(one, other) for one, other in zip(ours, plain, strict=True))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_are_left_to_torch(dtype):
    image, weight, bias, _ = (tensor.to(dtype) for tensor in layer(6, 1, 16, 32, 20, 20))
    assert torch.equal(conv3x3(image, weight, bias, relu=True), by_torch(image, weight, bias))


@pytest.mark.parametrize("way", WAYS)
def test_the_default_precision_changes_nothing(way):
    (image, *parameters), gradient = random_pair(6)
    layers, found = layer(6, 1, 16, 32, 9, 9)[:2], []
    for default in (torch.float32, torch.float64):
        torch.set_default_dtype(default)
        try:
            tensors = [parameter.clone().requires_grad_() for parameter in parameters]
            maps, weight = (tensor.clone().requires_grad_() for tensor in layers)
            sums, _ = _operators.pair_sum_operator(image, *tensors, True, way)
            sums.backward(gradient)
            out = _operators.conv3x3_operator(maps, weight, None, True, way)
            out.sum().backward()
        finally:
            torch.set_default_dtype(torch.float32)
        found.append([sums.detach(), out.detach(), maps.grad, *(tensor.grad for tensor in tensors)])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_autocast_is_left_to_torch():
    image, weight, bias, _ = layer(6, 1, 16, 32, 20, 20)
    with torch.autocast("cpu", torch.bfloat16):
        assert conv3x3(image, weight, bias).dtype == torch.bfloat16


@pytest.mark.skipif(not COMPILED, reason="nothing is compiled here")
def test_kernels_are_used_where_they_pay():
    image, weight, bias, _ = layer(7, 1, 32, 64, 56, 56)
    weight.requires_grad_()
    assert "mmdls" in type(conv3x3(image, weight, bias).grad_fn).__name__
    assert "mmdls" not in type(conv3x3(image[:, :, :1, :1], weight, bias).grad_fn).__name__


@pytest.mark.parametrize("way", [*WAYS, "nnpack", "plain"])
def test_shapes_that_do_not_fit_are_refused(way):
    image, weight, bias, _ = layer(8, 1, 16, 32, 20, 20)
    if way == "nnpack" and not torch.backends.nnpack.is_available():
        pytest.skip("not part of this torch")
    with using(way):
        for tensors in ((image, weight[:, :8], bias), (image, weight, bias[:5]), (image[0, 0], weight, bias)):
            with pytest.raises(RuntimeError):
                conv3x3(*tensors)
        with pytest.raises(ValueError, match="zip"):
            conv3x3_relu_chain(image, [weight], [])


@pytest.mark.parametrize("transformation", ["grad", "vmap", "jacrev"])
def test_transformations_of_functions(transformation):
    image, weight, bias, _ = layer(9, 2, 16, 32, 12, 12)
    total = lambda image, weight: conv3x3(image, weight, bias, relu=True).sum()  # noqa: E731
    exact = lambda image, weight: by_torch(image, weight, bias).sum()  # noqa: E731
    if transformation == "vmap":
        weights = torch.stack([weight, 2 * weight])
        ours = torch.vmap(total, in_dims=(None, 0))(image, weights)
        assert torch.allclose(ours, torch.stack([exact(image, each) for each in weights]), rtol=1e-4)
    else:
        change = torch.func.grad if transformation == "grad" else torch.func.jacrev
        assert torch.allclose(change(total)(image, weight), change(exact)(image, weight), atol=1e-4)


def test_exported_graphs_hold_usual_convolutions_only():
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = ResNet10Backbone(width=16)

        def forward(self, image):
            return self.backbone(image)[-1]

    program = torch.export.export(Net().eval(), (torch.rand(1, 1, 64, 64),))
    assert not [node for node in program.graph.nodes if "mmdls" in str(node.target)]


@pytest.mark.slow
def test_compiled_graphs():
    image, weight, bias, _ = layer(10, 2, 16, 32, 30, 30)
    compiled = torch.compile(lambda image: conv3x3(image, weight, bias, relu=True))
    assert torch.allclose(compiled(image), by_torch(image, weight, bias), atol=1e-5)


@pytest.mark.parametrize("way", WAYS)
def test_operators_keep_the_rules_of_torch(way):
    image, weight, bias, _ = layer(11, 1, 16, 16, 6, 6)
    tensors = [tensor.requires_grad_() for tensor in (image, weight, bias)]
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(_operators.conv3x3_operator, (*tensors, True, way), test_utils=tests)
    pair = (torch.rand(1, 1, 6, 6), torch.rand(16, 1, 3, 3), torch.rand(16), weight, bias, True, way)
    torch.library.opcheck(_operators.pair_sum_operator, pair, test_utils=tests)


@pytest.mark.parametrize("way", WAYS)
def test_threads_and_workers_and_copies(way):
    encoder = SliceNet(ConvBackbone(width=16), poolings["mean"](8), 8).eval()
    images = torch.rand(3, 1, 40, 40)
    with using(way), torch.inference_mode():
        expected = encoder.features(images)
    copies = [copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))]
    found = [features_of(each, images, way) for each in copies]
    workers = [
        threading.Thread(target=lambda: found.extend(features_of(encoder, images, way) for _ in range(5)))
        for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(found) == 22 and all(torch.equal(each, expected) for each in found)


def features_of(encoder, images, way):
    with using(way), torch.inference_mode():
        return encoder.features(images)


# What torch computes with several threads waits for ever in a process that was forked from one with threads.
@pytest.mark.skipif(not COMPILED, reason="nothing is compiled here")
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="cannot fork")
def test_forked_processes_and_workers_compute_the_same():
    code = """
import multiprocessing, torch
from mmdls.kernels import conv3x3
torch.manual_seed(0)
torch.set_num_threads(2)
image, weight = torch.rand(2, 16, 30, 30), torch.rand(32, 16, 3, 3)
here = conv3x3(image, weight)
def there(_):
    torch.set_num_threads(2)
    return conv3x3(image, weight).numpy().tobytes() == here.numpy().tobytes()
with multiprocessing.get_context("fork").Pool(2) as pool:
    assert all(pool.map_async(there, range(4)).get(timeout=600))
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.skipif(not COMPILED or sys.platform != "linux", reason="nothing is compiled here, or no /proc")
def test_kernels_take_the_threads_of_torch_where_they_can_be_had():
    code = """
import threading, torch
from pathlib import Path
from mmdls.kernels import _ways, conv3x3
torch.set_num_threads(2)
def threads():
    return len(list(Path("/proc/self/task").iterdir()))
image, weight = torch.rand(2, 16, 30, 30), torch.rand(32, 16, 3, 3)
torch.rand(10**6).exp()  # torch has its threads now
before, seen = threads(), set()
watch = threading.Thread(target=lambda: [seen.add(threads()) for _ in range(300)])
watch.start()
while watch.is_alive():
    conv3x3(image, weight)
shared = _ways._threads_of_torch() is not None
assert (max(seen) == before + 1) == shared, (before, seen, shared)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.slow
def test_workers_of_joblib_compute_the_same():
    image, weight, _, _ = layer(12, 2, 16, 32, 30, 30)
    found = joblib.Parallel(n_jobs=2)(joblib.delayed(conv3x3)(image, weight) for _ in range(4))
    assert all(torch.equal(each, found[0]) for each in found)


def test_a_chain_of_any_length():
    image = torch.rand(2, 1, 20, 20)
    widths = [1, 16, 32, 16]
    weights = [torch.rand(b, a, 3, 3) / a for a, b in zip(widths[:-1], widths[1:], strict=True)]
    biases = [torch.rand(width) for width in widths[1:]]
    expected = image
    for weight, bias in zip(weights, biases, strict=True):
        expected = by_torch(expected, weight, bias)
    assert torch.allclose(conv3x3_relu_chain(image, weights, biases), expected, rtol=1e-4)
    pooled = conv3x3_relu_chain(image, weights, biases, pooled=True)
    assert torch.allclose(pooled, expected.mean(dim=(2, 3)), rtol=1e-4)


@pytest.mark.skipif(not COMPILED, reason="nothing is compiled here")
def test_the_gradient_of_an_image_goes_through_a_chain():
    (image, *parameters), gradient = random_pair(5)
    weights, biases = parameters[::2], parameters[1::2]
    image.requires_grad_()
    conv3x3_relu_chain(image, weights, biases, pooled=True).backward(gradient)
    ours, image.grad = image.grad, None
    (pair_by_torch(image, *parameters) / image.shape[2:].numel()).backward(gradient)
    assert torch.allclose(ours, image.grad, rtol=1e-3, atol=1e-5 * float(image.grad.abs().max()))


@pytest.mark.skipif(not COMPILED, reason="nothing is compiled here")
def test_a_backbone_that_is_listened_to_makes_its_maps():
    encoder = SliceNet(ConvBackbone(width=16), poolings["mean"](8), 8)
    heard = []
    assert len(encoder.maps(torch.rand(1, 1, 20, 20))) == 1
    hook = encoder.backbone.register_forward_hook(lambda module, given, maps: heard.extend(maps))
    encoder.features(torch.rand(1, 1, 20, 20))
    hook.remove()
    assert [each.shape[1] for each in heard] == [16, 32]


@pytest.mark.slow
@pytest.mark.skipif(not COMPILED, reason="nothing is compiled here")
@pytest.mark.parametrize("seed", range(5))
def test_trained_models_are_as_good_with_kernels_as_without(seed):
    X, y = make_nsclc_cohort(500, n_slices=2, image_size=32, return_X_y=True, random_state=seed)
    X, y = X[["lesion_image", "clinical_age"]], y[["subtype", "os_time", "os_event"]]
    encoder, trainer = SliceEncoder(backbone="conv"), Trainer(max_epochs=8)
    scores = []
    for way in (info().way, "plain"):
        with using(way):
            model = MMDLS(image_encoder=encoder, trainer=trainer, n_members=1, random_state=seed).fit(X[:250], y[:250])
            risk, lusc = model.predict(X[250:])["os"], model.predict_proba(X[250:], "subtype")[:, 1]
        known, timed = y[250:]["subtype"].notna(), y[250:]["os_time"].notna()
        event, time = y[250:]["os_event"][timed] == 1, y[250:]["os_time"][timed]
        auc = auc_score(pd.Categorical(y[250:]["subtype"][known]).codes, lusc[known])
        scores.append([float(auc), float(concordance_index(event, time, risk[timed]))])
    assert np.abs(np.subtract(*scores)).max() <= 0.002


# -- group normalisation ---------------------------------------------------------------------------------------------


def norm_by_torch(image, weight, bias, added, groups=8):
    return (functional.group_norm(image, groups, weight, bias) + added).relu()


def random_norm(seed):
    """Image, weights, bias, what is added, and a gradient of the output; the mean may be large beside the deviation."""
    draw, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    shape = draw.integers(1, 4), 16 * draw.integers(1, 9), *draw.integers(1, 30, 2)
    image, added, gradient = torch.randn(3, *map(int, shape), generator=generator)
    weight, bias = torch.randn(2, int(shape[1]), generator=generator)
    image = 10.0 ** draw.uniform(-4, 4) * (image + draw.choice([0, 1, 10]))
    return (image, weight, bias, added), gradient


def check_errors_of(ours, by_torch, draw, seeds):
    found = np.array([times_the_error_of_torch(ours, by_torch, *draw(seed)) for seed in seeds])
    assert np.max(found) <= 3, np.round(found, 1)
    assert np.median(found) <= 1.5, np.round(found, 1)


def check_norm_errors(way, seeds):
    def ours(image, weight, bias, added):
        return _operators.group_norm_operator(image, 8, weight, bias, 1e-5, added, True, way)[0]

    check_errors_of(ours, norm_by_torch, random_norm, seeds)


@pytest.mark.parametrize("way", WAYS)
def test_errors_of_group_normalisation(way):
    check_norm_errors(way, range(25))


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_errors_of_group_normalisation_for_500_shapes(way):
    check_norm_errors(way, range(100, 600))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("added", [False, True])
@pytest.mark.parametrize("relu", [False, True])
def test_group_normalisation_with_and_without_what_follows(way, added, relu):
    (image, weight, bias, other), gradient = random_norm(1)
    tensors = (image, weight, bias, other) if added else (image, weight, bias)

    def ours(image, weight, bias, other=None):
        return _operators.group_norm_operator(image, 4, weight, bias, 1e-3, other, relu, way)[0]

    def plain(image, weight, bias, other=None):
        with using("plain"):
            return group_norm(image, 4, weight, bias, 1e-3, added=other, relu=relu)

    for one, exact in zip(
        values_and_gradients(ours, tensors, gradient, torch.float32),
        values_and_gradients(plain, tensors, gradient, torch.float64),
        strict=True,
    ):
        assert torch.allclose(one, exact, rtol=1e-4, atol=1e-5 * float(exact.abs().max()))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_comes_out_of_group_normalisation_where_torch_has_it(way, value):
    (image, weight, bias, added), _ = random_norm(5)
    image = image.repeat(2, 1, 1, 1)[:2]
    image[1, 3, 0, 0], added = value, added.repeat(2, 1, 1, 1)[:2]
    added[0, 1, 0, -1] = value
    ours, _ = _operators.group_norm_operator(image, 8, weight, bias, 1e-5, added, True, way)
    plain = norm_by_torch(image, weight, bias, added)
    for kind in (torch.isnan, torch.isposinf, torch.isfinite):
        assert torch.equal(kind(ours), kind(plain))


@pytest.mark.parametrize("way", WAYS)
def test_neither_threads_nor_other_images_change_group_normalisation(way):
    (image, weight, bias, added), gradient = random_norm(0)
    image, added, gradient = (torch.cat([each, 2 * each, -each]) for each in (image, added, gradient))
    found, before = [], torch.get_num_threads()

    def ours(image, weight, bias, added):
        return _operators.group_norm_operator(image, 8, weight, bias, 1e-5, added, True, way)[0]

    try:
        for n_threads in (1, 2, 5):
            torch.set_num_threads(n_threads)
            found.append(values_and_gradients(ours, (image, weight, bias, added), gradient, torch.float32))
    finally:
        torch.set_num_threads(before)
    for others in found[1:]:
        assert all(torch.equal(one, other) for one, other in zip(found[0], others, strict=True))
    assert torch.equal(ours(image[1:2], weight, bias, added[1:2]).double(), found[0][0][1:2])


def test_the_definition_of_group_normalisation_has_the_right_gradients():
    tensors = [tensor.double().requires_grad_() for tensor in (torch.rand(2, 4, 3, 2), *torch.rand(2, 4))]
    added = torch.rand(2, 4, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *t: group_norm(*t[:1], 2, *t[1:3], added=t[3], relu=True), [*tensors, added])


@pytest.mark.skipif(not COMPILED, reason="nothing is compiled here")
def test_group_normalisation_by_kernels_where_it_pays_and_by_torch_elsewhere():
    image, weight, bias = torch.rand(1, 64, 30, 30), torch.rand(64, requires_grad=True), torch.rand(64)
    name = lambda *tensors: type(group_norm(tensors[0], 8, *tensors[1:]).grad_fn).__name__  # noqa: E731
    assert "mmdls" in name(image, weight, bias)
    others = image[:, :, :9], image.double(), image[..., None], torch.rand(1, 40, 40, 40)
    for other in others:
        parameters = (each[: other.shape[1]].to(other.dtype) for each in (weight, bias))
        assert "mmdls" not in name(other, *parameters)
    stacked = torch.vmap(lambda each: group_norm(each, 8, weight, bias))(image[None])
    assert torch.allclose(stacked[0], group_norm(image, 8, weight, bias), atol=1e-5)


@pytest.mark.parametrize("way", WAYS)
def test_what_kernels_give_may_be_changed_in_place(way):
    """As by ``nn.ReLU(inplace=True)`` behind a layer, which networks of other libraries hold."""
    (image, weight, bias, _), gradient = random_norm(1)
    filters = torch.randn(16, image.shape[1], 3, 3)
    layers = (
        (
            lambda i, w, b: _operators.group_norm_operator(i, 4, w, b, 1e-5, None, False, way)[0],
            (weight, bias),
            gradient,
        ),
        (
            lambda i, w, b: _operators.conv3x3_operator(i, w, b, False, way),
            (filters, torch.randn(16)),
            torch.ones(len(image), 16, *image.shape[2:]),
        ),
    )
    for layer_of, parameters, slope in layers:
        inside = values_and_gradients(lambda *t, f=layer_of: f(*t).relu_(), (image, *parameters), slope, torch.float32)
        apart = values_and_gradients(lambda *t, f=layer_of: f(*t).relu(), (image, *parameters), slope, torch.float32)
        assert all(torch.equal(one, other) for one, other in zip(inside, apart, strict=True))


@pytest.mark.parametrize("way", WAYS)
def test_group_normalisation_keeps_the_rules_of_torch(way):
    tensors = [torch.rand(shape, requires_grad=True) for shape in ((2, 16, 3, 4), 16, 16, (2, 16, 3, 4))]
    image, weight, bias, added = tensors
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    for relu in (False, True):
        given = image, 4, weight, bias, 1e-5, added, relu, way
        torch.library.opcheck(_operators.group_norm_operator, given, test_utils=tests)


# -- what residual networks begin with -------------------------------------------------------------------------------


def stem_by_torch(image, weight, norm_weight, norm_bias, groups=8):
    maps = functional.conv2d(image, weight, stride=2, padding=weight.shape[2] // 2)
    return functional.max_pool2d(functional.group_norm(maps, groups, norm_weight, norm_bias).relu(), 3, 2, 1)


def random_stem(seed):
    """Image, weights of the convolution and of the normalisation, and a gradient of the output."""
    draw, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    n, channels, found, side = (
        draw.integers(1, 4),
        draw.integers(1, 4),
        16 * draw.integers(1, 5),
        draw.choice([3, 5, 7]),
    )
    height, width = draw.integers(1, 60, 2)
    image = 10.0 ** draw.uniform(-4, 4) * torch.randn(n, channels, height, width, generator=generator)
    weight = torch.randn(int(found), int(channels), int(side), int(side), generator=generator) / side
    norm_weight, norm_bias = torch.randn(2, int(found), generator=generator)
    out = stem_by_torch(image, weight, norm_weight, norm_bias)
    return (image, weight, norm_weight, norm_bias), torch.randn(out.shape, generator=generator)


def stem_by_kernels(image, weight, norm_weight, norm_bias, way):
    return _operators.stem_operator(image, weight, 8, norm_weight, norm_bias, 1e-5, True, way)[0]


def check_stem_errors(way, seeds):
    check_errors_of(partial(stem_by_kernels, way=way), stem_by_torch, random_stem, seeds)


@pytest.mark.parametrize("way", WAYS)
def test_errors_of_stems(way):
    check_stem_errors(way, range(25))


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_errors_of_stems_for_500_shapes(way):
    check_stem_errors(way, range(100, 600))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_comes_out_of_a_stem_where_torch_has_it(way, value):
    (image, *parameters), _ = random_stem(2)
    image = torch.cat([image, image])
    image[-1, 0, 0, 0] = value
    ours, plain = stem_by_kernels(image, *parameters, way), stem_by_torch(image, *parameters)
    assert plain[0].isfinite().all() and plain[-1].isnan().any()
    for kind in (torch.isnan, torch.isposinf, torch.isfinite):
        assert torch.equal(kind(ours), kind(plain))


@pytest.mark.parametrize("way", WAYS)
def test_neither_threads_nor_how_many_images_at_once_change_a_stem(way, monkeypatch):
    (image, *parameters), gradient = random_stem(2)
    image, gradient = (torch.cat([each, 2 * each, -each]) for each in (image, gradient))
    ours = lambda *tensors: stem_by_kernels(*tensors, way)  # noqa: E731
    found, before = [], torch.get_num_threads()
    try:
        for n_threads, n_bytes in ((1, 2**23), (2, 2**23), (5, 1)):
            torch.set_num_threads(n_threads)
            monkeypatch.setattr(_operators, "_STEM_BYTES", n_bytes)
            found.append(values_and_gradients(ours, (image, *parameters), gradient, torch.float32))
    finally:
        torch.set_num_threads(before)
    assert len(_operators._stem_parts(len(image), 16, 9, 9)) == len(image)
    for others in found[1:]:
        for one, other in zip(found[0], others, strict=True):
            assert torch.allclose(one, other, rtol=1e-5, atol=1e-6 * float(one.abs().max()))


def test_a_stem_without_kernels_is_that_of_torch():
    tensors, gradient = random_stem(1)
    with using("plain"):
        ours = values_and_gradients(lambda i, w, *norm: stem(i, w, 8, *norm), tensors, gradient, torch.float32)
    plain = values_and_gradients(stem_by_torch, tensors, gradient, torch.float32)
    assert all(torch.equal(one, other) for one, other in zip(ours, plain, strict=True))


@pytest.mark.skipif(not COMPILED, reason="nothing is compiled here")
def test_stems_by_kernels_where_they_fit_and_by_torch_elsewhere():
    (image, weight, *norm), _ = random_stem(4)
    weight.requires_grad_()
    name = lambda *tensors: type(stem(*tensors[:2], 8, *tensors[2:]).grad_fn).__name__  # noqa: E731
    assert "mmdls" in name(image, weight, *norm)
    for others in (
        [image.double(), weight.double(), *(each.double() for each in norm)],
        [image, weight[:8], norm[0][:8]],
    ):
        others = others if len(others) == 4 else [*others, norm[1][:8]]
        assert "mmdls" not in name(*others)
    stacked = torch.vmap(lambda each: stem(each, weight, 8, *norm))(image[None])
    assert torch.allclose(stacked[0], stem(image, weight, 8, *norm), atol=1e-4)
    with pytest.raises(RuntimeError):
        stem(image, weight[..., :-1], 7, *norm)


@pytest.mark.skipif(not COMPILED, reason="nothing is compiled here")
@pytest.mark.parametrize("backbone", [ResNet10Backbone, DenseNet121Backbone])
def test_a_network_begins_by_kernels_unless_its_first_layers_are_listened_to_or_others(backbone):
    network, image, heard = backbone(width=16).eval(), torch.rand(2, 1, 48, 40), []
    first, norm = list(network.modules())[1:3] if backbone is ResNet10Backbone else network.features[:2]
    with using("plain"):
        expected = network(image)[-1]
    calls = []
    with pytest.MonkeyPatch.context() as patch:
        operator = _operators.stem_operator
        patch.setattr("mmdls.kernels._norms.stem_operator", lambda *given: calls.append(given) or operator(*given))
        assert torch.allclose(network(image)[-1], expected, atol=1e-4) and len(calls) == 1
        for layer in (first, norm):
            hook = layer.register_forward_hook(lambda module, given, maps: heard.append(maps.shape[2:]))
            assert torch.allclose(network(image)[-1], expected, atol=1e-4)
            hook.remove()
        first.stride = (4, 4)
        network(image)
    assert len(calls) == 1 and heard == [(24, 20)] * 2


@pytest.mark.parametrize("way", WAYS)
def test_stems_keep_the_rules_of_torch(way):
    (image, weight, *norm), _ = random_stem(3)
    tensors = [tensor.requires_grad_() for tensor in (image, weight, *norm)]
    given = *tensors[:2], 8, *tensors[2:], 1e-5, True, way
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(_operators.stem_operator, given, test_utils=tests)


# -- which way is taken ----------------------------------------------------------------------------------------------


def test_a_way_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="one of .*'avx512'.*got 'fast'"), using("fast"):
        pass


def test_the_environment_chooses_a_way():
    code = "from mmdls.kernels import info; print(info())"
    run = lambda way: subprocess.run(  # noqa: E731
        [sys.executable, "-c", code], env={**os.environ, "MMDLS_KERNELS": way}, capture_output=True, text=True
    )
    assert run("plain").stdout == "plain: chosen by the environment variable MMDLS_KERNELS.\n"
    assert "the environment variable MMDLS_KERNELS: a way of computing" in run("quick").stderr


def test_without_a_compiler_the_usual_convolution_is_taken(monkeypatch, tmp_path):
    for function in (_ways._default, _ways._hindrance):
        function.cache_clear()
    monkeypatch.setattr(_ways, "_path", lambda name: tmp_path / f"{name}.so")
    monkeypatch.delenv("MMDLS_KERNELS", raising=False)
    try:
        found = info()
        assert found.way == "plain"
        assert "C++ compiler" in found.why or "needs a processor" in found.why
        assert conv3x3(torch.rand(1, 16, 9, 9), torch.rand(32, 16, 3, 3)).shape == (1, 32, 9, 9)
        (tmp_path / "avx2.so").write_bytes(b"no library")
        _ways._hindrance.cache_clear()
        _ways.library.cache_clear()
        if "AVX" in torch.backends.cpu.get_cpu_capability():
            with pytest.raises(ValueError, match="'avx2' cannot be loaded"), using("avx2"):
                pass
    finally:
        for function in (_ways._default, _ways._hindrance, _ways.library):
            function.cache_clear()


def test_public_names():
    assert {"conv3x3", "conv3x3_relu_chain", "info", "using"} <= set(kernels.__all__)
