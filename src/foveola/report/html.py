"""Self-contained HTML: templates filled in, images and drawings inside, nothing fetched from anywhere."""

import base64
import io
import re
from functools import cache
from typing import TYPE_CHECKING, Any

from PIL import Image

from foveola.errors import require
from foveola.images import Images

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup
    from matplotlib.figure import Figure


def render(template: str, **values: Any) -> str:
    """Fill in a template of `templates/`; every value is escaped unless it is Markup."""
    return _environment().get_template(template).render(**values)


def picture(image: Images) -> str:
    """A uint8 image, H×W, H×W×1 or H×W×3, as the data URI of a lossless PNG, for `src` of an `img`."""
    plane = image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image
    content = io.BytesIO()
    Image.fromarray(plane).save(content, format="png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()


def drawing(figure: "Figure", label: str) -> "Markup":
    """A figure as inline SVG, with text as text; `label` says to a screen reader what it shows."""
    from markupsafe import Markup, escape
    from matplotlib import rc_context

    content = io.StringIO()
    # Without a salt, the names of shared parts are drawn by lot: the same figure would never be the same file
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": label}):
        figure.savefig(content, format="svg", metadata={"Date": None})
    svg = content.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1)
    return Markup(svg)  # drawn by matplotlib, which escapes its text


@cache
def _environment() -> "Environment":
    jinja2 = require("jinja2", "train")
    environment: Environment = jinja2.Environment(
        loader=jinja2.PackageLoader("foveola.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda share, digits=1: f"{100 * share:.{digits}f} %"
    return environment
