"""Templates to HTML pages that show other people's text as text."""

from __future__ import annotations

import importlib.resources
from typing import Any

from inas_deploy.report import text
from targets.extras import require


def render(template: str, **values: Any) -> str:
    """Render one of the templates beside this file.

    Args:
        template: File name of the template.
        values: What it may name, besides ``text`` and ``svg``, which lets a drawing of ours pass unchanged.

    Raises:
        MissingExtra: If jinja2 is not installed.
    """
    jinja2 = require("jinja2", "report")
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
        loader=jinja2.FunctionLoader(_source),
    )
    environment.filters.update(
        ms=text.latency, us=lambda value: text.fixed(value, 1), share=text.percent, sentence=text.sentence
    )
    environment.globals.update(text=text, svg=require("markupsafe", "report").Markup)
    rendered: str = environment.get_template(template).render(**values)
    return rendered


def _source(template: str) -> str:
    return importlib.resources.files("inas_deploy.report").joinpath(template).read_text(encoding="utf-8")


def _printable(value: Any) -> Any:
    # Runs on every expression of the template: only our own SVG, which is marked as such, passes unchanged.
    return text.clean(value) if isinstance(value, str) and not hasattr(value, "__html__") else value
