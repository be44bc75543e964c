"""The predictor that ships: whole, labelled as a stand-in, and good for every network of its space."""

import json

import numpy as np
import pytest

from inas_deploy.shipped_predictor import REFERENCE_CPU, predictor_path, shipped_predictor
from search.latency.population import sample_population
from search.spaces.registry import find_space
from tests.inas_deploy.running import run

pytest.importorskip("torch")
pytest.importorskip("safetensors")


@pytest.fixture(scope="module")
def predictor():
    from search.latency.predictor import LatencyPredictor

    return LatencyPredictor.load(shipped_predictor())


def test_it_is_labelled_as_no_device_of_yours(predictor):
    conditions = predictor.conditions
    assert (conditions.device, conditions.stand_in, conditions.space) == (REFERENCE_CPU, "virtual", "inas")
    assert "tells nothing about your device" in predictor.network.notes[0]
    assert predictor.network.reference is not None
    assert shipped_predictor().stat().st_size < 1_000_000


def test_it_knows_every_block_of_its_space_and_the_biggest_network_is_the_slower(predictor):
    space = find_space("inas")
    assert not any(map(predictor.blocks.refusal, space.coding((224, 224)).blocks))
    found = predictor.predict([space.smallest(), space.biggest()])
    assert found.latency_ms[0] < found.latency_ms[1]
    assert found.coverage == 0.9
    many = predictor.predict(sample_population(space, (224, 224), 1000, np.random.default_rng(0)))
    assert (many.low_ms < many.latency_ms).all()
    assert (many.latency_ms < many.high_ms).all()


def test_predict_takes_it_where_no_file_is_named(tmp_path):
    done = run("predict", "--arch", "inas:smallest", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["conditions"]["stand_in"] == "virtual"
    assert "virtual reference CPU" in found["notes"][0]
    shown = run("predict", "--arch", "inas:smallest", cwd=tmp_path)
    assert "(virtual)" in shown.stdout
    assert "virtual reference CPU" in shown.stdout


def test_it_cannot_be_held_against_a_real_device(tmp_path):
    done = run("predict", "--check", "2", cwd=tmp_path)
    assert done.returncode == 2
    assert "not a device like the one the predictor is for" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_path_is_a_path():
    assert predictor_path("x.safetensors").name == "x.safetensors"
    assert predictor_path(REFERENCE_CPU) == shipped_predictor()
