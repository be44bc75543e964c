import itertools
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from PIL import Image
from rich.console import Console

from inas_deploy.report import modules, plots, text
from inas_deploy.report.html import ReportImage, to_html, write_html
from inas_deploy.report.markdown import escape, table, to_markdown
from inas_deploy.report.terminal import (
    bench_table,
    comparison_panel,
    interval_line,
    module_table,
    op_table,
    profile_view,
)
from targets.errors import UsageError
from targets.records import BenchRun, OpProfile, OpTime
from targets.statistics import latency_stats
from tests.inas_deploy.sample_run import layout_sample, real_run, relabelled, sample_comparison

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{7*7}}$x^2$|`a`\n\x1b[31m[l](http://e.x)\u202e"
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Collects elements and text, and checks that every element is closed in order."""

    def __init__(self, document: str):
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(document)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in {"style", "title"}:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    @property
    def tags(self) -> set[str]:
        return {tag for tag, _ in self.elements}


def printed(renderable, width: int = 80) -> str:
    console = Console(width=width, force_terminal=False, color_system=None)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def test_why_a_profile_is_missing_is_in_every_report():
    run = real_run()
    failed = [m.model_copy(update={"profile": None, "profile_failure": "<b>odd|line"}) for m in run.measurements]
    broken = run.model_copy(update={"measurements": tuple(failed)})
    assert "<b>odd|line" in printed(profile_view(broken.measurements[0]))
    assert "&lt;b&gt;odd|line" in to_html(broken)
    assert "No per-op times" in to_markdown(broken)
    assert "<b>" not in to_markdown(broken)


def test_page_shows_the_measured_figures():
    run = real_run()
    page = Page(to_html(run))
    for measurement in run.measurements:
        assert measurement.variant.label in page.text
        assert text.plus_minus(measurement.stats) in page.text
        assert text.interval(measurement.stats) in page.text
        for value in (measurement.stats.p50_ms, measurement.stats.p99_ms):
            assert text.latency(value) in page.text
        assert measurement.variant.artifact.sha256 in page.text
    assert page.text.count("WEAK") >= 2
    assert "not independent" in page.text
    profile = run.measurements[0].profile
    assert profile is not None
    slowest = max(profile.ops, key=lambda op: op.latency_us)
    assert slowest.name in page.text
    assert text.fixed(slowest.latency_us, 1) in page.text
    assert "Per-op times were not measured" in page.text


def test_page_needs_nothing_but_itself():
    run = layout_sample(real_run())
    document = to_html(run, comparisons=[sample_comparison()])
    page = Page(document)
    assert not page.tags & {"script", "link", "iframe", "object", "embed", "form", "base"}
    for tag, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "data", "srcset", "action"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:image/")), (tag, name, value)
        assert not any(name.startswith("on") for name in attributes)
    assert "@import" not in document
    assert re.findall(r"url\((?!#)", document) == []
    policy = [a for t, a in page.elements if t == "meta" and a.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy[0]["content"]


def test_page_is_accessible():
    page = Page(to_html(layout_sample(real_run())))
    identities = [a["id"] for _, a in page.elements if a.get("id")]
    assert len(identities) == len(set(identities)), "ids are unique over all pictures"
    targets = {"#" + i for i in identities}
    assert {a["href"] for t, a in page.elements if t == "a"} <= targets
    pictures = [a for t, a in page.elements if t == "svg"]
    assert len(pictures) == 2 * (1 + 3)
    assert all(a.get("role") == "img" and re.search(r"\d", a.get("aria-label") or "") for a in pictures)
    headings = [int(t[1]) for t in (tag for tag, _ in page.elements) if re.fullmatch(r"h[1-6]", t)]
    assert headings[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(headings))
    assert next(a for t, a in page.elements if t == "html")["lang"] == "en"


def test_same_run_gives_the_same_bytes(tmp_path):
    run = layout_sample(real_run())
    again = BenchRun.model_validate_json(run.model_dump_json())
    write_html(run, tmp_path / "a.html", comparisons=[sample_comparison()])
    write_html(again, tmp_path / "b.html", comparisons=[sample_comparison()])
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    assert to_markdown(run) == to_markdown(again)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.html", "b.html"]


def test_hostile_labels_stay_text_in_the_page():
    comparison = sample_comparison(a=HOSTILE, b=HOSTILE, sentence=HOSTILE)
    document = to_html(relabelled(real_run(), HOSTILE), comparisons=[comparison])
    page = Page(document)
    assert not page.tags & {"script", "img"}
    assert "<script>alert(1)</script>" in page.text
    assert "{{7*7}}" in page.text
    assert "\x1b" not in document
    assert "\u202e" not in document
    assert "\\x1b[31m" in page.text


def test_stand_ins_are_loud_everywhere():
    run = layout_sample(real_run())
    page = Page(to_html(run))
    assert page.text.count("STAND-IN: a replayed recording, nothing was measured in this run.") == 2
    assert "STAND-IN: recorded" in page.text
    assert "STAND-IN: recorded" in to_markdown(run)
    assert to_markdown(run).index("STAND-IN") < to_markdown(run).index("p10 ms")
    assert "STAND-IN: recorded" in " ".join(printed(bench_table(run)).split())
    assert "STAND-IN" not in to_html(real_run())


def test_what_lies_beyond_the_axis_is_said():
    run = real_run()
    first = run.measurements[0]
    slow = first.sessions[1].model_copy(update={"samples_ns": (*first.sessions[1].samples_ns, 10**12)})
    sessions = (first.sessions[0], slow, *first.sessions[2:])
    changed = first.model_copy(update={"sessions": sessions, "stats": latency_stats(sessions)})
    page = Page(to_html(run.model_copy(update={"measurements": (changed,)})))
    assert re.search(r"inferences are slower than .* the slowest took 1,000,000 ms", page.text)


def test_extreme_runs_render_in_every_form():
    run = real_run()
    first = run.measurements[0]
    single = first.sessions[0].model_copy(update={"samples_ns": (7,)})
    flat = tuple(s.model_copy(update={"samples_ns": (5, 5, 5)}) for s in first.sessions)
    wild = (single, single.model_copy(update={"samples_ns": (10**15,)}))
    many = tuple(first.sessions[0].model_copy(update={"index": i}) for i in range(40))
    for sessions in ((single,), flat, wild, many):
        changed = first.model_copy(update={"sessions": sessions, "stats": latency_stats(sessions), "profile": None})
        small = run.model_copy(update={"measurements": (changed,)})
        assert "nan" not in Page(to_html(small)).text.lower()
        assert to_markdown(small)
        assert printed(bench_table(small))
    empty = run.model_copy(update={"measurements": ()})
    assert "no measurement" in to_html(empty)
    assert "no measurement" in to_markdown(empty)


def test_one_session_has_no_interval():
    measurement = real_run().measurements[0]
    sessions = measurement.sessions[:1]
    stats = latency_stats(sessions)
    assert text.plus_minus(stats).endswith("± ?")
    assert "unknown" in text.interval(stats)
    assert "interval unknown; 1 session," in text.headline(measurement.model_copy(update={"stats": stats}))


def test_a_narrow_interval_is_not_rounded_to_nothing():
    stats = (
        real_run()
        .measurements[0]
        .stats.model_copy(update={"headline_ms": 5.2, "headline_low_ms": 5.19996, "headline_high_ms": 5.20004})
    )
    assert text.plus_minus(stats) == "5.20000 ± 0.00004"
    assert text.interval(stats) == "5.19996 to 5.20004"


def test_pictures_are_embedded_and_others_refused(tmp_path):
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(tmp_path / "map.png")
    page = Page(to_html(real_run(), images=[ReportImage(tmp_path / "map.png", "photo | map <b>")]))
    image = next(a for t, a in page.elements if t == "img")
    assert image["src"].startswith("data:image/png;base64,")
    assert image["alt"] == "photo | map <b>"
    (tmp_path / "text.png").write_text("<svg onload=alert(1)>")
    for name in ("text.png", "absent.png"):
        with pytest.raises(UsageError, match="cannot be read"):
            to_html(real_run(), images=[ReportImage(tmp_path / name, "x")])
    with pytest.raises(UsageError, match="cannot write"):
        write_html(real_run(), tmp_path / "no" / "x.html")


def test_disagreement_between_sessions_is_shown():
    run = real_run()
    first = run.measurements[0]
    odd = first.sessions[0].model_copy(update={"actual": {"provider": "another", "precision": "fp32"}})
    changed = first.model_copy(update={"sessions": (odd, *first.sessions[1:])})
    mixed = run.model_copy(update={"measurements": (changed,)})
    said = "DIFFERS between sessions: another | CPUExecutionProvider"
    assert said in Page(to_html(mixed)).text
    assert said.replace("|", r"\|") in to_markdown(mixed)


def op(name: str, module: str | None, us: float, kind: str = "compute") -> OpTime:
    return OpTime(name=name, op_type="Conv", latency_us=us, share=us / 100, module=module, kind=kind)


def profile_of(*ops: OpTime) -> OpProfile:
    return OpProfile(
        runtime="r", ops=ops, runs=1, unprofiled_us=100, profiled_us=100, sum_us=100, residual_share=0,
        attributed_share=0.9, layout_share=0.2,
    )  # fmt: skip


def test_modules_add_up_with_layout_and_unattributed_apart():
    profile = profile_of(
        op("b", "s.1.conv", 30),
        op("a", None, 10, "layout"),
        op("c", "s.1", 15, "layout"),
        op("d", "", 40),
        op("e", "s.0", 5),
    )
    found = modules.by_module(profile, 2)
    assert [(m.name, m.compute_us, m.layout_us, len(m.ops)) for m in found] == [
        ("s.1", 30, 15, 2), ("(top module)", 40, 0, 1), ("s.0", 5, 0, 1), ("unattributed", 0, 10, 1)
    ]  # fmt: skip
    assert sum(m.share for m in found) == pytest.approx(1)
    assert modules.readable_depth(profile) == 3
    assert modules.readable_depth(profile, rows=4) == 2
    assert modules.cut("/stage1/conv/x", 2) == "stage1/conv"


@given(st.lists(st.tuples(st.none() | st.text("ab./", max_size=8), st.floats(0, 1e6)), max_size=20), st.integers(1, 5))
def test_no_time_is_lost_in_grouping(entries, depth):
    profile = profile_of(*(op("x", module, us) for module, us in entries))
    total = sum(us for _, us in entries)
    for groups in (modules.by_module(profile, depth), modules.by_kernel(profile)):
        assert sum(getattr(g, "total_us", None) or getattr(g, "latency_us", 0) for g in groups) == pytest.approx(total)


def test_an_empty_profile_renders():
    profile = profile_of()
    assert printed(module_table(profile))
    assert printed(op_table(profile))
    first = real_run().measurements[0].model_copy(update={"profile": profile})
    assert Page(to_html(real_run().model_copy(update={"measurements": (first,)})))


def markdown_tokens(document: str):
    return MarkdownIt("commonmark").enable("table").parse(document)


@settings(max_examples=300)
@given(st.text(max_size=60) | st.text("|`\\*_[]()<>!@#:/w.h&;~$\n\r\t ", max_size=40))
def test_any_text_stays_one_plain_cell(value):
    tokens = markdown_tokens(table(("a", "b"), [(value, "end")]))
    cells = [tokens[i + 1] for i, token in enumerate(tokens) if token.type == "td_open"]
    assert len(cells) == 2
    assert cells[1].content == "end"
    children = cells[0].children or []
    assert {child.type for child in children} <= {"text", "text_special"}
    shown = "".join(child.content for child in children).replace("\N{ZERO WIDTH SPACE}", "")
    assert shown.strip() == text.clean(value).replace("\N{ZERO WIDTH SPACE}", "").strip()


def test_links_and_mentions_are_broken():
    assert re.search(r"https?://|www\.|@\w|#\d", escape("see https://e.x and www.e.x @team #12")) is None


def test_markdown_of_a_hostile_run_has_no_markup_of_its_own():
    comparison = sample_comparison(a=HOSTILE, b=HOSTILE, sentence=HOSTILE)
    tokens = markdown_tokens(to_markdown(relabelled(real_run(), HOSTILE), [comparison]))
    inside = [child.type for token in tokens for child in token.children or []]
    assert not {"link_open", "image", "code_inline"} & set(inside)
    html = [t.content for t in tokens if t.type == "html_block"]
    html += [c.content for t in tokens for c in t.children or [] if c.type == "html_inline"]
    assert all(re.sub(r"</?(details|summary)>", "", h).count("<") == 0 for h in html)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_terminal_tables_fit(width):
    run = layout_sample(real_run())
    profile = run.measurements[0].profile
    assert profile is not None
    outputs = [bench_table(run), op_table(profile), module_table(profile), comparison_panel(sample_comparison())]
    for output in outputs:
        shown = printed(output, width)
        assert max(len(line) for line in shown.splitlines()) <= width
        assert "…" not in shown, "no figure is cut off"


def test_terminal_says_figures_and_verdicts_in_words():
    run = real_run()
    shown = printed(bench_table(run))
    for measurement in run.measurements:
        assert text.plus_minus(measurement.stats) in shown
    assert shown.count("WEAK") >= 2
    assert "valid" in printed(bench_table(layout_sample(run)))


def test_hostile_labels_cannot_drive_the_terminal():
    run = relabelled(real_run(), "\x1b[2J\x1b]0;x\x07[bold]y[/bold][link=http://e.x]z\u202e")
    profile = run.measurements[0].profile
    assert profile is not None
    for output in (bench_table(run), op_table(profile), module_table(profile)):
        shown = printed(output, 200)
        assert not {"\x1b", "\x07", "\u202e"} & set(shown)
        assert "[bold]y[/bold]" in shown


@pytest.mark.parametrize("answer", ["slower", "faster", "same", "cannot tell"])
def test_the_answer_is_a_word(answer):
    shown = printed(comparison_panel(sample_comparison(answer, more_pairs=None)))
    assert answer.upper() in shown
    assert "no number in reach" in shown
    assert "+10.4 %" in shown


def test_the_drawn_effect_lies_where_it_is():
    drawing = plots.effect(sample_comparison(effect=0.1, effect_low=0.05, effect_high=0.2, margin=0.02))
    places = [float(p) for p in re.findall(r"M([\d.]+) 18H([\d.]+)M", drawing)[0]]
    # 300 is zero, and 0.2 reaches 1 / 1.15 of the way to the end.
    assert places == pytest.approx([300 + 300 * 0.05 / 0.23, 300 + 300 * 0.2 / 0.23], abs=0.01)
    assert "interval +5.0 % to +20.0 %" in drawing
    unbounded = plots.effect(sample_comparison(effect_low=-1e300, effect_high=1e300))
    assert re.findall(r"M([\d.]+) 18H([\d.]+)M", unbounded) == [("0", "600")]


def test_the_drawn_interval_keeps_its_order():
    line = interval_line(sample_comparison())
    assert [c for c in line if c in "[┼]├●┤"] == list("[┼]├●┤")
    wide = interval_line(sample_comparison(effect_low=-1e300, effect_high=1e300))
    assert wide.index("[") < wide.index("┼") < wide.index("]")
    assert interval_line(sample_comparison(effect=0.0, effect_low=0.0, effect_high=0.0, margin=0.0))


def shown_in_browser(folder, width: int) -> tuple[int, int, int]:
    """Width, SVG elements and height of ``report.html`` in a frame of a width, in pixels."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium or chrome on the PATH: install one to look at the page")
    # A window cannot be 400 px wide, a frame can; its size is the page's own width when nothing sticks out.
    (folder / "frame.html").write_text(
        f'<iframe id="f" src="report.html" style="width:{width}px;height:900px;border:0"></iframe>'
        '<p id="r"></p><script>'
        'onload=()=>{const d=f.contentDocument.documentElement;r.textContent="width="+d.scrollWidth+" "+'
        'f.contentDocument.querySelectorAll("svg").length+" "+d.scrollHeight}</script>'
    )
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command += ["--allow-file-access-from-files", f"--user-data-dir={folder / 'profile'}"]
    command += ["--window-size=1400,1000", "--dump-dom", f"file://{folder / 'frame.html'}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    found = re.search(r"width=(\d+) (\d+) (\d+)", done.stdout)
    assert found, done.stderr[-400:]
    return int(found[1]), int(found[2]), int(found[3])


@pytest.mark.parametrize("width", [400, 1200])
def test_a_browser_shows_the_page_without_overflow(tmp_path, width):
    write_html(layout_sample(real_run()), tmp_path / "report.html", comparisons=[sample_comparison()])
    found_width, pictures, height = shown_in_browser(tmp_path, width)
    assert found_width <= width
    assert pictures == 9
    assert height > 2000
