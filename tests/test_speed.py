"""The benchmark of speed measures what it says; the speeds themselves are no matter for a test."""

import argparse
import importlib.util
import shutil

import numpy as np
import pytest
import torch

from benchmarks.speed import __main__ as command
from benchmarks.speed import _cox, _machine, _measuring, _network, _report, _runtimes
from mmdls.modules import cox_loss


def holds(device, megabytes, seconds=0.0):
    """A variant of known memory and time."""
    import time

    def step():
        block = np.ones(megabytes * 10**6, dtype=np.uint8)
        time.sleep(seconds)
        return {"sum": block[:1].astype(float)}

    return step


@pytest.mark.slow
def test_arms_are_measured_in_processes_of_their_own():
    variants = {
        "small": _measuring.Variant(holds, {"megabytes": 1}),
        "large": _measuring.Variant(holds, {"megabytes": 300, "seconds": 0.2}),
    }
    found = _measuring.measure(variants, repeats=2, device="cpu", threads=1)
    assert 250 < found["large"].peak - found["small"].peak < 350
    assert 250 < found["large"].added < 350 and found["small"].added < 50
    assert len(found["large"].seconds) == 2 and min(found["large"].seconds) >= 0.2
    row = _measuring.compared("x", "hold memory", "small", "large", found, 1.0)
    assert row.ratio > 1 and row.reached
    assert not _measuring.compared("x", "hold memory", "large", "small", found, 1.0).reached
    assert _measuring.difference(found["small"].answer, found["large"].answer) == "equal"


def sleeps_now_and_then(device):
    """A step of which every fourth call takes 0.2 seconds."""
    import time

    called = iter(range(1000))
    return lambda: time.sleep(0.2 * (next(called) % 4 == 0))


def test_short_steps_are_called_many_times_in_a_turn():
    variants = {"step": _measuring.Variant(sleeps_now_and_then, calls=4)}
    found = _measuring.measure(variants, repeats=3, device="cpu", threads=1)["step"]
    assert len(found.seconds) == 3 and all(0.05 <= seconds < 0.1 for seconds in found.seconds)


def test_differences_are_those_of_whole_answers():
    answer = {"a": np.array([3.0, 0.0]), "b": np.array([4.0])}
    assert _measuring.difference({"a": np.array([3.0, 0.05]), "b": np.array([4.0])}, answer) == "equal to 1e-02"


@pytest.mark.parametrize("job", ["predicts", "trains"])
def test_both_sides_do_the_same_job(job):
    """Predictions and gradients of the plain loop, dropout included, are ours."""
    size = {"n_patients": 3, "n_slices": 2, "size": 16}
    with torch.random.fork_rng():
        ours, plain = (getattr(_network, f"{side}_{job}")("cpu", **size)() for side in ("ours", "plain"))
    assert ours.keys() >= plain.keys() and len(plain) >= 6
    apart = np.sqrt(sum(np.square(ours[name] - plain[name]).sum() for name in plain))
    assert apart < 1e-5 * np.sqrt(sum(np.square(part).sum() for part in plain.values()))


def test_the_formulas_of_others_are_theirs():
    log_hazard, event, time = _cox._survival_data(400)
    assert cox_loss(log_hazard, event, time).item() == pytest.approx(
        _cox.quadratic_cox(log_hazard, event, time).item(), rel=1e-10
    )
    assert len(time.unique()) < 400, "there are ties"
    time = torch.arange(400.0)
    assert _cox.pycox_formula(log_hazard, event, time).item() == pytest.approx(
        cox_loss(log_hazard, event, time).item(), rel=1e-6
    )


def test_the_useful_arithmetic_is_that_of_three_passes():
    """A forward pass and two gradients of the published convolutions; the first layer's input needs no gradient."""
    with torch.random.fork_rng():
        per_pixel = _machine._flops_a_pixel()
    first, second = 2 * 9 * 32, 2 * 9 * 32 * 64
    assert per_pixel == pytest.approx(2 * first + 3 * second, rel=0.05)


def test_the_arithmetic_of_a_prediction_is_that_of_its_convolutions():
    """Pooling, fusion and heads are a small rest; patients count alike."""
    size = {"n_slices": 2, "size": 64, "model": "published"}
    slices = 2 * 2 * 64**2 * (2 * 9 * 32 + 2 * 9 * 32 * 64)
    with torch.random.fork_rng():
        assert _machine._predicted_flops(n_patients=3, **size) == pytest.approx(3 * slices, rel=0.05)
        default = _machine._predicted_flops(n_patients=3, **{**size, "model": "default"})
    assert 0 < default < 0.05 * 3 * slices


@pytest.mark.parametrize("runtime", list(_runtimes._NEEDS))
def test_other_runtimes_give_the_same_predictions(runtime, monkeypatch):
    if _runtimes._lacking(runtime):
        pytest.skip(_runtimes._lacking(runtime))
    if runtime == "torch.compile":  # what is compiled is torch's matter, and takes a minute
        monkeypatch.setattr(torch, "compile", lambda encoder: encoder)
    size = {"n_patients": 3, "n_slices": 2, "size": 16}
    with torch.random.fork_rng():
        ours = _network.ours_predicts("cpu", **size)()
        theirs = [_runtimes.runtime_predicts("cpu", runtime, at_once, **size)() for at_once in (1, 2)]
    for answer in theirs:
        assert answer.keys() == ours.keys()
        for name in ours:
            np.testing.assert_allclose(answer[name], ours[name], rtol=1e-4, atol=1e-5)


def test_runtimes_that_are_not_here_are_left_out_with_the_reason(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    options = argparse.Namespace(device="cpu", quick=True, repeats=1, threads=1)
    report = _report.Report(options)
    _runtimes.other_runtimes(options, report)
    assert not report.rows and len(report.lines) == 3
    for line, reason in zip(report.lines, ("onnxruntime, onnxscript not", "openvino not", "no C++ comp"), strict=True):
        assert f"is left out: {reason}" in line


@pytest.mark.slow
def test_the_command_writes_a_table(tmp_path):
    out = tmp_path / "speed.md"
    command.main(["--quick", "--repeats", "1", "--threads", "1", "--only", "loading", "cox", "--out", str(out)])
    text = out.read_text()
    assert "not run on a GPU" in text and "torch" in text
    assert text.count("\n| d |") >= 3 and text.count("\n| e |") == 3
