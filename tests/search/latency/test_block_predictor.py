import json
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

from search.latency.baseline import candidate_terms, fit_factors, products
from search.latency.block_predictor import BlockPredictor
from search.latency.fields import Form
from search.latency.predictor_file import read_parts, write_parts
from search.latency.table import LatencyTable
from search.spaces.registry import find_space
from targets.errors import InvalidModel, UsageError
from tests.search.latency.made_tables import NOISE, SIZES, made_latency_us, made_table


@pytest.fixture(scope="module")
def table():
    return made_table()


@pytest.fixture(scope="module")
def predictor(table):
    return BlockPredictor.fit(table, epochs=30)


@pytest.fixture(scope="module")
def stored(predictor, tmp_path_factory):
    path = tmp_path_factory.mktemp("predictor") / "predictor.safetensors"
    write_parts(path, "blocks", *predictor.to_parts())
    return path


def test_blocks_it_never_saw_are_predicted_within_a_few_percent(predictor, table):
    space = find_space("inas-tiny")
    rng = random.Random(99)
    drawn = {spec.key: spec for _ in range(20) for spec in space.blocks(space.sample(rng), SIZES["inas-tiny"])}
    fresh = [spec for key, spec in drawn.items() if key not in table.rows and not predictor.refusal(spec)]
    truth = np.array([made_latency_us(spec) for spec in fresh])
    found = predictor.predict_blocks(fresh)
    assert len(fresh) > 50
    assert np.mean(np.abs(found.latency_us / truth - 1)) < 0.04
    assert (found.low_us <= found.latency_us).all()
    assert (found.latency_us <= found.high_us).all()
    assert np.mean((found.low_us <= truth) & (truth <= found.high_us)) > 0.85


def test_the_report_judges_blocks_without_having_seen_them(predictor, table):
    report = predictor.report
    assert 0.004 < report.headline.mape < 0.06  # noise of 2 % cannot be predicted
    assert report.headline.spearman > 0.98
    assert sum(kind.count for kind in report.kinds) + report.unjudged == len(table.rows) == report.rows
    assert 0.86 <= np.mean([b.low_us <= b.measured_us <= b.high_us for b in predictor.held_out]) <= 0.96
    assert report.noise_floor == NOISE
    assert "MAPE" in report.sentence


def test_no_member_sees_the_rows_it_is_judged_on(table):
    rows = list(table.rows.values())
    worst = max((row for row in rows if row.kind == "inas.mbconv"), key=lambda row: row.macs)
    wrong = worst.model_copy(update={"p50_us": worst.p50_us * 30})
    spoiled = LatencyTable.of(table.header, [wrong if row is worst else row for row in rows])
    found = {b.key: b for b in BlockPredictor.fit(spoiled, epochs=10).held_out}[worst.key]
    assert found.predicted_us < worst.p50_us * 3


def test_equal_seeds_give_equal_predictors(table):
    one, same = (BlockPredictor.fit(table, epochs=1, members=2).to_parts() for _ in range(2))
    assert one[0] == same[0]
    assert all(torch.equal(one[1][name], same[1][name]) for name in one[1])


def test_equal_blocks_and_any_order_give_equal_latencies(predictor, table):
    specs = [row.spec for row in table.rows.values()][:40]
    there, back = predictor.predict_blocks(specs * 2), predictor.predict_blocks(specs[::-1])
    assert (there.latency_us[:40] == there.latency_us[40:]).all()
    assert np.allclose(there.latency_us[:40], back.latency_us[::-1], rtol=1e-12)


def test_what_was_never_seen_is_refused_with_the_reason(predictor, table):
    spec = next(row.spec for row in table.rows.values() if row.kind == "inas.mbconv")
    assert predictor.refusal(spec) == ""
    source, settings = spec.inputs[0], dict(spec.settings)
    wrong = {
        "kind": spec._replace(kind="inas.other"),
        "inputs": spec._replace(inputs=spec.inputs * 2),
        "heights and widths": spec._replace(inputs=((source[0], 33, 33),)),
        "channels of input 0: 4000": spec._replace(inputs=((4000, *source[1:]),)),
        "kernel 4": spec._replace(settings=tuple(sorted({**settings, "kernel": 4}.items()))),
        "setting wings": spec._replace(settings=(*spec.settings, ("wings", 2))),
    }
    for words, other in wrong.items():
        assert words in predictor.refusal(other)
        with pytest.raises(UsageError, match="cannot know 1 of 2"):
            predictor.predict_blocks([spec, other])
    few = LatencyTable.of(table.header, list(table.rows.values())[:5])
    with pytest.raises(UsageError, match="5 blocks"):
        BlockPredictor.fit(few)


def test_the_baseline_finds_the_factors_and_forgives_a_bad_row():
    form = Form("any.conv", 1, 1, ("kernel",))
    rng = np.random.default_rng(0)
    fields = np.stack([rng.integers(8, 64, 60), *[np.full(60, 32)] * 2, rng.integers(8, 64, 60)], axis=1)
    fields = np.c_[fields, np.full((60, 2), 32), rng.choice([1, 3], 60)].astype(float)
    powers = candidate_terms(form, fields)
    terms = products(torch.as_tensor(fields), powers).numpy()
    truth = 4 + 2e-5 * fields[:, 0] * fields[:, 3] * 1024 * fields[:, 6] ** 2
    measured = truth.copy()
    measured[0] *= 10
    factors = fit_factors(terms, measured, np.ones(60))
    assert (factors >= 0).all()
    assert np.median(np.abs(terms @ factors / truth - 1)) < 0.02


def test_a_stored_predictor_is_the_same(predictor, table, stored):
    again = BlockPredictor.from_parts(*read_parts(stored, "blocks"))
    specs = [row.spec for row in table.rows.values()]
    one, two = predictor.predict_blocks(specs), again.predict_blocks(specs)
    assert (one.latency_us == two.latency_us).all()
    assert (one.high_us == two.high_us).all()
    assert (again.report, again.conditions) == (predictor.report, predictor.conditions)


@given(at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), cut=st.booleans())
def test_a_damaged_file_is_refused_or_the_same(stored, tmp_path_factory, at, bit, cut):
    data = bytearray(stored.read_bytes())
    place = int(at**4 * len(data))  # the header is at the start
    data[place] ^= 1 << bit
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    path.write_bytes(data[:place] if cut else data)
    try:
        values, tensors = read_parts(path, "blocks")
    except InvalidModel as error:
        assert str(path) in str(error)
        return
    before = read_parts(stored, "blocks")
    assert values == before[0]
    assert all(torch.equal(tensors[name], before[1][name]) for name in before[1])


def test_other_files_are_refused(stored, tmp_path):
    with pytest.raises(InvalidModel, match="kind 'blocks', not 'network'"):
        read_parts(stored, "network")
    with pytest.raises(UsageError, match="No such file"):
        read_parts(tmp_path / "none", "blocks")
    (tmp_path / "plain").write_bytes(save({"a": torch.zeros(2)}))
    with pytest.raises(InvalidModel, match="no latency predictor"):
        read_parts(tmp_path / "plain", "blocks")
    write_parts(tmp_path / "nan", "blocks", {}, {"a": torch.tensor([float("nan")])})
    with pytest.raises(InvalidModel, match="no finite number"):
        read_parts(tmp_path / "nan", "blocks")


def test_parts_that_do_not_fit_together_are_refused(predictor):
    values, tensors = predictor.to_parts()
    for name in ("form0.powers", "form0.factors", "form0.center", "networks.center", "networks.layer0.bias"):
        for wrong in (torch.zeros(3), tensors[name].to(torch.float16), None):
            damaged = {key: tensor for key, tensor in {**tensors, name: wrong}.items() if tensor is not None}
            with pytest.raises(InvalidModel):
                BlockPredictor.from_parts(values, damaged)
    for change in ({"schema_version": 2}, {"forms": []}, {"quantiles": {}}, {"noise": -1}, {"more": 1}):
        with pytest.raises(InvalidModel):
            BlockPredictor.from_parts(json.loads(json.dumps({**values, **change})), tensors)
    with pytest.raises(InvalidModel):
        BlockPredictor.from_parts(values, {**tensors, "form0.factors": -1 - tensors["form0.factors"]})
