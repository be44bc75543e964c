"""Markdown tables for a pull request; every label is escaped, so that a model's name cannot write the page."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from inas_deploy.report import device, modules, text
from targets.against_baseline import GateResult
from targets.records import BenchRun, Comparison, Measurement

TOP_MODULES = 12
_SYNTAX = re.compile(r"([\\`*_{}\[\]|~$])")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def escape(value: str) -> str:
    """Make text mean itself in a table cell or a line: no markup, links, images, HTML, mentions or new cells."""
    line = "".join(_ENTITIES.get(c, c) for c in text.clean(value).strip())
    line = _SYNTAX.sub(r"\\\1", line)
    # Bare addresses, mentions and issue numbers link without any markup; a zero-width space prevents that.
    line = re.sub(r"(?i)(:)(?=//)|(\bwww)(?=\.)", "\\g<0>\N{ZERO WIDTH SPACE}", line)
    return re.sub(r"[@#](?=\w)", "\\g<0>\N{ZERO WIDTH SPACE}", line)


def to_markdown(run: BenchRun, comparisons: Sequence[Comparison] = (), gate: GateResult | None = None) -> str:
    """Render a run as Markdown (GitHub flavour: tables and ``<details>``).

    Args:
        run: What was measured.
        comparisons: Comparisons to show with it, first.
        gate: What a gate said of it, shown before everything else.

    Returns:
        The document, ending with a newline.
    """
    parts = ["## Latency report"]
    parts += [_stand_ins(run)] if any(m.variant.stand_in for m in run.measurements) else []
    parts += [_gate(gate)] if gate else []
    parts += [_comparisons(comparisons)] if comparisons else []
    parts += [_figures(run), _verdicts(run)] if run.measurements else ["This run holds no measurement."]
    parts += [_profile(m) for m in run.measurements if m.profile]
    parts += [_details("Settings", _settings(run)), _details("Environment", _environment(run))]
    parts.append(f"Run {escape(run.run_id)}, {run.created_at:%Y-%m-%d %H:%M:%S} UTC.")
    return "\n\n".join(parts) + "\n"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], right: Iterable[int] = ()) -> str:
    """A Markdown table from raw cells.

    Args:
        header: Column names.
        rows: Cells, unescaped, as many as columns.
        right: Indices of the columns that are aligned right.
    """
    aligned = set(right)
    lines = [_row(header), _row(["---:" if i in aligned else "---" for i in range(len(header))], raw=True)]
    return "\n".join(lines + [_row(row) for row in rows])


def _row(cells: Sequence[str], raw: bool = False) -> str:
    return "| " + " | ".join(cell if raw else escape(cell) for cell in cells) + " |"


def _details(summary: str, body: str) -> str:
    return f"<details><summary>{summary}</summary>\n\n{body}\n\n</details>"


def _stand_ins(run: BenchRun) -> str:
    lines = []
    for measurement in run.measurements:
        if measurement.variant.stand_in:
            warning = text.warnings_of(measurement.variant)[0]
            lines.append(f"> **{escape(measurement.variant.label)}: {escape(warning)}**")
    return "\n>\n".join(lines)


def _label(measurement: Measurement) -> str:
    kind = measurement.variant.stand_in
    return measurement.variant.label + (f" (STAND-IN: {kind})" if kind else "")


def _figures(run: BenchRun) -> str:
    header = ("variant", "p10 ms", "interval of p10", "p50", "p90", "p99", "min", "sessions", "verdict")
    rows = []
    for m in run.measurements:
        s = m.stats
        figures = [text.latency(v) for v in (s.p50_ms, s.p90_ms, s.p99_ms, s.min_ms)]
        rows.append(
            (_label(m), text.plus_minus(s), text.interval(s), *figures, str(s.sessions), text.verdict_word(m)),
        )
    return table(header, rows, right=range(1, 8)) + "\n\n± and interval: 95 %, of p10, over sessions."


def _verdicts(run: BenchRun) -> str:
    lines = []
    for m in run.measurements:
        lines.append(f"- **{escape(m.variant.label)}**: {escape(text.headline(m))}")
        lines += [f"  - Note: {escape(note)}" for note in text.warnings_of(m.variant)]
        lines += [f"  - {escape(note)}" for note in device.sustained_notes(m)]
        lines += [f"  - No per-op times: {escape(m.profile_failure)}"] if m.profile_failure else []
        lines += [f"  - To do: {escape(text.sentence(advice))}" for advice in m.verdict.advice]
    return "\n".join(lines)


def _comparisons(comparisons: Sequence[Comparison]) -> str:
    parts = []
    for c in comparisons:
        said = f"**{c.answer.upper()}**: {escape(text.sentence(c.sentence))}"
        header = ("A", "B", *text.COMPARISON_COLUMNS)
        cells = (c.a, c.b, *text.comparison_cells(c))
        parts.append(f"{said}\n\n{table(header, [cells], right=range(2, len(header)))}")
    return "\n\n".join(["### Comparisons", *parts])


def _gate(gate: GateResult) -> str:
    header = ("variant", "against the baseline", *text.GATE_COLUMNS)
    rows = [(one.variant, one.answer.upper(), *text.gate_cells(one)) for one in gate.judged]
    lines = [f"- **{escape(one.variant)}**: {escape(text.sentence(one.sentence))}" for one in gate.judged]
    lines += [f"- {escape(line)}" for line in text.gate_remarks(gate)]
    said = f"**{escape(text.gate_sentence(gate))}**"
    return "\n\n".join([f"### Gate\n\n{said}", table(header, rows, right=range(2, 5)), "\n".join(lines)])


def _profile(measurement: Measurement) -> str:
    profile = measurement.profile
    if profile is None:
        return ""
    found = modules.by_module(profile, modules.readable_depth(profile))
    found = sorted(found, key=lambda m: -m.total_us)
    rows = [_module_row(m) for m in found[:TOP_MODULES]]
    rest = found[TOP_MODULES:]
    if rest:
        layout_us, compute_us = sum(m.layout_us for m in rest), sum(m.compute_us for m in rest)
        left = modules.ModuleTime(f"{len(rest)} more", compute_us, layout_us, sum(m.share for m in rest), ())
        rows.append((*_module_row(left)[:4], str(sum(len(m.ops) for m in rest))))
    body = [escape(text.profile_sentence(profile))]
    body += [escape(text.sentence(note)) for note in profile.notes]
    body.append(table(("module", "compute µs", "layout µs", "share", "ops"), rows, right=range(1, 5)))
    return _details(f"Time by module: {escape(measurement.variant.label)}", "\n\n".join(body))


def _module_row(module: modules.ModuleTime) -> tuple[str, ...]:
    compute, layout = (text.fixed(us, 1) for us in (module.compute_us, module.layout_us))
    return (module.name, compute, layout, text.percent(module.share), str(len(module.ops)))


def _settings(run: BenchRun) -> str:
    rows = []
    for m in run.measurements:
        rows += [(m.variant.label, key, value, "asked for") for key, value in text.settings_rows(m)]
        rows += [(m.variant.label, key, value, "actual") for key, value in text.merged(s.actual for s in m.sessions)]
        rows += [(m.variant.label, k, value, "version") for k, value in text.merged(s.versions for s in m.sessions)]
        rows.append((m.variant.label, "artifact SHA-256", m.variant.artifact.sha256, "actual"))
    return table(("variant", "key", "value", "kind"), rows)


def _environment(run: BenchRun) -> str:
    rows = text.environment_rows(run) + sorted(run.environment.versions.items())
    return table(("what", "value"), rows)
