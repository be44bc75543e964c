"""``inas-deploy predict`` in a process of its own."""

from __future__ import annotations

import csv
import json

import pytest

from inas_deploy.commands.predict import predict
from search.latency.predictor import LatencyPredictor
from search.spaces.registry import arch_from_json, find_space
from targets.errors import KitError
from tests.inas_deploy.running import run
from tests.search.latency.fitted import blocks, drawn, network_ms

pytest.importorskip("torch")
pytest.importorskip("safetensors")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("predict") / "p.safetensors"
    LatencyPredictor.fit(blocks(), [(arch, network_ms(arch)) for arch in drawn(8, 0)]).save(path)
    return path


def test_named_networks_files_and_samples_are_predicted(file, tmp_path):
    arch = find_space("inas-tiny").smallest()
    (tmp_path / "mine.json").write_text(arch.to_json())
    words = ["--arch", "inas-tiny:smallest", "--arch", "mine.json", "--sample", "3", "--json", "--csv", "out.csv"]
    done = run("predict", "--predictor", file, *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    names = [network["name"] for network in found["networks"]]
    assert names == ["inas-tiny:smallest", "mine.json", *(f"inas-tiny drawn {n}" for n in range(3))]
    first, second = found["networks"][:2]
    assert first["latency_ms"] == second["latency_ms"] == pytest.approx(network_ms(arch), rel=0.05)
    assert first["low_ms"] < first["latency_ms"] < first["high_ms"]
    assert found["coverage"] == 0.9
    rows = list(csv.DictReader((tmp_path / "out.csv").open()))
    assert [arch_from_json(row["arch"]).sha256() for row in rows][:2] == [arch.sha256()] * 2
    assert float(rows[0]["latency_ms"]) == pytest.approx(first["latency_ms"], rel=1e-5)


def test_a_stale_predictor_says_so(file, tmp_path):
    LatencyPredictor.load(file).marked_stale("The predictor is stale: 0 of 5 inside.").save(tmp_path / "s.safetensors")
    done = run("predict", "--predictor", "s.safetensors", "--sample", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "0 of 5 inside" in done.stdout
    assert "90% interval" in done.stdout


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"sample": 0}, "no network was named"),
        ({"arch": ["inas:smallest"]}, "not for inas"),
        ({"arch": ["missing.json"]}, "no such file"),
        ({"predictor": "broken", "sample": 1}, "no latency predictor"),
        ({"check": 2, "target": "nobody"}, "nobody"),
    ],
)
def test_mistakes_are_refused(file, tmp_path, given, said):
    (tmp_path / "broken").write_bytes(b"{}" * 100)
    path = tmp_path / given.pop("predictor") if "predictor" in given else file
    with pytest.raises(KitError, match=said):
        predict(predictor=path, **given)
