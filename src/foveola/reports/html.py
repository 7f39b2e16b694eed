"""Self-contained HTML pages: templates with images and plots inside, and nothing that is fetched."""

import base64
import io
import re
from functools import cache
from typing import TYPE_CHECKING, Any

from foveola.errors import require
from foveola.images import Images
from foveola.reports.pixels import png_bytes
from foveola.text import printable

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup
    from matplotlib.figure import Figure


def render(template: str, **values: Any) -> str:
    """Fill in a template of `templates/`; every value is escaped unless it is Markup.

    Names may hold what HTML cannot: control characters become �, and bytes that are not UTF-8 are written out.
    """
    return printable(_environment().get_template(template).render(**values))


def image_uri(image: Images) -> str:
    """An image, uint8 H×W, H×W×1 or H×W×3, as the data URI of a PNG, for `src` of an `img`."""
    return "data:image/png;base64," + base64.b64encode(png_bytes(image)).decode()


def svg(figure: "Figure", label: str) -> "Markup":
    """A figure as inline SVG, with text as text; `label` describes it to a screen reader."""
    from markupsafe import Markup, escape
    from matplotlib import rc_context

    content = io.StringIO()
    # Without a salt, the ids of shared parts are random, and equal figures would give different files
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": label}):
        figure.savefig(content, format="svg", metadata={"Date": None})
    svg = content.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1)
    return Markup(svg)  # drawn by matplotlib, which escapes its text


def signed(value: float, digits: int = 2) -> str:
    """A number with its sign; what rounds to 0 is +0."""
    return f"{round(value, digits) + 0:+.{digits}f}".replace("-", "−")


@cache
def _environment() -> "Environment":
    jinja2 = require("jinja2", "plots")
    environment: Environment = jinja2.Environment(
        loader=jinja2.PackageLoader("foveola.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["signed"] = signed
    environment.filters["percent"] = lambda share, digits=1: f"{100 * share:.{digits}f} %"
    return environment
