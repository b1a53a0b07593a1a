"""Jinja2 and Pygments, set up once: autoescape on, undefined names are errors, pages self-contained."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

import foveate
from foveate.report import text


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"count": text.count, "number": text.number, "scientific": text.scientific}
    environment.globals["version"] = foveate.__version__
    return environment


def render(template: str, **values: Any) -> str:
    """The page as HTML."""
    return _environment().get_template(template).render(**values)


def highlight(code: str, language: str) -> Markup:
    """Code as HTML spans (language: yaml | python), without a wrapper; safe to embed."""
    # Imported here: Pygments costs 50 ms, and the progress line shares this package.
    from pygments import highlight as colour
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import get_lexer_by_name

    return Markup(colour(code, get_lexer_by_name(language, stripnl=False), HtmlFormatter(nowrap=True)))
