"""Tables for a terminal of 80 columns and more; words carry every verdict, colour only repeats them."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from inas_deploy.report import device, modules, text
from targets.against_baseline import GateResult
from targets.records import BenchRun, Comparison, Measurement, OpProfile

_BAR_CELLS = 14
_ANSWER_STYLE = {"slower": "bold red", "faster": "bold green", "same": "bold", "cannot tell": "bold yellow"}


def bench_table(run: BenchRun) -> RenderableType:
    """Figures of a run, one row a variant, and below them every warning, reason and advice.

    Args:
        run: What was measured.
    """
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 1, 0, 0))
    table.add_column("variant", ratio=1, min_width=18, overflow="fold")
    table.add_column("p10 ms", justify="right", no_wrap=True)
    for name in ("p50", "p90", "p99", "n"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for measurement in run.measurements:
        stats = measurement.stats
        table.add_row(
            _label(measurement),
            Text(text.plus_minus(stats), style="bold"),
            *(text.latency(value) for value in (stats.p50_ms, stats.p90_ms, stats.p99_ms)),
            str(stats.sessions),
            _verdict(measurement),
        )
    legend = Text("±: 95 % interval of p10 over sessions; n: sessions", style="dim")
    return Group(table, legend, *_remarks(run))


def profile_view(measurement: Measurement) -> RenderableType:
    """Where the time of a variant goes: by module, its slowest operations, and how far to believe it.

    Args:
        measurement: With or without a profile.
    """
    profile = measurement.profile
    title = Rule(_label(measurement), align="left", style="dim")
    if profile is None:
        failure = measurement.profile_failure
        return Group(title, Text(f"no per-op profile: {text.clean(failure)}", style="yellow")) if failure else Group()
    lines = [Text(text.profile_sentence(profile)), *(Text(f"- {text.sentence(note)}") for note in profile.notes)]
    tables = [module_table(profile), Text(), op_table(profile), Text()] if profile.ops else []
    return Group(title, *tables, *lines)


def op_table(profile: OpProfile, top: int = 8) -> RenderableType:
    """The slowest operations of a profile.

    Args:
        profile: Per-op times.
        top: Rows at most.
    """
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 1, 0, 0))
    table.add_column("operation", ratio=3, overflow="fold")
    table.add_column("type", ratio=2, overflow="fold")
    table.add_column("module", ratio=3, overflow="fold")
    table.add_column("µs", justify="right", no_wrap=True)
    table.add_column("share", justify="right", no_wrap=True)
    shown = modules.slowest(profile, top)
    for op in shown:
        module = modules.UNATTRIBUTED if op.module is None else op.module or modules.TOP_MODULE
        kind = text.clean(op.op_type) + (" (layout)" if op.kind == "layout" else "")
        cells = (Text(text.clean(op.name)), Text(kind), Text(text.clean(module)))
        table.add_row(*cells, text.fixed(op.latency_us, 1), text.percent(op.share))
    rest = len(profile.ops) - len(shown)
    more = Text(f"{rest} shorter operations not shown", style="dim") if rest else Text()
    return Group(table, *([more] if rest else []))


def module_table(profile: OpProfile, depth: int | None = None) -> RenderableType:
    """Time by module in the order of execution, with a bar: ``█`` compute, ``▒`` layout, ``░`` unattributed.

    Args:
        profile: Per-op times.
        depth: Components of the module path to keep; ``None`` for the most that stays readable.
    """
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 1, 0, 0))
    table.add_column("module", ratio=1, overflow="fold")
    table.add_column("", no_wrap=True, min_width=_BAR_CELLS)
    for name in ("compute µs", "layout µs", "share", "ops"):
        table.add_column(name, justify="right", no_wrap=True)
    found = modules.by_module(profile, modules.readable_depth(profile) if depth is None else depth)
    longest_us = max((module.total_us for module in found), default=0.0)
    for module in found:
        table.add_row(
            Text(text.clean(module.name), style="italic" if module.module is None else ""),
            _bar(module, longest_us),
            text.fixed(module.compute_us, 1),
            text.fixed(module.layout_us, 1),
            text.percent(module.share),
            str(len(module.ops)),
        )
    legend = Text("█ compute   ▒ layout change   ░ joined to no module", style="dim")
    return Group(table, legend)


def comparison_panel(comparison: Comparison) -> RenderableType:
    """The answer of a comparison in a frame: sentence, interval drawn against the margin, and the evidence.

    Args:
        comparison: Answer and evidence.
    """
    style = _ANSWER_STYLE[comparison.answer]
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim")
    facts.add_column(overflow="fold")
    facts.add_row("A", Text(text.clean(comparison.a)))
    facts.add_row("B", Text(text.clean(comparison.b)))
    for name, cell in zip(text.COMPARISON_COLUMNS, text.comparison_cells(comparison), strict=True):
        facts.add_row(name, cell)
    key = Text("[ ]: the same within the margin; ├─●─┤: effect with its interval; ┼: no effect", style="dim")
    body = Group(Text(text.sentence(comparison.sentence)), Text(), Text(interval_line(comparison)), key, Text(), facts)
    title = Text(f" {comparison.answer.upper()} ", style=style)
    return Panel(body, title=title, title_align="left", border_style=style.removeprefix("bold").strip() or "none")


def gate_panel(gate: GateResult) -> RenderableType:
    """What a gate says of a run: one answer a variant with its evidence, and the verdict of all together.

    Args:
        gate: The answers.
    """
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 1, 0, 0))
    table.add_column("variant", ratio=1, min_width=18, overflow="fold")
    table.add_column("answer", no_wrap=True)
    for name in ("effect", "interval", "beyond"):
        table.add_column(name, justify="right", no_wrap=True)
    lines: list[Text] = []
    for one in gate.judged:
        answer = Text(one.answer.upper(), style=_ANSWER_STYLE[one.answer])
        table.add_row(Text(text.clean(one.variant)), answer, *text.gate_cells(one)[:3])
        about = f"{text.clean(one.variant)}: " if len(gate.judged) > 1 else ""
        lines.append(Text(f"{about}{text.sentence(one.sentence)}"))
    lines += [Text(line, style="yellow") for line in text.gate_remarks(gate)]
    title = Text(f" {text.gate_sentence(gate)} ", style="bold red" if gate.regressed else "bold")
    border = "red" if gate.regressed else "none"
    return Panel(Group(table, Text(), *lines), title=title, title_align="left", border_style=border)


def interval_line(comparison: Comparison, cells: int = 49) -> str:
    """Draw the interval of the effect on a line: ``[ ]`` margin, ``├─●─┤`` effect and interval, ``┼`` zero.

    Args:
        comparison: Gives effect, interval and margin.
        cells: Characters of the line without its ends; odd, so that zero has a cell.
    """
    reach = text.effect_reach(comparison)

    def place(value: float) -> int:
        half = cells // 2
        return half + round(max(-1.0, min(1.0, value / reach)) * half)

    line = ["·"] * cells
    low, high = place(comparison.effect_low), place(comparison.effect_high)
    line[low : high + 1] = ["├", *"─" * (high - low - 1), "┤"] if high > low else ["│"]
    line[place(-comparison.margin)], line[place(comparison.margin)] = "[", "]"
    line[place(0.0)] = "┼"
    line[place(comparison.effect)] = "●"
    return f"{text.signed_percent(-reach)} {''.join(line)} {text.signed_percent(reach)}"


def _label(measurement: Measurement) -> Text:
    variant = measurement.variant
    label = Text(text.clean(variant.label))
    if variant.stand_in:
        label.append(f" STAND-IN: {variant.stand_in}", style="bold red")
    return label


def _verdict(measurement: Measurement) -> Text:
    valid = measurement.verdict.status == "valid"
    return Text(text.verdict_word(measurement), style="green" if valid else "bold yellow")


def _remarks(run: BenchRun) -> list[Text]:
    several = len(run.measurements) > 1
    lines: list[Text] = []
    advice: dict[str, None] = {}  # in order, and once however many variants it is for
    for measurement in run.measurements:
        about = f"{text.clean(measurement.variant.label)}: " if several else ""
        lines += [Text(f"! {about}{line}", style="bold red") for line in text.warnings_of(measurement.variant)]
        lines += [Text(f"{about}{line}") for line in device.sustained_notes(measurement)]
        lines += [Text(f"WEAK {about}{text.sentence(why)}", style="yellow") for why in measurement.verdict.reasons]
        advice |= dict.fromkeys(measurement.verdict.advice)
    return [*lines, *(Text(f"  -> {text.sentence(line)}") for line in advice)]


def _bar(module: modules.ModuleTime, longest_us: float) -> Text:
    if longest_us <= 0:
        return Text()
    if module.module is None:
        return Text("░" * round(_BAR_CELLS * module.total_us / longest_us))
    full = round(_BAR_CELLS * module.total_us / longest_us)
    layout = min(full, round(_BAR_CELLS * module.layout_us / longest_us))
    bar = Text("█" * (full - layout), style="blue")
    return bar.append("▒" * layout, style="yellow")
