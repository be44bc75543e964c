import json

import pytest

pytest.importorskip("torch")

from benchmarks import equivalence
from search.spaces.registry import find_arch

NAMES = ("inas-tiny:random-0", "inas-tiny:random-1")


def row_of(name, **forms):
    sha256, places = find_arch(name).sha256(), {"strides": [], "branches": [], "kinds": []}
    return {"name": name, "sha256": sha256, "size": [64, 96], "errors": {}, **places, **forms}


@pytest.fixture
def calls(monkeypatch):
    """Checking replaced by numbers; the seeds that networks were to be made with are listed."""
    seeds = {}

    def check(name, size, runtimes):
        seeds[name] = list(runtimes)
        return {**row_of(name, **dict.fromkeys(runtimes, 1e-16)), "seed": 5}

    monkeypatch.setattr(equivalence, "check", check)
    return seeds


def test_the_seed_is_the_architectures_own(monkeypatch):
    seeds = []

    def stop(arch, size, seed):
        seeds.append((arch.sha256(), seed))
        raise InterruptedError

    monkeypatch.setattr(equivalence, "seeded_subnet", stop)
    for count, space in ((1, "csnet"), (2, "csnet")):
        for index in range(count):
            with pytest.raises(InterruptedError):
                equivalence.check(f"{space}:random-{index}", (64, 96), ["fused"])
    assert seeds[0] == seeds[1] != seeds[2]
    assert all(seed == int(sha256[:8], 16) for sha256, seed in seeds)


def test_a_form_that_was_not_run_is_not_claimed(calls, capsys):
    assert equivalence.main(["--spaces", "inas-tiny", "--count", "2", "--forms", "fused", "openvino"]) == 0
    out = capsys.readouterr().out
    assert "nan" not in out
    assert out.count("not run") == 3  # two cells and the last line
    assert out.splitlines()[-1] == (
        "claim holds: fused of 2, openvino of 2 networks (not run: onnxruntime, tflite), at 64x96"
    )


def test_nothing_run_is_no_success(calls, capsys):
    assert equivalence.main(["--spaces", "inas-tiny", "--count", "0"]) == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith("claim NOT CHECKED")


def test_a_difference_over_the_bound_fails(calls, capsys, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(row_of(NAMES[0], fused=1e-11)) + "\n")
    assert equivalence.main(["--spaces", "inas-tiny", "--count", "1", "--forms", "fused", "--out", str(file)]) == 1
    assert calls == {}
    assert "claim FAILS: fused of 1 networks" in capsys.readouterr().out


def test_rows_without_a_seed_stay_valid_and_are_extended(calls, tmp_path):
    file = tmp_path / "rows.jsonl"
    old = {**row_of(NAMES[0], fused=1e-15, tflite=float("inf")), "errors": {"tflite": "no converter"}}
    file.write_text(json.dumps(old) + "\n")
    command = ["--spaces", "inas-tiny", "--count", "2", "--out", str(file), "--forms"]
    assert equivalence.main([*command, "fused"]) == 1  # the conversion that failed is in the file
    assert calls == {NAMES[1]: ["fused"]}
    equivalence.main([*command, "fused", "openvino"])
    assert calls[NAMES[0]] == ["openvino"]
    rows = equivalence.finished(file, (64, 96))
    assert rows[NAMES[0]]["fused"] == 1e-15
    assert rows[NAMES[0]]["errors"] == {"tflite": "no converter"}
    assert "seed" not in rows[NAMES[0]]  # its forms were checked with two
    assert rows[NAMES[1]]["seed"] == 5


@pytest.mark.parametrize("name", ["csnet:random-3", "inas-tiny:random-3", "rtseg-tiny:random-3"])
def test_one_function_in_every_form(name):
    row = equivalence.check(name, (64, 96), list(equivalence.LIMITS))
    assert row["errors"] == {}
    assert {form: row[form] <= limit for form, limit in equivalence.LIMITS.items()} == dict.fromkeys(
        equivalence.LIMITS, True
    )
