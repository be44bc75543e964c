"""Fresh measurements against a predictor, on a made-up machine that may be slower than when it was profiled."""

from __future__ import annotations

import json
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest

from inas_deploy import latency_check
from inas_deploy.latency_check import check_on_device
from search.latency.pace import Reference
from search.latency.predictor import LatencyPredictor
from tests.search.latency.fitted import blocks, drawn, network_ms
from tests.targets.making import ARTIFACT, session

pytest.importorskip("torch")
pytest.importorskip("safetensors")


class Machine:
    """Runs all networks slower by a factor; the reference takes turns where it can."""

    def __init__(self, factor, takes_turns):
        self.factor, self.takes_turns = factor, takes_turns

    def run_session(self, job):
        found = session(job.index, float(job.artifact.path) * self.factor)
        if job.reference is None or not self.takes_turns:
            return found
        return found.model_copy(update={"reference_ns": (int(float(job.reference.path) * self.factor * 1e6),) * 20})


def checked(monkeypatch, factor, *, takes_turns=True, reference=True):
    """The verdict of a check on a machine slower by a factor than that of the predictor."""
    arch = drawn(1, 7)[0]
    usual = Reference(arch=json.loads(arch.to_json()), latency_ms=network_ms(arch)) if reference else None
    measured = [(one, network_ms(one)) for one in drawn(40, 0)]
    predictor = LatencyPredictor.fit(blocks(), measured[:8], measured[8:], repeatability=0.01, reference=usual)

    def artifact(one):
        return ARTIFACT.model_copy(update={"path": str(network_ms(one))})

    @contextmanager
    def opened(devices, store, *, wait_s):
        yield {"local": Machine(factor, takes_turns)}

    monkeypatch.setattr(latency_check, "opened", opened)
    monkeypatch.setattr(latency_check, "opset_of", lambda device: None)
    monkeypatch.setattr(latency_check, "Exporter", lambda files: nullcontext(SimpleNamespace(artifact=artifact)))
    return check_on_device(predictor, 6, 0, "local", None, "", 0.0)


@pytest.mark.parametrize(("factor", "said"), [(1.25, "25.0% slower"), (0.8, "20.0% faster")])
def test_the_machines_speed_is_taken_off_and_said(monkeypatch, factor, said):
    found = checked(monkeypatch, factor)
    assert found.status == "fresh"
    assert found.shift == pytest.approx(0, abs=0.02)
    assert f"By the reference network the machine is {said} than when it was profiled" in found.sentence
    assert "\n" not in found.sentence


@pytest.mark.parametrize("how", [{"takes_turns": False}, {"reference": False}])
def test_without_turns_a_slower_machine_makes_it_stale(monkeypatch, how):
    found = checked(monkeypatch, 1.25, **how)
    assert found.status == "stale"
    assert found.shift == pytest.approx(0.25, abs=0.03)
    assert "reference network" not in found.sentence
