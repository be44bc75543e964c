"""``inas-deploy report``: show again what a store holds."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from inas_deploy.commands.options import Json, Store, check_outputs
from inas_deploy.report.html import write_html
from inas_deploy.report.markdown import to_markdown
from inas_deploy.report.terminal import bench_table, comparison_panel, profile_view
from inas_deploy.report.text import clean
from targets.compare import MIN_PAIRS, compare
from targets.errors import StoreError
from targets.files import write_atomic
from targets.measure import assemble
from targets.store import DEFAULT_STORE, ResultStore


def report(
    store: Store = DEFAULT_STORE,
    run: Annotated[str | None, typer.Option(help="Id of the run, or its beginning; the newest by default.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write one self-contained HTML file.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write Markdown tables for a pull request.")] = None,
    list_runs: Annotated[bool, typer.Option("--list", help="List the runs and exit.")] = False,
    as_json: Json = False,
) -> None:
    """Show a run from a store, or write it as HTML or Markdown.

    [bold]Examples[/bold]

    inas-deploy report --list

    inas-deploy report --html out.html --markdown out.md
    """
    check_outputs(html, markdown, keep=[store])
    if "://" not in store and not Path(store).exists():
        raise StoreError(f"store {store} does not exist", "Run a bench first, or name its --store.")
    with ResultStore(store) as results:
        if list_runs:
            _list(results, as_json)
            return
        found = results.find(run)
        shown = assemble(results, found)
    if not shown.measurements:
        raise StoreError(f"run {found.run_id} in {store} holds no finished session", "Go on with --resume.")
    complete = len(shown.measurements) == 2 and {m.stats.sessions for m in shown.measurements} == {found.plan.sessions}
    judged = found.plan.kind == "compare" and complete and found.plan.sessions >= MIN_PAIRS
    comparisons = [compare(*shown.measurements, margin=found.plan.margin)] if judged else []
    if html is not None:
        write_html(shown, html, comparisons=comparisons)
    if markdown is not None:
        write_atomic(markdown, to_markdown(shown, comparisons=comparisons).encode())
    if as_json:
        sys.stdout.write(shown.model_dump_json(indent=2) + "\n")
        return
    console = Console()
    console.print(bench_table(shown))
    for measurement in shown.measurements:
        console.print(profile_view(measurement))
    for comparison in comparisons:
        console.print(comparison_panel(comparison))
    for path in (html, markdown):
        if path is not None:
            console.print(f"wrote {path}", markup=False, highlight=False, soft_wrap=True)


def _list(results: ResultStore, as_json: bool) -> None:
    if as_json:
        plain = [
            {
                "run_id": stored.run_id,
                "created_at": stored.created_at.isoformat(),
                "kind": stored.plan.kind,
                "finished": stored.finished,
                "variants": [variant.label for variant in stored.plan.variants],
            }
            for stored in results.runs()
        ]
        sys.stdout.write(json.dumps(plain, indent=2) + "\n")
        return
    table = Table("run", "started (UTC)", "kind", "state", "variants")
    for stored in results.runs():
        state = "complete" if stored.finished else "unfinished"
        labels = Text("\n".join(clean(variant.label) for variant in stored.plan.variants))
        table.add_row(stored.run_id[:12], f"{stored.created_at:%Y-%m-%d %H:%M}", stored.plan.kind, state, labels)
    Console().print(table)
