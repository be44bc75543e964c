"""The speed claim of predictions: what it runs, and that it can fail."""

import numpy as np
import pytest

from benchmarks.prediction_speed import Ways, judged, main
from inas_deploy.shipped_predictor import shipped_predictor
from search.latency.population import sample_population
from search.latency.predictor import LatencyPredictor
from search.spaces.registry import find_space

GOOD = {
    "predictor": 1.0,
    "predictor, few": 1.0,
    "rows": 0.5,
    "rows, few": 0.6,
    "objects": 9.0,
    "objects, few": 9.0,
    "dictionary": 90.0,
    "keys at hand": 15.0,
}


def test_all_ways_give_the_same_sums():
    population = sample_population(find_space("inas"), (224, 224), 40, np.random.default_rng(0))
    ways = Ways(population, list(population), LatencyPredictor.load(shipped_predictor()))
    assert ways.same()
    ways.values[:] = 1.0  # what the dictionary was not made from
    assert not ways.same()


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"objects": 21.0, "objects, few": 21.0}, "objects"),
        ({"rows": 2.0, "rows, few": 2.0}, "rows: 45 times as fast"),
        ({"predictor": 2.0, "predictor, few": 2.0}, "predictor: 45 times as fast"),
        ({"rows, few": 0.3}, "a tenth"),
    ],
)
def test_each_claim_can_fail(change, what):
    claims = judged({name: np.full(3, time) for name, time in (GOOD | change).items()}, same=True)
    assert [words for good, words in claims if not good and what in words]
    assert all(good for good, _ in judged({name: np.full(3, time) for name, time in GOOD.items()}, same=True))
    assert not judged({name: np.full(3, time) for name, time in GOOD.items()}, same=False)[0][0]


def test_it_prints_each_way_and_the_claims(capsys):
    main(["--archs", "100", "--repeats", "1"])
    printed = capsys.readouterr().out
    assert all(name in printed for name in GOOD)
    assert printed.strip().splitlines()[-1].startswith("claim ")
