"""Backbones with weights of a file: features as those of a plain re-implementation, and files of every form."""

import hashlib
import pickle
import re
import sys
import types

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from mmdls import MMDLS, SliceEncoder, Trainer, VolumeEncoder, load, save
from mmdls.datasets import make_nsclc_cohort
from mmdls.modules import MonaiBackbone
from mmdls.modules.pretrained import load_weights
from mmdls.registry import backbones
from mmdls.testing import check_backbone
from mmdls.training._weights_file import start_from_file

# -- plain networks, under the usual names -----------------------------------------------------------------------------


def conv(before, after, size, stride=1):
    return nn.Conv2d(before, after, size, stride, size // 2, bias=False)


class Block(nn.Module):
    def __init__(self, before, width, stride, bottleneck):
        super().__init__()
        after = 4 * width if bottleneck else width
        kernels = [(before, width, 1, 1), (width, width, 3, stride), (width, after, 1, 1)]
        if not bottleneck:
            kernels = [(before, width, 3, stride), (width, width, 3, 1)]
        self.n = len(kernels)
        for i, (a, b, size, step) in enumerate(kernels, 1):
            setattr(self, f"conv{i}", conv(a, b, size, step))
            setattr(self, f"bn{i}", nn.BatchNorm2d(b))
        self.downsample = None
        if stride != 1 or before != after:
            self.downsample = nn.Sequential(conv(before, after, 1, stride), nn.BatchNorm2d(after))

    def forward(self, x):
        inner = x
        for i in range(1, self.n + 1):
            inner = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(inner))
            inner = torch.relu(inner) if i < self.n else inner
        return torch.relu(inner + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    def __init__(self, depths, bottleneck=False, width=64):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width)
        before = width
        for stage, depth in enumerate(depths):
            after = width * 2**stage
            blocks = []
            for i in range(depth):
                blocks.append(Block(before, after, 2 if stage and not i else 1, bottleneck))
                before = 4 * after if bottleneck else after
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(before, 10)

    def forward(self, x):
        x = functional.max_pool2d(torch.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x)))).mean(dim=(2, 3))


class DenseNet(nn.Module):
    def __init__(self, width=64):
        super().__init__()
        self.features = f = nn.ModuleDict()
        f["conv0"], f["norm0"] = nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width)
        channels, growth = width, width // 2
        for stage, depth in enumerate((6, 12, 24, 16), 1):
            block = nn.ModuleDict()
            for i in range(1, depth + 1):
                block[f"denselayer{i}"] = nn.ModuleDict(
                    {
                        "norm1": nn.BatchNorm2d(channels),
                        "conv1": conv(channels, 4 * growth, 1),
                        "norm2": nn.BatchNorm2d(4 * growth),
                        "conv2": conv(4 * growth, growth, 3),
                    }
                )
                channels += growth
            f[f"denseblock{stage}"] = block
            if stage < 4:
                f[f"transition{stage}"] = nn.ModuleDict(
                    {"norm": nn.BatchNorm2d(channels), "conv": conv(channels, channels // 2, 1)}
                )
                channels //= 2
        f["norm5"] = nn.BatchNorm2d(channels)
        self.classifier = nn.Linear(channels, 10)

    def forward(self, x):
        f = self.features
        x = functional.max_pool2d(torch.relu(f["norm0"](f["conv0"](x))), 3, 2, 1)
        for stage in range(1, 5):
            for layer in f[f"denseblock{stage}"].values():
                inner = layer["conv1"](torch.relu(layer["norm1"](x)))
                x = torch.cat([x, layer["conv2"](torch.relu(layer["norm2"](inner)))], 1)
            if stage < 4:
                t = f[f"transition{stage}"]
                x = functional.avg_pool2d(t["conv"](torch.relu(t["norm"](x))), 2)
        return torch.relu(f["norm5"](x)).mean(dim=(2, 3))


def convnext_weights(width):
    """Random weights under the usual names of ConvNeXt-T."""
    shapes = {"features.0.0.weight": (width, 3, 4, 4), "features.0.0.bias": (width,)}
    shapes |= {f"features.0.1.{x}": (width,) for x in ("weight", "bias")}
    for stage, depth in enumerate((3, 3, 9, 3)):
        c, place = width * 2**stage, 2 * stage + 1
        if stage:
            shapes |= {f"features.{place - 1}.0.{x}": (c // 2,) for x in ("weight", "bias")}
            shapes |= {f"features.{place - 1}.1.weight": (c, c // 2, 2, 2), f"features.{place - 1}.1.bias": (c,)}
        for i in range(depth):
            own = f"features.{place}.{i}"
            shapes |= {f"{own}.layer_scale": (c, 1, 1), f"{own}.block.0.weight": (c, 1, 7, 7)}
            shapes |= {f"{own}.block.{k}.bias": (c,) for k in (0, 2, 5)} | {f"{own}.block.2.weight": (c,)}
            shapes |= {f"{own}.block.3.weight": (4 * c, c), f"{own}.block.3.bias": (4 * c,)}
            shapes |= {f"{own}.block.5.weight": (c, 4 * c)}
    shapes |= {"classifier.0.weight": (8 * width,), "classifier.2.weight": (10, 8 * width)}
    return {name: torch.randn(shape) * 0.2 for name, shape in shapes.items()}


def convnext(w, x):
    """Mean of the last map, by the formulas."""

    def norm(x, name):
        mean, var = x.mean(1, keepdim=True), x.var(1, keepdim=True, correction=0)
        normed = (x - mean) / (var + 1e-6).sqrt()
        return normed * w[f"{name}.weight"][:, None, None] + w[f"{name}.bias"][:, None, None]

    x = norm(functional.conv2d(x, w["features.0.0.weight"], w["features.0.0.bias"], 4), "features.0.1")
    for stage, depth in enumerate((3, 3, 9, 3)):
        place = 2 * stage + 1
        if stage:
            x = norm(x, f"features.{place - 1}.0")
            x = functional.conv2d(x, w[f"features.{place - 1}.1.weight"], w[f"features.{place - 1}.1.bias"], 2)
        for i in range(depth):
            own = f"features.{place}.{i}"
            inner = functional.conv2d(x, w[f"{own}.block.0.weight"], w[f"{own}.block.0.bias"], 1, 3, 1, x.shape[1])
            inner = norm(inner, f"{own}.block.2")
            for k in (3, 5):
                inner = torch.einsum("oc,nchw->nohw", w[f"{own}.block.{k}.weight"], inner)
                inner = inner + w[f"{own}.block.{k}.bias"][:, None, None]
                inner = functional.gelu(inner) if k == 3 else inner
            x = x + w[f"{own}.layer_scale"] * inner
    return x.mean(dim=(2, 3))


def drawn(net):
    """Random weights of a size that keeps the signal, and statistics that are not 0 and 1."""
    for name, value in net.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2)
        elif value.ndim > 1:
            nn.init.kaiming_normal_(value)
        elif value.is_floating_point():
            value.normal_(1.0 if name.endswith("weight") else 0.0, 0.2)
    return net.eval()


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("resnet18", lambda: ResNet((2, 2, 2, 2), width=8)),
        ("resnet34", lambda: ResNet((3, 4, 6, 3), width=8)),
        ("resnet50", lambda: ResNet((3, 4, 6, 3), True, width=8)),
        ("densenet121", lambda: DenseNet(16)),
    ],
)
def test_features_are_those_of_a_plain_network(name, plain):
    oracle, image = drawn(plain().double()), torch.rand(2, 3, 64, 96).double()
    net = backbones[name](3, width=16 if name == "densenet121" else 8).double()
    used, unused = load_weights(net, oracle.state_dict())
    assert {n.split(".")[0] for n in unused if not n.endswith("num_batches_tracked")} <= {"fc", "classifier"}
    with torch.no_grad():
        expected = oracle(image)
        for mode in (True, False):  # statistics stay as they are in training too
            maps = net.train(mode)(image)
            assert [m.shape[1] for m in maps] == net.out_channels
            torch.testing.assert_close(maps[-1].mean(dim=(2, 3)), expected, rtol=1e-5, atol=1e-5)
    assert set(used) == set(net.state_dict())
    image = image[..., :48, :40]
    assert torch.allclose(net(image)[-1][:1], net(image[:1])[-1], atol=1e-4)


def test_convnext_features_are_those_of_its_formulas():
    weights = convnext_weights(8)
    net, image = backbones["convnext_tiny"](3, width=8), torch.rand(2, 3, 64, 96)
    _, unused = load_weights(net, weights)
    assert unused == ["classifier.0.weight", "classifier.2.weight"]
    with torch.no_grad():
        torch.testing.assert_close(net(image)[-1].mean(dim=(2, 3)), convnext(weights, image), rtol=1e-4, atol=1e-5)


FORMS = {
    "plain": lambda w: w,
    "in a container": lambda w: {"epoch": 3, "state_dict": {f"module.{k}": v for k, v in w.items()}},
    "behind prefixes": lambda w: {f"module.encoder.{k}": v for k, v in w.items()},
    "numbered": lambda w: {
        "backbone." + ".".join([str(["conv1", "bn1", "", "", "layer1", "layer2", "layer3", "layer4"].index(p)), *r]): v
        for k, v in w.items()
        for p, *r in [k.split(".")]
        if p != "fc"
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_files_of_every_form_are_understood(form):
    weights = drawn(ResNet((2, 2, 2, 2), width=8)).state_dict()
    net = backbones["resnet18"](1, width=8)
    used, _ = load_weights(net, FORMS[form](weights))
    assert torch.equal(net.layer3[1].conv2.weight, weights["layer3.1.conv2.weight"])
    assert torch.equal(net.bn1.running_mean, weights["bn1.running_mean"])
    assert len(set(used.values())) == len(net.state_dict())


def test_densenet_files_of_every_form_are_understood():
    weights = drawn(DenseNet(16)).state_dict()
    old = {re.sub(r"(denselayer\d+\.)(norm|conv)([12])", r"\1\2.\3", name): v for name, v in weights.items()}
    numbered = {k.replace("features.", "backbone.0."): v for k, v in weights.items() if "classifier" not in k}
    for form in (old, numbered):
        net = backbones["densenet121"](1, width=16)
        load_weights(net, form)
        assert torch.equal(
            net.features.denseblock2.denselayer3.conv2.weight, weights["features.denseblock2.denselayer3.conv2.weight"]
        )


@pytest.mark.parametrize("in_channels", [1, 5])
def test_the_first_convolution_answers_equal_channels_as_on_imagenet(in_channels):
    weights, net = drawn(ResNet((2, 2, 2, 2), width=8)).state_dict(), backbones["resnet18"](in_channels, width=8)
    load_weights(net, weights)
    grey = torch.rand(1, 1, 20, 20)
    expected = functional.conv2d(grey.repeat(1, 3, 1, 1), weights["conv1.weight"], stride=2, padding=3)
    assert torch.allclose(net.conv1(grey.repeat(1, in_channels, 1, 1)), expected, atol=1e-5)


def test_weights_that_do_not_fit_are_refused_by_name():
    weights = drawn(ResNet((2, 2, 2, 2), width=8)).state_dict()
    with pytest.raises(ValueError, match=r"'conv1.weight' has shape \(8, 3, 7, 7\) .* \(16, 1, 7, 7\).*width"):
        load_weights(backbones["resnet18"](width=16), weights)
    with pytest.raises(ValueError, match="lack 'layer1.2.conv1.weight', which ResNet34Backbone needs"):
        load_weights(backbones["resnet34"](width=8), weights)
    with pytest.raises(ValueError, match=r"\['layer1.1.*has no layers; they are those of another, deeper network"):
        load_weights(backbones["resnet10"](width=8), weights)
    with pytest.raises(ValueError, match="lack 'stem.weight', which AntialiasedBackbone needs"):
        load_weights(backbones["antialiased"](), weights)
    volumes = {k: v[:, :, None] if v.ndim == 4 else v for k, v in weights.items()}
    with pytest.raises(ValueError, match=r"'conv1.weight' has shape \(8, 3, 1, 7, 7\)"):
        load_weights(backbones["resnet18"](width=8), volumes)


# -- through the encoder -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cohort():
    X, y = make_nsclc_cohort(24, n_slices=2, image_size=32, return_X_y=True, random_state=0)
    return X[["lesion_image", "clinical_age"]], y


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_an_encoder_starts_from_a_file_and_says_so(cohort, tmp_path, suffix):
    X, y = cohort
    oracle, path = drawn(ResNet((2, 2, 2, 2))), tmp_path / f"weights.{suffix}"
    (torch.save if suffix == "pt" else save_file)(oracle.state_dict(), path)
    encoder = SliceEncoder(backbone="resnet18", weights=path, trainable=False, trainer=Trainer(max_epochs=1))
    encoder.set_params(standardize=False, random_state=0).fit(X[["lesion_image"]], y[["subtype"]])
    image = torch.rand(3, 1, 64, 64)
    with torch.no_grad():
        found, expected = encoder.network_.features(image), oracle(image.expand(-1, 3, -1, -1))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    origin = encoder.weights_origin_
    assert origin.path == str(path) and origin.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert origin.used["layer1.0.conv1.weight"] == "layer1.0.conv1.weight" and "fc.weight" in origin.unused
    again = pickle.loads(pickle.dumps(encoder))
    np.testing.assert_array_equal(again.transform(X), encoder.transform(X))
    assert again.weights_origin_ == origin


def test_a_model_learns_from_weights_of_a_file(cohort, tmp_path):
    X, y = cohort
    torch.save(drawn(ResNet((2, 2, 2, 2), width=8)).state_dict(), tmp_path / "small.pt")
    model = MMDLS(trainer=Trainer(max_epochs=2), random_state=0)
    model.set_params(image_encoder__backbone="resnet18", image_encoder__backbone__width=8)
    model.set_params(image_encoder__weights=tmp_path / "small.pt").fit(X, y)
    backbone = model._network.first.encoders["lesion"].backbone
    start = torch.load(tmp_path / "small.pt")
    assert torch.equal(backbone.bn1.running_mean, start["bn1.running_mean"])
    assert not torch.equal(backbone.conv1.weight, start["conv1.weight"].sum(dim=1, keepdim=True))
    assert backbone.weights_origin.path == str(tmp_path / "small.pt")
    save(model, tmp_path / "model")
    (tmp_path / "small.pt").unlink()
    again = load(tmp_path / "model")
    np.testing.assert_array_equal(again.transform(X), model.transform(X))
    assert again._network.first.encoders["lesion"].backbone.weights_origin == backbone.weights_origin


def test_files_that_hold_no_weights_are_refused(cohort, tmp_path):
    X, y = cohort

    def fit(path):
        SliceEncoder(backbone="resnet10", weights=path).fit(X[["lesion_image"]], y)

    with pytest.raises(FileNotFoundError, match="correct weights, or use None"):
        fit(tmp_path / "none.pt")
    torch.save(nn.Linear(2, 2), tmp_path / "code.pt")
    (tmp_path / "text.pt").write_text("hello")
    (tmp_path / "text.safetensors").write_text("hello")
    for name in ("code.pt", "text.pt", "text.safetensors"):
        with pytest.raises(ValueError, match="cannot be read as weights: it must hold tensors only"):
            fit(tmp_path / name)
    torch.save([torch.ones(2)], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="must hold a state dict; got list"):
        fit(tmp_path / "list.pt")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state["conv1.weight"].fill_(torch.nan), "'conv1.weight' holds NaN or infinity"),
        (
            lambda state: state["layer4.0.conv2.weight"].view(-1)[:1].fill_(torch.inf),
            "conv2.weight' holds NaN",
        ),
        (lambda state: state["bn1.running_var"].neg_(), "'bn1.running_var' holds a variance below 0"),
        (lambda state: state.update({"bn1.weight": torch.ones(8).long()}), "must be a dense tensor of torch.float32"),
        (lambda state: state.update({"conv1.weight": state["conv1.weight"].to_sparse()}), "got .* torch.sparse_coo"),
        (lambda state: state.update({"conv1.weight": torch.ones(8, 0, 7, 7)}), r"has shape \(8, 0, 7, 7\)"),
        (lambda state: state.update({"conv1.weight": torch.tensor(1.0)}), r"has shape \(\)"),
        (lambda state: state.update({3: torch.ones(1)}), r"got the names \[3\]"),
        (lambda state: state.clear(), r"got no tensor under \[\]"),
    ],
)
def test_weights_that_no_training_can_start_from_are_refused(tmp_path, change, said):
    state = ResNet((1, 1, 1, 1), width=8).state_dict()
    change(state)
    torch.save(state, tmp_path / "odd.pt")
    with pytest.raises(ValueError, match=said):
        start_from_file(backbones["resnet10"](in_channels=1, width=8), tmp_path / "odd.pt", "weights")


def test_a_file_that_ends_too_soon_is_no_file_of_weights(tmp_path):
    save_file(ResNet((1, 1, 1, 1), width=8).state_dict(), tmp_path / "whole.safetensors")
    whole = (tmp_path / "whole.safetensors").read_bytes()
    for name, content in (("half.safetensors", whole[: len(whole) // 2]), ("no.safetensors", b""), ("no.pt", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=r"cannot be read as weights: .* write them \(\w+.*\)"):
            start_from_file(backbones["resnet10"](in_channels=1, width=8), tmp_path / name, "weights")


# -- networks of MONAI -------------------------------------------------------------------------------------------------


class TwoStages(nn.Module):
    """As MONAI's classifiers are: a sequence of stages, and a head."""

    def __init__(self, spatial_dims, in_channels, num_classes, width=4, pretrained=True):
        super().__init__()
        assert not pretrained, "nothing is downloaded unless asked for"
        conv, norm = (nn.Conv2d, nn.BatchNorm2d) if spatial_dims == 2 else (nn.Conv3d, nn.BatchNorm3d)
        self.features = nn.Sequential(conv(in_channels, width, 3, 2, 1), norm(width), conv(width, 2 * width, 3, 2, 1))
        self.head = nn.Linear(2 * width, num_classes)

    def forward(self, image):
        return self.head(self.features(image).flatten(2).mean(dim=2))


class Headless(nn.Flatten):
    def __init__(self, spatial_dims, in_channels):
        super().__init__()


class Stages(nn.Sequential):
    """Halves images of at least 8 pixels, once for each of the channels, which must be given."""

    def __init__(self, spatial_dims, in_channels, channels):
        widths = [in_channels, *channels]
        layers = [
            nn.Sequential(nn.Conv2d(*pair, 3, padding=1), nn.MaxPool2d(2))
            for pair in zip(widths, channels, strict=False)
        ]
        super().__init__(*layers, nn.Flatten(2), nn.Linear(64, 1))

    def forward(self, image):
        for stage in list(self)[:-2]:
            image = stage(image)
        return image


@pytest.fixture
def monai(monkeypatch):
    nets = types.ModuleType("monai.networks.nets")
    nets.TwoStages, nets.Headless, nets.Stages = TwoStages, Headless, Stages
    nets.two_stages = lambda **params: TwoStages(**params)
    networks, package = types.ModuleType("monai.networks"), types.ModuleType("monai")
    networks.nets, package.networks = nets, networks
    for module in (package, networks, nets):
        monkeypatch.setitem(sys.modules, module.__name__, module)


def test_networks_of_monai_are_backbones_by_name(monai, cohort):
    X, y = cohort
    net = backbones["monai:TwoStages"](in_channels=1)
    assert net.out_channels == [4, 8]
    assert not [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert not net.net.head.weight.requires_grad  # the features leave it out
    check_backbone(lambda in_channels: MonaiBackbone("TwoStages", in_channels))
    volume = torch.rand(2, 1, 8, 16, 16)
    maps = MonaiBackbone("TwoStages", spatial_dims=3, width=2)(volume)
    assert [tuple(m.shape[1:]) for m in maps] == [(2, 4, 8, 8), (4, 2, 4, 4)]
    volumes = VolumeEncoder(volume_size=8, trainer=Trainer(max_epochs=1)).set_params(backbone="monai:TwoStages")
    volumes.set_params(backbone__width=6, spacing=(5, 1, 1)).fit(X[["lesion_image"]], y[["subtype"]])
    assert volumes.network_.backbone.net.features[0].weight.shape == (6, 1, 3, 3, 3)
    model = MMDLS(trainer=Trainer(max_epochs=1), random_state=0).set_params(image_encoder__backbone="monai:TwoStages")
    model.set_params(image_encoder__backbone__width=6).fit(X, y[["subtype"]])
    assert model._network.first.encoders["lesion"].backbone.out_channels == [6, 12]
    assert not [name for name in backbones if ":" in name] and "monai:TwoStages" in backbones
    with pytest.raises(KeyError, match="no 'TwoStage'; names are written as there"):
        backbones["monai:TwoStage"]()
    with pytest.raises(KeyError, match="no 'two_stages'.*Did you mean 'TwoStages'"):
        backbones["monai:two_stages"]()
    with pytest.raises(ValueError, match="no part of MONAI's Headless gives feature maps"):
        backbones["monai:Headless"]()


def test_memory_that_runs_out_in_a_network_of_monai_is_said_as_it_is(monai, monkeypatch):
    """Training then takes fewer images at once, which it does not where a size is refused."""
    net = backbones["monai:Stages"](channels=(4, 6, 8))

    def full(image):
        raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes.")

    monkeypatch.setattr(net, "_outputs", full)
    with pytest.raises(RuntimeError, match="^DefaultCPUAllocator: not enough memory"):
        net(torch.rand(2, 1, 64, 64))


def test_networks_of_monai_have_as_many_maps_in_small_images(monai):
    """A last map of one pixel is a map, though what gives one pixel of any image is none."""
    with pytest.raises(ValueError, match=r"needs \['channels'\]; give them as in Part\('monai:Stages', channels=...\)"):
        backbones["monai:Stages"]()
    net = backbones["monai:Stages"](channels=(4, 6, 8))
    assert net.out_channels == [4, 6, 8, 8]
    for side in (64, 16, 8):
        assert [m.shape[1:] for m in net(torch.rand(2, 1, side, side))] == [
            (channels, side // k, side // k) for channels, k in zip((4, 6, 8, 8), (1, 2, 4, 8), strict=True)
        ]
    with pytest.raises(ValueError, match="MONAI's Stages cannot read images of 4 x 4: .*Choose larger images"):
        net(torch.rand(2, 1, 4, 4))


def test_without_monai_it_is_said_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "monai", None)
    with pytest.raises(ImportError, match=r'pip install "mmdls\[monai\]"'):
        backbones["monai:ResNet"]()
    with pytest.raises(KeyError, match="backbones has no 'other:ResNet'"):
        backbones["other:ResNet"]
