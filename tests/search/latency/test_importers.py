import json
import math
import os
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from search.latency.conditions import Conditions
from search.latency.importers.inas_text import read_inas_text
from search.latency.importers.network_csv import read_network_csv
from search.latency.importers.ofa_yaml import read_ofa_yaml
from search.latency.importers.registry import IMPORTERS, read_table
from search.latency.importers.tfnas_csv import COLUMNS, KIND, read_tfnas_csv
from search.latency.table import LatencyTable, Row
from search.spaces.inas.space import INASSpace
from targets.errors import InvalidModel, KitError, UnknownLayout, UsageError
from targets.records import RunSettings

DATA = Path(os.environ.get("INAS_DATA", Path(__file__).parents[3].parent / "shared" / "data")) / "latency"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no measurements under {DATA}: set INAS_DATA")
in_one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
NAMES = {
    "inas.transport_branch": "branchtp",
    "inas.decoder_branch": "branchd",
    "inas.transport_fuse": "fusiontp",
    "inas.decoder_fuse": "fusiond",
    "inas.stem": "stem",
    "inas.mbconv": "dynamicmb",
    "inas.head": "decoder",
}
STEM = "name:stem inres:224 outres:112 inc:3 outc:32 stride:2 kernel:3 ratio:1 latency_mean:1.5 latency_var:0.09"
MB = "name:dynamicmb inres:112 outres:112 inc:32 outc:16 stride:1 kernel:3 ratio:1 latency_mean:2 latency_var:0"
BRANCH = "name:branchtp inres:56 outres:112 inc:24 outc:16 latency_mean:0.5 latency_var:0.01"
SAME = "name:branchtp inres:112 outres:112 inc:16 outc:16 latency_mean:0.001 latency_var:0"
FUSE = "name:fusiontp inres:112 outres:112 inc:16 outc:16 fusion:2 kernel:5 latency_mean:0.6 latency_var:0"
OFA = """\
Conv-input:192x160x3-output:96x80x24:
  count: 499
  mean: 0.5
  std: 0.05
expanded_conv-input:12x12x136-output:6x6x192-expand:408-kernel:5-stride:2-idskip:0-se:1-hs:1:
  count: 1
  mean: 1.25
  std: 0.0
Logits-input:1x1x1536-output:1000:
  {count: 3, mean: 0.25, std: 0}
"""
TFNAS = ",".join(COLUMNS) + "\n112,16,4,24,3,2,relu,8,0.25\n7,192,0,320,5,1,swish,1152,1e-1\n"


def conditions(**changes):
    fields = {"device": "phone", "settings": RunSettings(runtime="pytorch"), "space": "inas", "input_size": (224, 224)}
    return Conditions(**{**fields, **changes})


def written(folder, text):
    path = folder / "table.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def line_of(spec, latency_ms):
    """A block as a line of iNAS's format."""
    settings, source, target = dict(spec.settings), spec.inputs[0], spec.outputs[0]
    words = [f"name:{NAMES[spec.kind]}", f"inres:{source[1]}", f"outres:{target[1]}"]
    words += [f"inc:{source[0]}", f"outc:{target[0]}"]
    if "fuse" in spec.kind:
        words += [f"fusion:{len(spec.inputs)}", f"kernel:{settings['kernel']}"]
    elif "stride" in settings:
        ratio = settings.get("hidden", source[0]) // source[0]
        words += [f"stride:{settings['stride']}", f"kernel:{settings['kernel']}", f"ratio:{ratio}"]
    return " ".join([*words, f"latency_mean:{latency_ms!r}", f"latency_var:{(latency_ms / 10) ** 2:.12f}"])


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32), space=st.sampled_from(["inas", "inas-small"]), size=st.sampled_from([224, 320]))
def test_any_network_is_found_in_a_table_of_its_blocks(tmp_path_factory, seed, space, size):
    draw = random.Random(seed)
    specs = {spec.key: spec for spec in INASSpace(space).sample(draw).blocks((size, size))}
    latency_ms = {key: round(draw.uniform(0.05, 9), 6) for key in specs}
    path = written(
        tmp_path_factory.mktemp("t"), "\n".join(line_of(s, latency_ms[k]) for k, s in specs.items()) + "\n\n"
    )
    table = read_inas_text(path, conditions(space=space, input_size=(size, size)))
    assert set(table.rows) == set(specs)
    assert table.latency_us(list(specs.values())) == pytest.approx([latency_ms[key] * 1e3 for key in specs])
    for key, spec in specs.items():
        assert (table.rows[key].macs, table.rows[key].params) == (spec.macs, spec.params)
        assert table.rows[key].spread == pytest.approx(0.1, rel=1e-3)


def test_an_identity_is_added_to_its_fusion(tmp_path):
    other = SAME.replace("outc:16", "outc:20")
    table = read_inas_text(written(tmp_path, "\n".join([FUSE, other, SAME, BRANCH])), conditions())
    assert {row.kind: row.p50_us for row in table.rows.values()} == pytest.approx(
        {"inas.transport_fuse": 601.0, "inas.transport_branch": 500.0}
    )
    assert any("1 identities were added" in note and "1 that" in note for note in table.header.notes)


def test_the_statistic_can_be_chosen(tmp_path):
    path = written(tmp_path, f"{STEM} latency_median:1.25 latency_min:1.0")
    for statistic, expected in (("mean", 1500), ("median", 1250), ("min", 1000)):
        (row,) = read_inas_text(path, conditions(), statistic=statistic).rows.values()
        assert (row.p50_us, row.p10_us) == pytest.approx((expected, 1000))
    with pytest.raises(UnknownLayout, match=r"line 1: the row has no latency_median"):
        read_inas_text(written(tmp_path, STEM), conditions(), statistic="median")


def test_a_least_repeat_that_cannot_be_is_not_used(tmp_path):
    for least in ("0.000000", "1.6"):
        path = written(tmp_path, f"{STEM} latency_min:{least}")
        (row,) = read_inas_text(path, conditions()).rows.values()
        assert row.p10_us == row.p50_us
    with pytest.raises(UnknownLayout, match="latency_min is not above zero"):
        read_inas_text(written(tmp_path, f"{STEM} latency_min:0"), conditions(), statistic="min")


@pytest.mark.parametrize(
    ("line", "quoted"),
    [
        (STEM.replace("1.5", "{latency}"), "{latency}"),
        (STEM.replace("1.5", "0"), "above zero"),
        (STEM.replace("1.5", "-1.5"), "-1.5"),
        (STEM.replace("1.5", "nan"), "nan"),
        (STEM.replace("0.09", "-0.09"), "-0.09"),
        (STEM.replace("outc:32", "outc:0"), "outc"),
        (STEM.replace("outc:32", "outc:3_2"), "3_2"),
        (STEM.replace("outc:32", "outc:32.0"), "32.0"),
        (STEM.replace("outc:32", "outc:32 outc:32"), "again"),
        (STEM.replace("outc:32 ", ""), "lacks outc"),
        (STEM.replace("ratio:1", "ratio:2"), "ratio:2"),
        (STEM.replace("inres:224", "inres:225"), "inres:225"),
        (STEM.replace("name:stem", "name:root"), "name:root"),
        (STEM.replace("name:stem", "stem"), "stem"),
        (f"{STEM} speed:3", "speed"),
        (MB.replace("kernel:3", "kernel:4"), "kernel"),
        (MB.replace("outres:112", "outres:56"), "outres:56"),
        (MB.replace("112", "111"), "111"),
        (BRANCH.replace("56", "55"), "55"),
        (FUSE.replace("outc:16", "outc:20"), "outc:20"),
        (STEM[: STEM.index(" kernel")], "lacks kernel"),
        (STEM, "line 1 again"),
        ("\x00\x1b[31m", "x1b"),
    ],
)
def test_a_damaged_line_is_quoted(tmp_path, line, quoted):
    with pytest.raises(UnknownLayout) as caught:
        read_inas_text(written(tmp_path, f"{STEM}\n\n{line}\n"), conditions())
    assert "table.txt, line 3:" in str(caught.value)
    assert quoted in str(caught.value)
    assert str(caught.value).isprintable()


def test_conditions_must_be_of_the_space(tmp_path):
    for wrong in ({"space": "rtseg"}, {"input_size": (224, 320)}):
        with pytest.raises(UsageError, match="square"):
            read_inas_text(written(tmp_path, STEM), conditions(**wrong))


def test_once_for_all(tmp_path):
    table = read_ofa_yaml(written(tmp_path, OFA), conditions())
    conv, expanded, logits = table.rows.values()
    assert conv.key == ("ofa.Conv", ((3, 192, 160),), ((24, 96, 80),), ())
    assert (conv.count, conv.p50_us, conv.spread) == (499, 500.0, pytest.approx(0.1))
    assert dict(expanded.settings) == {"expand": 408, "hs": 1, "idskip": 0, "kernel": 5, "se": 1, "stride": 2}
    assert expanded.spread is None
    assert logits.outputs == ((1000, 1, 1),)


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("count: 499", "count: 0", "line 2: count"),
        ("mean: 0.5", "mean: .inf", "line 3: mean"),
        ("mean: 0.5", "mean: -0.5", "line 3: mean"),
        ("mean: 0.5", "mean: 0", "line 3: mean"),
        ("mean: 0.5", "mean: [0.5]", "line 3: no single value"),
        ("mean: 0.5", "count: 5", "line 3: no single value, or the key again"),
        ("mean: 0.5", "mean: 0.5\n  mode: 1", "count, mean, mode, std"),
        ("  mean: 0.5\n", "", "line 1: a block has count, mean and std"),
        ("mean: 0.5", "mean: {{0.5", "line 4: no YAML"),
        ("Conv-input", "Logits-input:1x1x1536-output:1000", "line 1"),
        ("192x160x3", "192x160", "neither HxWxC nor C"),
        ("192x160x3", "192x0x3", "'0'"),
        ("-stride:2", "-stride:two", "'two'"),
        ("-stride:2", "-stride:2-stride:2", "again"),
        ("-output:6x6x192", "", "needs input and output"),
        ("Conv-input:192x160x3-output:96x80x24", "? [a]", "no text"),
        ("Logits-input:1x1x1536-output:1000", "Conv-input:192x160x3-output:96x80x24", "block of line 1 again"),
    ],
)
def test_damaged_yaml_is_quoted(tmp_path, before, after, says):
    assert before in OFA
    with pytest.raises(UnknownLayout) as caught:
        read_ofa_yaml(written(tmp_path, OFA.replace(before, after, 1)), conditions())
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [b"[" * 100_000, b"- 1\n", b"3", b"# nothing", b"a: &x [*x]", b"\xff\xfe", b"", b"a\x00: 1", b"%YAML 9.9\n--- {}"],
)
def test_other_yaml_is_refused(tmp_path, text):
    with pytest.raises(UnknownLayout):
        read_ofa_yaml(written(tmp_path, text), conditions())


def test_a_tag_runs_nothing(tmp_path):
    made = tmp_path / "made"
    text = OFA.replace("mean: 0.5", f"mean: !!python/object/apply:pathlib.Path.touch [{str(made)!r}]", 1)
    with pytest.raises(UnknownLayout):
        read_ofa_yaml(written(tmp_path, text), conditions())
    assert not made.exists()


def test_tf_nas(tmp_path):
    noise = "7,192,0,320,3,1,swish,8,-0.01\n7,192,0,320,3,1,swish,16,0\n"
    table = read_tfnas_csv(written(tmp_path, TFNAS + noise), conditions())
    first, second = table.rows.values()
    chosen = (("act", 0), ("hidden", 8), ("kernel", 3), ("squeeze", 4), ("stride", 2))
    assert first.key == (KIND, ((16, 112, 112),), ((24, 56, 56),), chosen)
    assert (first.p50_us, second.p50_us, second.outputs) == (250.0, pytest.approx(100.0), ((320, 7, 7),))
    assert any(note.startswith("2 rows at or below 0") for note in table.header.notes)


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("0.25", "fast", "line 2: latency_ms is no number: 'fast'"),
        ("0.25", "inf", "'inf'"),
        ("0.25", "", "latency_ms"),
        ("relu", "gelu", "'gelu'"),
        ("112,16,", "112,16.5,", "'16.5'"),
        ("112,16,", "112,", "8 values for 9 columns"),
        ("112,16,", "112,16,16,", "10 values for 9 columns"),
        ("112,16,", '112,"1"6,', "line 2"),
        (",mid_c", "", "no column mid_c"),
        (",mid_c", ",mid_c,mid_c", "another's"),
        (",mid_c", ",mid_c,power", "'power'"),
        ("7,192,0,320,5,1,swish,1152", "112,16,4,24,3,2,relu,8", "line 3: the block of line 2 again"),
    ],
)
def test_damaged_rows_are_quoted(tmp_path, before, after, says):
    with pytest.raises(UnknownLayout) as caught:
        read_tfnas_csv(written(tmp_path, TFNAS.replace(before, after, 1)), conditions())
    assert says in str(caught.value)


def test_whole_networks(tmp_path):
    text = "name,width,front_ms,back_ms,front_sd,back_sd\na,32,1.5,2,0.3,0.4\nb,64,3,4e0,0,1\n"
    path = written(tmp_path, text)
    found = read_network_csv(
        path, latency_ms=("front_ms", "back_ms"), deviation_ms=("front_sd", "back_sd"), ignore=("name",)
    )
    assert found.columns == ("width",)
    assert found.column("width").tolist() == [32, 64]
    assert found.latency_ms.tolist() == [3.5, 7]
    assert found.deviation_ms.tolist() == pytest.approx([0.5, 1])
    with pytest.raises(UsageError, match="no column depth"):
        found.column("depth")
    with pytest.raises(UnknownLayout, match=r"line 2: name is no number: 'a'"):
        read_network_csv(path, latency_ms=("front_ms",))
    with pytest.raises(UnknownLayout, match="no column latency_ms"):
        read_network_csv(path)
    with pytest.raises(UnknownLayout, match="line 3: front_ms is not above zero: '0'"):
        read_network_csv(written(tmp_path, text.replace(",3,", ",0,")), latency_ms=("front_ms",), ignore=("name",))
    with pytest.raises(UnknownLayout, match="no rows"):
        read_network_csv(written(tmp_path, "latency_ms\n"))
    with pytest.raises(UsageError, match="no column of the latency"):
        read_network_csv(path, latency_ms=())


def test_the_format_is_told_from_the_first_line(tmp_path):
    for text, source in ((f"\n{STEM}", "inas-text"), (OFA, "ofa-yaml"), (TFNAS, "tfnas-csv")):
        assert read_table(written(tmp_path, text), conditions()).header.source == source
    with pytest.raises(UsageError, match="does not say what was measured"):
        read_table(written(tmp_path, STEM))
    with pytest.raises(UnknownLayout, match="no known table of latencies: 'hello'"):
        read_table(written(tmp_path, "hello"), conditions())
    with pytest.raises(UsageError, match="'excel'"):
        read_table(written(tmp_path, STEM), conditions(), format="excel")
    with pytest.raises(UsageError, match="cannot read"):
        read_table(tmp_path / "absent", conditions())


def test_an_own_table_keeps_its_own_conditions(tmp_path):
    path = tmp_path / "own.jsonl"
    made = read_table(written(tmp_path, STEM), conditions())
    made.write(path)
    assert read_table(path) == made == read_table(path, conditions(device="other name"))
    with pytest.raises(UsageError, match="space is inas here and inas-tiny there"):
        read_table(path, conditions(space="inas-tiny"))
    path.write_bytes(path.read_bytes().replace(b'"count":1', b'"count":0'))
    with pytest.raises(InvalidModel, match="line 2"):
        read_table(path)


@in_one_folder
@given(text=st.text(max_size=200), format=st.sampled_from(sorted(IMPORTERS)))
def test_any_text_is_read_or_refused_in_one_line(tmp_path, text, format):
    try:
        read_table(written(tmp_path, text), conditions(), format=format)
    except KitError as error:
        assert str(error).isprintable()


@in_one_folder
@given(text=st.text('latency_ms,1-.e"\n ', max_size=60))
def test_any_networks_are_read_or_refused_in_one_line(tmp_path, text):
    try:
        found = read_network_csv(written(tmp_path, "latency_ms,a\n1,2\n" + text))
    except KitError as error:
        assert str(error).isprintable()
    else:
        assert np.isfinite(found.features).all()
        assert (found.latency_ms > 0).all()


@in_one_folder
@given(data=st.data(), text=st.sampled_from([f"{STEM}\n{MB}\n{BRANCH}\n{SAME}\n{FUSE}\n", OFA, TFNAS]))
def test_no_changed_byte_makes_a_row_that_cannot_be(tmp_path, data, text):
    content = bytearray(text.encode())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    formats = {STEM[:5]: "inas-text", OFA[:5]: "ofa-yaml", TFNAS[:5]: "tfnas-csv"}
    try:
        table = read_table(written(tmp_path, bytes(content)), conditions(), format=formats[text[:5]])
    except KitError as error:
        assert str(error).isprintable()
        return
    for key, row in table.rows.items():
        assert key == row.key == Row.model_validate_json(row.model_dump_json()).key
        assert 0 < row.p10_us <= row.p50_us < math.inf
    assert isinstance(table, LatencyTable)


@needs_data
def test_every_network_of_the_space_is_in_the_whole_table():
    table = read_table(DATA / "local_cpu" / "lut_res224_cpu_1thread.txt", conditions())
    assert len(table.rows) == 2798 - 266  # the identities are no blocks
    draw, space = random.Random(0), INASSpace("inas")
    for arch in (space.smallest(), space.biggest(), *(space.sample(draw) for _ in range(100))):
        assert min(table.latency_us(arch.blocks((224, 224)))) > 0


@needs_data
def test_other_people_s_tables_are_read():
    counts = {}
    for name in ("ofa_phone/note10_192_lookup_table.yaml", "tfnas/tfnas_titanrtx_bs32.csv"):
        counts[name] = len(read_table(DATA / name, conditions()).rows)
    assert list(counts.values()) == [96, 4560 - 6]
    path = DATA / "inas_readme_cpu_models.csv"
    assert len(read_network_csv(path, latency_ms=["measured_ms"], ignore=["supernet"]).latency_ms) == 8


@needs_data
def test_sums_are_those_given_with_the_networks():
    from benchmarks.others_latency import PARTS, arch_of, part_sums

    table = read_table(DATA / "local_cpu" / "lut_res224_cpu_1thread.txt", conditions())
    lines = (DATA / "local_cpu" / "archs_lut_vs_e2e.jsonl").read_text(encoding="utf-8").splitlines()[::8]
    given_ms = [json.loads(line) for line in lines]
    found = part_sums([arch_of(one["arch"]) for one in given_ms], table.latency_us)
    wanted = np.array([[one["lut_ms"][part] for part in PARTS] for one in given_ms])
    assert found == pytest.approx(wanted, abs=6e-5)
