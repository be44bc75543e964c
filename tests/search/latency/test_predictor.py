"""LatencyPredictor and its rivals on computed latencies whose truth is known; files; refusals; transfer."""

from __future__ import annotations

import json
import random
import warnings

import numpy as np
import pytest

from search.latency.block_predictor import BlockPredictor
from search.latency.calibration import choose_archs
from search.latency.models import MacsModel, TableModel
from search.latency.pace import Reference
from search.latency.population import sample_population
from search.latency.predictor import FILE_KIND, LatencyPredictor, StaleWarning
from search.latency.predictor_file import read_parts, write_parts
from search.latency.spread import mixed, spread_archs
from search.latency.table import LatencyTable
from search.latency.transfer import transfer
from search.spaces.registry import find_space
from targets.errors import InvalidModel, UsageError
from tests.search.latency.fitted import CONDITIONS, SIZE, SPACE, block_us, blocks, drawn, network_ms, table

pytest.importorskip("torch")
pytest.importorskip("safetensors")


@pytest.fixture(scope="module")
def fitted():
    rng, pool = random.Random(0), drawn(100, 1)
    chosen = choose_archs(pool, LatencyPredictor.uncalibrated(blocks()).part_ms(pool), 10, rng)
    return LatencyPredictor.fit(
        blocks(),
        [(arch, network_ms(arch, rng)) for arch in chosen],
        [(arch, network_ms(arch, rng)) for arch in drawn(60, 2)],
    )


def errors(model, archs):
    truth = np.array([network_ms(arch) for arch in archs])
    return np.abs(model.predict(archs).latency_ms / truth - 1)


def test_calibrated_predictions_are_near_the_truth_and_intervals_hold_it(fitted):
    held_out = drawn(200, 3)
    rng = random.Random(4)
    measured = np.array([network_ms(arch, rng) for arch in held_out])
    found = fitted.predict(held_out)
    assert errors(fitted, held_out).mean() < 0.01
    assert errors(LatencyPredictor.uncalibrated(blocks()), held_out).mean() > 0.05
    assert found.coverage == 0.9
    assert 0.8 < np.mean((found.low_ms <= measured) & (measured <= found.high_ms)) < 0.98


def test_a_population_is_predicted_as_its_architectures_one_by_one(fitted):
    population = sample_population(SPACE, SIZE, 300, np.random.default_rng(0))
    together = fitted.predict(population).latency_ms
    alone = np.concatenate([fitted.predict([population[index]]).latency_ms for index in range(0, 300, 30)])
    assert together[::30] == pytest.approx(alone, rel=1e-9)
    sums = [sum(blocks().predict_blocks(population[7].blocks(SIZE)).latency_us) / 1e3]
    assert fitted.part_ms(population[7:8]).sum(1) == pytest.approx(sums, rel=1e-6)
    assert len(fitted.predict([]).latency_ms) == 0


def test_a_saved_predictor_is_the_same_one(fitted, tmp_path):
    path, archs = tmp_path / "p.safetensors", drawn(50, 5)
    fitted.save(path)
    loaded = LatencyPredictor.load(path)
    assert loaded.network == fitted.network
    assert loaded.predict(archs).latency_ms == pytest.approx(fitted.predict(archs).latency_ms, rel=1e-6)


def test_damaged_files_are_refused(fitted, tmp_path):
    path = tmp_path / "p.safetensors"
    fitted.save(path)
    whole = path.read_bytes()
    rng = random.Random(0)
    for _ in range(30):
        damaged = bytearray(whole)
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(InvalidModel):
            LatencyPredictor.load(path)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InvalidModel):
        LatencyPredictor.load(path)
    with pytest.raises(UsageError, match="cannot read"):
        LatencyPredictor.load(tmp_path / "none")


def with_reference(fitted, reference):
    return LatencyPredictor(fitted.blocks, fitted.network.model_copy(update={"reference": reference}))


def test_a_predictors_reference_is_kept_in_its_file(fitted, tmp_path):
    path, arch, measured = tmp_path / "p.safetensors", drawn(1, 14)[0], [(a, network_ms(a)) for a in drawn(8, 0)]
    reference = Reference(arch=json.loads(arch.to_json()), latency_ms=12.5)
    LatencyPredictor.fit(blocks(), measured, reference=reference).marked_stale("Old.").save(path)
    loaded = LatencyPredictor.load(path)
    assert loaded.network.reference == reference
    assert loaded.network.reference.architecture == arch
    fitted.save(path)
    assert LatencyPredictor.load(path).network.reference is None


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"latency_ms": -1.0}, "reference.latency_ms"),
        ({"latency_ms": 0}, "reference.latency_ms"),
        ({"latency_ms": "fast"}, "reference.latency_ms"),
        ({"arch": []}, "reference.arch"),
        ({"more": 1}, "reference.more"),
        ({"arch": {}}, "names no space"),
        ({"arch": {"space": "nowhere"}}, "no search space"),
        ({"arch": {"space": {"a": "b\n" * 9}}}, "names no space"),
        ({"arch": {"space": "inas-tiny", "classes": "many"}}, "reference"),
        ({"arch": {"space": "csnet", "classes": 4}}, "reference"),
        ({"arch": json.loads(find_space("inas-small").smallest().to_json())}, "does not hold"),
        ({"arch": json.loads(find_space("inas-tiny", 3).smallest().to_json())}, "does not hold"),
    ],
)
def test_a_damaged_reference_is_refused_in_one_line(fitted, tmp_path, change, told):
    path = tmp_path / "p.safetensors"
    with_reference(fitted, Reference(arch=json.loads(SPACE.smallest().to_json()), latency_ms=1.0)).save(path)
    content, tensors = read_parts(path, FILE_KIND)
    content["network"]["reference"].update(change)
    write_parts(path, FILE_KIND, content, tensors)
    with pytest.raises(InvalidModel, match=told) as caught:
        LatencyPredictor.load(path)
    assert "\n" not in str(caught.value)


def test_foreign_networks_are_refused_by_every_model(fitted):
    archs = drawn(20, 6)
    macs = MacsModel.fit(CONDITIONS, archs, [network_ms(arch) for arch in archs])
    strange = find_space("inas-small").smallest()
    more_classes = find_space("inas-tiny", 4).smallest()
    other_size = sample_population(SPACE, (96, 96), 3, np.random.default_rng(0))
    for model in (fitted, macs, TableModel(table())):
        assert model.conditions == CONDITIONS
        for wrong in ([strange], [more_classes], other_size):
            with pytest.raises(UsageError, match="not for"):
                model.predict(wrong)


def test_the_table_adds_up_and_refuses_what_it_lacks():
    archs = drawn(5, 7)
    sums = [sum(map(block_us, arch.blocks(SIZE))) / 1e3 for arch in archs]
    model = TableModel(table())
    assert model.predict(archs).latency_ms == pytest.approx(sums)
    assert model.predict(archs).coverage == 0
    gone = archs[0].blocks(SIZE)[3].key
    lacking = TableModel(LatencyTable(table().header, {k: row for k, row in table().rows.items() if k != gone}))
    assert not lacking.knows(archs[0])
    with pytest.raises(UsageError, match="lacks 1 of"):
        lacking.predict(archs)


def test_macs_alone_are_worse_than_the_predictor(fitted):
    archs = drawn(10, 8)
    line = MacsModel.fit(CONDITIONS, archs, [network_ms(arch) for arch in archs])
    held_out = drawn(100, 9)
    assert errors(line, held_out).mean() > errors(fitted, held_out).mean()
    with pytest.raises(UsageError, match="no line"):
        MacsModel.fit(CONDITIONS, archs[:1], [1.0])


def test_a_stale_predictor_says_so_on_use_and_in_its_file(fitted, tmp_path):
    stale = fitted.marked_stale("The predictor is stale: 0 of 5.")
    stale.save(tmp_path / "p.safetensors")
    with pytest.warns(StaleWarning, match="0 of 5"):
        LatencyPredictor.load(tmp_path / "p.safetensors").predict(drawn(2, 0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stale.marked_stale("").predict(drawn(2, 0))


def test_a_second_device_needs_few_networks(fitted):
    second = CONDITIONS.model_copy(update={"device": "board", "hardware": "other"})

    def there(arch, rng=None):
        return network_ms(arch, rng, slope=3.7, intercept_us=400)

    rng = random.Random(0)
    carried = transfer(fitted, second, [(arch, there(arch, rng)) for arch in drawn(8, 10)])
    held_out = drawn(100, 11)
    truth = np.array([there(arch) for arch in held_out])
    found = carried.predictor.predict(held_out)
    assert np.abs(found.latency_ms / truth - 1).mean() < 0.02
    assert 0 < carried.error < 0.03
    assert carried.predictor.conditions == second
    assert "8 networks measured on board" in carried.sentence
    assert carried.sentence in carried.predictor.network.notes
    with pytest.raises(UsageError, match="2 measured networks"):
        transfer(fitted, second, [(arch, 1.0) for arch in drawn(2, 0)])
    with pytest.raises(UsageError, match="input_size"):
        transfer(fitted, second.model_copy(update={"input_size": (96, 96)}), [(arch, 1.0) for arch in drawn(3, 0)])


@pytest.mark.parametrize(
    ("space_id", "size"), [("inas-tiny", (64, 64)), ("rtseg-tiny", (64, 128)), ("csnet", (64, 64))]
)
def test_spread_networks_fill_the_range(space_id, size):
    space = find_space(space_id)
    conditions = CONDITIONS.model_copy(update={"space": space_id, "classes": space.classes, "input_size": size})
    macs = MacsModel(conditions, 1.0, 0.0)
    taken = {space.smallest().sha256()}
    archs = spread_archs(space, lambda found: macs.predict(found).latency_ms, 12, random.Random(0), taken=taken)
    assert len({arch.sha256() for arch in archs} - taken) == 12
    figures = macs.predict(archs).latency_ms
    low, high = macs.predict([space.smallest(), space.biggest()]).latency_ms
    assert figures.min() < low + 0.2 * (high - low)
    assert figures.max() > high - 0.2 * (high - low)
    assert np.diff(np.sort(figures)).max() < 0.35 * (high - low)


def test_a_mixture_of_two_networks_is_one_of_the_space():
    rng = random.Random(0)
    first, second = drawn(2, 12)
    assert mixed(SPACE, first, second, 0.0, rng) == first
    assert mixed(SPACE, first, second, 1.0, rng) == second
    halves = [mixed(SPACE, first, second, 0.5, rng) for _ in range(20)]
    assert all(arch is not None for arch in halves)
    assert len({arch.sha256() for arch in halves}) > 15


def test_a_network_is_refused_for_its_own_blocks_only():
    small, big = SPACE.smallest(), SPACE.biggest()
    keys = {spec.key for arch in (small, *drawn(3, 13)) for spec in arch.blocks(SIZE)}
    few = LatencyTable(table().header, {key: row for key, row in table().rows.items() if key in keys})
    model = LatencyPredictor.uncalibrated(BlockPredictor.fit(few, members=2, epochs=1))
    assert model.refusal(small) == ""
    assert len(model.predict([small]).latency_ms) == 1
    assert model.refusal(big) != ""
    with pytest.raises(UsageError, match="cannot know"):
        model.predict([small, big])
