"""Displayed: base of objects that notebooks show as HTML."""

from importlib.util import find_spec

from foveola.errors import FoveolaError


class Displayed:
    """Shown by Jupyter as `foveola.reports.notebook` shows the class; in a terminal by its `repr`."""

    def _repr_html_(self) -> str | None:
        """HTML without scripts, complete in itself.

        None, which makes the notebook show the `repr`, if jinja2 is not installed, or the object's file is damaged.
        """
        if find_spec("jinja2") is None:
            return None
        from foveola.reports.notebook import notebook_html

        try:
            return notebook_html(self)
        except FoveolaError:
            return None
