"""Heat of an image is where the answer comes from, and sums to what it should."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch

from mmdls import MMDLS, Trainer
from mmdls.explain import explain_image
from mmdls.explain._image import _Answer, _reader
from mmdls.training._two_pass import pack

SIZE = 48


def discs(n, seed=0):
    """Slices with a disc at a random place; its texture, and nothing else, tells the class."""
    rng = np.random.default_rng(seed)
    grid = np.mgrid[:SIZE, :SIZE]
    rough = rng.integers(0, 2, n).astype(bool)
    images, masks = [], []
    for grain in np.where(rough, 0.2, 0.03):
        radius = rng.uniform(9, 12, 2)
        centre = np.stack([rng.uniform(r + 1, SIZE - r - 1, 2) for r in radius])
        mask = ((grid - centre[:, :, None, None]) ** 2).sum(axis=1) < radius[:, None, None] ** 2
        image = rng.normal(0.3, 0.03, mask.shape) + mask * (0.15 + grain * rng.normal(size=mask.shape))
        images.append((np.clip(image, 0, 1) * 255).astype(np.uint8))
        masks.append(mask)
    index = [f"P{i}" for i in range(n)]
    X = pd.DataFrame({"clinical_age": rng.normal(60, 9, n), "ct_image": pd.Series(images)}).set_axis(index)
    return X, pd.DataFrame({"grain": np.where(rough, "rough", "fine")}, index), masks


def learn(seed):
    X, y, masks = discs(110, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = MMDLS(trainer=Trainer(max_epochs=12), n_members=2, random_state=seed).fit(X[:90], y[:90])
    return model, X[90:], y[90:], masks[90:]


def shares_inside(study, **how):
    """Share of the heat inside the lesions of six patients who were not learned from."""
    model, X, y, masks = study
    rough = np.flatnonzero(y["grain"] == "rough")[:6]
    assert np.mean([masks[i].mean() for i in rough]) < 0.2
    return [explain_image(model, X.iloc[[i]], "grain", target="rough", **how).share_inside(masks[i]) for i in rough]


@pytest.fixture(scope="module")
def study():
    return learn(0)


@pytest.mark.parametrize(("method", "least"), [("grad_cam", 0.6), ("hires_cam", 0.7), ("integrated_gradients", 0.6)])
def test_most_of_the_heat_is_in_the_lesion_where_the_signal_is(study, method, least):
    assert np.mean(shares_inside(study, method=method, n_steps=16)) > least


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_most_of_the_heat_is_in_the_lesion_whatever_the_network(seed):
    assert np.mean(shares_inside(learn(seed))) > 0.6  # Grad-CAM: .41, .64, .37, .68


def reader_of(model, network, target, task="grain"):
    return _reader(model.tasks_[task], network.head(task), target)


def answers_of(model, X_row, target, task="grain"):
    """What the members say, of the row and of a blank image."""
    inputs = model._inputs(X_row)
    found = []
    for network in model.net_.module_.networks:
        with torch.no_grad():
            packed = pack(network, inputs, torch.tensor([0]), model._trainer.compute())
            packed = {k: tuple(t.double() if t.is_floating_point() else t for t in v) for k, v in packed.items()}
            answer = _Answer(network, "ct", packed, inputs.present, task, reader_of(model, network, target, task))
            slices = inputs.data["ct"].read(np.arange(2))[None]
            both = torch.cat([slices, torch.full_like(slices, network.encoders["ct"].mean)])
            found.append(answer(both).numpy())
    return np.mean(found, axis=0)


def test_integrated_gradients_sum_to_the_difference_of_two_answers(study):
    model, X, _, _ = study
    row = X.iloc[[np.argmax(model.predict_proba(X, "grain")[:, 1])]]
    explained = explain_image(model, row, "grain", target="rough", method="integrated_gradients", n_steps=64)
    image, blank = answers_of(model, row, "rough")
    assert explained.heat.sum() == pytest.approx(image - blank, rel=0.03, abs=0.002)
    assert abs(image - blank) > 0.05


@pytest.mark.parametrize("head", ["cause_specific_cox", "deephit"])
def test_of_competing_risks_the_months_lost_to_one_cause_are_explained(head):
    X, y, _ = discs(60)
    draw = np.random.default_rng(0)
    y = pd.DataFrame({"death_time": draw.uniform(1, 60, 60), "death_cause": draw.integers(0, 3, 60)}, y.index)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = MMDLS(heads={"death": head}, trainer=Trainer(max_epochs=3), n_members=2, random_state=0).fit(X, y)
    for cause in (1, 2):
        how = {"target": cause, "method": "integrated_gradients", "n_steps": 64}
        explained = explain_image(model, X[:1], "death", **how)
        image, blank = answers_of(model, X[:1], cause, "death")
        assert explained.target == cause
        assert explained.heat.sum() == pytest.approx(image - blank, rel=0.05, abs=1e-3)
        assert abs(image - blank) > 1e-3
    maps = [explain_image(model, X[:1], "death", target=cause).heat for cause in (1, 2)]
    assert not np.allclose(*maps, rtol=0.01)
    for wrong in (None, 3, "cancer"):
        with pytest.raises(ValueError, match=r"one of the causes \[1, 2\] of 'death'"):
            explain_image(model, X[:1], "death", target=wrong)


def test_a_target_that_a_task_does_not_have_is_refused():
    X, y, _ = discs(30)
    y = pd.DataFrame({"os_time": np.linspace(1, 30, 30), "os_event": True}, y.index)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = MMDLS(trainer=Trainer(max_epochs=1), n_members=2, random_state=0).fit(X, y)
    assert explain_image(model, X[:1], "os").target == "risk"
    with pytest.raises(ValueError, match="'os' has neither classes nor causes: leave target out; got 'IV'"):
        explain_image(model, X[:1], "os", target="IV")


def test_on_the_last_map_grad_cam_is_captums(study):
    attr = pytest.importorskip("captum.attr")
    model, X, _, _ = study
    own = explain_image(model, X[:1], "grain", target="rough", level=-1).heat
    sharper = explain_image(model, X[:1], "grain", target="rough", level=-1, method="hires_cam").heat
    np.testing.assert_allclose(own, sharper, atol=1e-7)
    finer = [explain_image(model, X[:1], "grain", level=0, method=way).heat for way in ("grad_cam", "hires_cam")]
    assert not np.allclose(*finer, rtol=0.01), "on finer maps each pixel has a weight of its own"
    inputs, total = model._inputs(X[:1]), 0

    class LastMap(torch.nn.Module):
        def __init__(self, backbone):
            super().__init__()
            self.backbone, self.tap = backbone, torch.nn.Identity()

        def forward(self, items):
            return [self.tap(self.backbone(items)[-1])]

    for network in model.net_.module_.networks:
        packed = {
            k: tuple(t.double() if t.is_floating_point() else t for t in v)
            for k, v in pack(network, inputs, torch.tensor([0]), model._trainer.compute()).items()
        }
        encoder = network.encoders["ct"]
        before, encoder.backbone = encoder.backbone, LastMap(encoder.backbone)
        answer = _Answer(network, "ct", packed, inputs.present, "grain", reader_of(model, network, "rough"))
        slices = inputs.data["ct"].read(np.arange(2))[None].requires_grad_()
        cam = attr.LayerGradCam(answer, encoder.backbone.tap).attribute(slices, relu_attributions=True)
        encoder.backbone = before
        total = total + attr.LayerAttribution.interpolate(cam, (SIZE, SIZE), "bilinear")[:, 0].detach().numpy() / 2
    np.testing.assert_allclose(own, total, atol=1e-6)


def test_the_model_stays_as_it_is_and_the_figure_shows_the_hottest_slices(study):
    model, X, _, _ = study
    before = model.predict_proba(X, "grain")
    gradients = [None if w.grad is None else w.grad.clone() for w in model.net_.module_.parameters()]
    explained = explain_image(model, X[:1], "grain")
    np.testing.assert_array_equal(before, model.predict_proba(X, "grain"))
    for weight, gradient in zip(model.net_.module_.parameters(), gradients, strict=True):
        assert (weight.grad is None) == (gradient is None) and (gradient is None or weight.grad.equal(gradient))
    assert explained.target == model.predict(X[:1])["grain"].iloc[0]
    assert explained.slices.shape == explained.heat.shape == (2, SIZE, SIZE) and (explained.heat >= 0).all()
    figure = explained.plot(n_slices=1)
    assert len(figure.axes) == 2  # a slice and the scale
    assert figure.axes[0].get_title() == f"slice {np.argmax(explained.heat.sum(axis=(1, 2))) + 1} of 2"
    assert "patient P90" in figure.get_suptitle() and "HiResCAM" in figure.get_suptitle()
    assert figure.axes[1].get_ylabel() == "heat, share of the largest"
    heat = figure.axes[0].images[1]
    assert heat.get_clim() == (0, 1)
    assert (heat.get_alpha()[heat.get_array() < 0.15] == 0).all()  # the picture below stays as it is


def test_the_lesion_is_outlined_where_its_mask_has_the_pixels_of_the_image(study):
    model, X, _, masks = study
    X = X[:1]
    assert explain_image(model, X, "grain").mask is None
    own = X.assign(lesion_mask=pd.Series(masks[:1], index=X.index))
    found = explain_image(model, own, "grain")
    np.testing.assert_array_equal(found.mask, masks[0])
    figure = found.plot(n_slices=1)
    assert figure.axes[0].collections and "outline" in figure.get_suptitle()
    assert not explain_image(model, X, "grain").plot(n_slices=1).axes[0].collections
    other = X.assign(lesion_mask=pd.Series([masks[0][:, :40]], index=X.index))
    assert explain_image(model, other, "grain").mask is None
    with pytest.raises(ValueError, match="both need the same slices and pixels"):
        explain_image(model, other, "grain", mask="lesion_mask")
    with pytest.raises(ValueError, match="column where the patient has a mask"):
        explain_image(model, X, "grain", mask="lesion_mask")
    several = X.assign(lesion_mask=pd.Series([masks[0] * np.arange(1, 1 + masks[0].shape[-1])], index=X.index))
    with pytest.raises(ValueError, match=r"Read it with mmdls\.images\.read_mask.*give it to plot\(mask=.*label=1"):
        explain_image(model, several, "grain", mask="lesion_mask")
    with pytest.raises(ValueError, match="mask must have the shape"):
        found.plot(mask=masks[0][:1])


def test_what_cannot_be_explained_is_refused_with_a_cure(study):
    model, X, _, masks = study
    with pytest.raises(KeyError, match=r"task must be one of \['grain'\]"):
        explain_image(model, X[:1], "os")
    with pytest.raises(ValueError, match="table of one patient"):
        explain_image(model, X, "grain")
    with pytest.raises(ValueError, match="method must be one of"):
        explain_image(model, X[:1], "grain", method="saliency")
    with pytest.raises(ValueError, match=r"image must name a modality of slices that the patient has: \[\]"):
        explain_image(model, X[:1].assign(ct_image=None), "grain")
    with pytest.raises(ValueError, match="target must be one of the classes"):
        explain_image(model, X[:1], "grain", target="coarse")
    with pytest.raises(ValueError, match="one of the 3 maps"):
        explain_image(model, X[:1], "grain", level=3)
    with pytest.raises(ValueError, match="mask must have the shape"):
        explain_image(model, X[:1], "grain").share_inside(masks[0][:1])
