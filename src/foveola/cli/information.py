"""Commands of the panel Information: info."""

from foveola.cli.options import Json
from foveola.cli.output import show


def info(as_json: Json = False) -> None:
    """Show versions, folders, processor and GPU."""
    from foveola.workflow.environment import describe_environment

    environment = describe_environment()
    rows = environment.model_dump(exclude={"format"})
    rows["pretrained_weights"] = {
        f"weights of {name}": path or "not on this machine" for name, path in environment.pretrained_weights.items()
    }
    show(environment, as_json, lambda tables: tables.facts(rows))
