"""Show a bench while it runs, without disturbing it."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from inas_deploy.report.text import clean
from targets.measure import Progress
from targets.statistics import headline_of, inferences, session_headline_ms

# The bar shares the machine with what is measured, so it is drawn seldom.
_REDRAWS_PER_SECOND = 2


class BenchProgress:
    """A bar on a terminal, a line a step elsewhere; a context manager that is called with each step.

    Args:
        console: Where to, normally the standard error stream.
        quiet: Show nothing.
    """

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self.console = console
        self.quiet = quiet
        self.saved = 0
        self.total = 0
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            refresh_per_second=_REDRAWS_PER_SECOND,
            transient=True,
            disable=quiet or not console.is_terminal,
        )
        self._task = self._bar.add_task("measuring", total=None)

    def __enter__(self) -> BenchProgress:
        """Start drawing."""
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop drawing."""
        self._bar.stop()

    def __call__(self, step: Progress) -> None:
        """Show one step."""
        self.saved, self.total = step.done, step.total
        label = clean(step.variant.label)
        what = "per-op profile of " if step.step == "profile" else ""
        self._bar.update(self._task, completed=step.done, total=step.total, description=escape(f"{what}{label}"))
        if self.quiet or self.console.is_terminal or step.step == "started":
            return
        line = f"[{step.done}/{step.total}] {step.step} {label}"
        if step.session is not None:
            headline = headline_of([step.session])
            figure_ms = session_headline_ms(step.session, headline)
            line += f": {headline} {figure_ms:.3f} ms, {inferences(step.session)} runs, id {step.session.session_id}"
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)
