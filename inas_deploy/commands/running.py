"""Run a plan from the command line: transports opened, progress shown, an interruption explained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from rich.console import Console

from inas_deploy.progress import BenchProgress
from targets.errors import KitError
from targets.inventory import Device
from targets.measure import measure
from targets.opening import Target, open_target
from targets.plan import BenchPlan
from targets.records import BenchRun
from targets.store import ResultStore


@contextmanager
def opened(devices: Iterable[Device]) -> Iterator[Mapping[str, Target]]:
    """The devices opened for use, by name; closed at the end.

    Raises:
        DeviceUnavailable: If one of them cannot be used now.
    """
    with ExitStack() as stack:
        yield {device.name: stack.enter_context(open_target(device)) for device in devices}


def run_plan(plan: BenchPlan, targets: Mapping[str, Target], store: str, *, resume: bool, quiet: bool) -> BenchRun:
    """Measure a plan, showing progress on the standard error stream.

    Args:
        plan: What to measure.
        targets: By device name.
        store: Where results go.
        resume: Go on with an unfinished run of an equal plan.
        quiet: Show no progress unless it is drawn on a terminal.

    Raises:
        KitError: As :func:`targets.measure.measure`; what was measured is kept.
    """
    console = Console(stderr=True)
    with ResultStore(store) as results, BenchProgress(console, quiet=quiet and not console.is_terminal) as progress:
        try:
            return measure(plan, results, targets, resume=resume, on_progress=progress)
        except (KeyboardInterrupt, KitError) as stop:
            if not progress.saved and isinstance(stop, KeyboardInterrupt):
                console.print("stopped before the first session was done; nothing was kept", highlight=False)
            if progress.saved:
                console.print(
                    f"stopped: {progress.saved} of {progress.total} steps are kept in {store}; "
                    "go on by repeating the command with --resume",
                    markup=False,
                    highlight=False,
                    soft_wrap=True,
                )
            raise
