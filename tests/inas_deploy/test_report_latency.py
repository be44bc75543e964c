import itertools
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from inas_deploy.report import latency_plots
from inas_deploy.report.latency import latency_html, write_latency_html, write_latency_plots
from inas_deploy.report.latency_data import BlockErrors, LatencyReport, NetworkErrors, Staircase
from inas_deploy.report.latency_figures import by_kind, error_figures, judged, spearman, worst
from targets.errors import UsageError
from tests.inas_deploy.test_report import HOSTILE, Page, shown_in_browser


def sample_blocks(count: int = 40) -> BlockErrors:
    rng = np.random.default_rng(0)
    measured = np.geomspace(4, 4000, count)
    predicted = measured * np.exp(rng.normal(0, 0.05, count))
    kinds = [f"inas.{'mbconv' if n % 3 else 'head'}" for n in range(count)]
    names = [f"{kind} number {n}" for n, kind in enumerate(kinds)]
    return BlockErrors(names, kinds, measured, predicted, predicted * 0.9, predicted * 1.1)


def sample_report(**changes: object) -> LatencyReport:
    measured = np.linspace(8.0, 40.0, 12)
    predicted = measured * np.where(np.arange(12) % 2, 1.01, 0.98)
    networks = NetworkErrors(
        [f"arch {n}" for n in range(12)], measured, predicted, predicted * 0.97, predicted * 1.015,
        [n % 4 == 0 for n in range(12)], 0.9,
    )  # fmt: skip
    channels = np.arange(8.0, 65.0)
    line = 3 + np.ceil(channels / 8)
    stairs = Staircase(
        "inas.mbconv 56x56", "output channels", channels, line, line - 1, line + 1, channels[::8], line[::8]
    )
    report = LatencyReport(
        "inas at 224x224 on local", "2026-01-02 03:04:05 UTC", blocks=sample_blocks(), networks=networks,
        staircases=(stairs, replace(stairs, title="inas.stem")), noise_floor=0.0123, repeatability=0.0084,
        block_method="five folds by block key", settings={"runtime": "onnxruntime"}, versions={"onnxruntime": "1.22"},
        facts={"carriers": "80"}, notes=("one sentence",),
    )  # fmt: skip
    return replace(report, **changes)


@pytest.fixture(scope="module")
def document() -> str:
    return latency_html(sample_report())


def test_the_page_says_the_figures(document):
    report = sample_report()
    page = Page(document)
    found = judged(report.blocks, 20.0)
    assert found.count == int(np.sum(report.blocks.measured_us >= 20))
    assert f"{100 * found.mape:.1f} %" in page.text
    assert "noise floor 1.2 %" in page.text
    assert "differs by 0.8 %" in page.text
    assert "8 networks" not in page.text.replace("9 networks", "")
    assert "9 networks" in page.text, "those used to calibrate do not count"
    for said in ("One sentence.", "Five folds by block key.", "onnxruntime", "carriers", "2026-01-02 03:04:05 UTC"):
        assert said in page.text
    furthest = worst(report.blocks, 20.0, 15)
    assert [report.blocks.name[n] in page.text for n in furthest] == [True] * 15
    assert "STAND-IN" not in page.text


def test_the_page_needs_nothing_but_itself_and_is_accessible(document):
    page = Page(document)
    assert not page.tags & {"script", "link", "iframe", "object", "embed", "form", "base"}
    assert re.findall(r"url\((?!#)", document) == []
    identities = [a["id"] for _, a in page.elements if a.get("id")]
    assert len(identities) == len(set(identities))
    assert {a["href"] for t, a in page.elements if t == "a"} <= {"#" + i for i in identities}
    pictures = [a for t, a in page.elements if t == "svg"]
    assert len(pictures) == 2 * len(latency_plots.NAMES)
    assert all(a.get("role") == "img" and re.search(r"\d", a.get("aria-label") or "") for a in pictures)
    headings = [int(t[1]) for t in (tag for tag, _ in page.elements) if re.fullmatch(r"h[1-6]", t)]
    assert headings[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(headings))


def test_equal_reports_give_equal_files(tmp_path, document):
    write_latency_html(sample_report(), tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == document
    written = write_latency_plots(sample_report(), tmp_path)
    assert [path.name for path in written] == [f"{name}.png" for name in latency_plots.NAMES]
    first = (tmp_path / "networks.png").read_bytes()
    assert write_latency_plots(sample_report(blocks=None, staircases=()), tmp_path) == [tmp_path / "networks.png"]
    assert (tmp_path / "networks.png").read_bytes() == first
    with Image.open(tmp_path / "blocks.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.shape[1] > 1000
    assert pixels[0, 0].tolist() == [255, 255, 255], "on white, whatever shows it"


def test_stand_ins_are_loud():
    page = Page(latency_html(sample_report(stand_in="simulated", blocks=None, networks=None, staircases=())))
    assert "STAND-IN: a simulated device; these figures are computed and were not measured." in page.text


def test_what_is_missing_is_said_or_left_out(tmp_path):
    bare = sample_report(blocks=None, networks=None, staircases=(), noise_floor=None, repeatability=None)
    page = Page(latency_html(bare))
    assert "holds no prediction that can be judged" in page.text
    assert "svg" not in page.tags
    assert write_latency_plots(bare, tmp_path) == []
    unknown = sample_report(blocks=sample_blocks(3), networks=None, staircases=(), noise_floor=None)
    assert "noise floor unknown" in Page(latency_html(unknown)).text
    short = sample_report(least_us=1e6, networks=None, staircases=())
    page = Page(latency_html(short))
    assert "holds no prediction that can be judged" in page.text
    assert "and 14 shorter" in page.text


def test_hostile_names_stay_text():
    blocks = sample_blocks(25)
    hostile = replace(blocks, name=[HOSTILE] * 25, kind=[HOSTILE, "_hidden", "a$b$c^2"] * 8 + ["$"])
    stairs = replace(sample_report().staircases[0], title=HOSTILE, axis=HOSTILE)
    report = sample_report(
        title=HOSTILE,
        blocks=hostile,
        networks=None,
        staircases=(stairs,),
        settings={HOSTILE: HOSTILE},
        notes=(HOSTILE,),
    )
    document = latency_html(report)
    page = Page(document)
    assert not page.tags & {"script", "img"}
    assert "<script>alert(1)</script>" in page.text
    assert "\x1b" not in document
    assert "\u202e" not in document
    assert document.count("> _hidden</text>") == 4, "legend and axis, wide and narrow"


def test_many_blocks_and_staircases_are_thinned_and_that_is_said():
    blocks = sample_blocks(latency_plots.MAX_DOTS + 500)
    far = replace(blocks, predicted_us=np.where(np.arange(len(blocks.name)) == 7, 1e6, blocks.predicted_us))
    report = sample_report(blocks=far, staircases=sample_report().staircases * 7)
    notes = {name: drawing[2] for name, drawing in latency_plots.drawings(report).items()}
    assert notes["blocks"] == "3,000 of 3,500 blocks are drawn. 8 with a larger error lie beyond the lower panel."
    assert notes["staircases"] == "2 more are left out."


def test_columns_that_do_not_fit_are_refused():
    blocks = sample_blocks(5)
    with pytest.raises(UsageError, match=r"blocks have columns of \[4, 5\] entries"):
        replace(blocks, kind=["a"] * 4)
    for bad in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(UsageError, match="blocks hold a figure that is not positive"):
            replace(blocks, low_us=np.array([1, 2, bad, 3, 4.0]))
    with pytest.raises(UsageError, match="networks"):
        replace(sample_report().networks, calibration=[True])


def test_figures_are_what_they_say():
    measured = np.array([100.0, 100.0, 100.0, 100.0])
    predicted = np.array([104.0, 96.0, 108.0, 120.0])
    found = error_figures(measured, predicted, predicted - 5, predicted + 5)
    assert found.mape == pytest.approx(0.09)
    assert found.bias == pytest.approx(0.07)
    assert found.p50 == pytest.approx(0.06)
    assert (found.within_5, found.within_10, found.covered) == (0.5, 0.75, 0.5)
    assert found.spearman is None, "equal measurements have no order"
    empty = np.array([])
    assert error_figures(empty, empty, empty, empty) is None


def test_kinds_count_their_short_blocks_apart():
    blocks = sample_blocks(40)
    rows = by_kind(blocks, 20.0)
    assert [kind for kind, _, _ in rows] == ["inas.head", "inas.mbconv"]
    assert sum(figures.count for _, figures, _ in rows) + sum(short for _, _, short in rows) == 40
    assert all(blocks.measured_us[n] >= 20 for n in worst(blocks, 20.0, 100))


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=3, max_size=30))
def test_rank_correlation_is_scipys(pairs):
    first, second = (np.array(column, dtype=float) for column in zip(*pairs, strict=True))
    found = spearman(first, second)
    if found is None:
        assert len(set(first)) == 1 or len(set(second)) == 1
    else:
        stats = pytest.importorskip("scipy.stats")
        assert found == pytest.approx(stats.spearmanr(first, second).statistic, abs=1e-9)


def test_a_browser_shows_the_page_without_overflow(tmp_path):
    write_latency_html(sample_report(stand_in="virtual"), tmp_path / "report.html")
    width, pictures, height = shown_in_browser(tmp_path, 400)
    assert width <= 400
    assert pictures == 2 * len(latency_plots.NAMES)
    assert height > 2000
