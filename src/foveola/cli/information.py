"""Commands of the panel Information: info, help."""

from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperGroup

from foveola.cli.defaults import find_defaults
from foveola.cli.options import Json, Plain, path_text
from foveola.cli.output import show
from foveola.errors import UserError, unknown


def info(context: typer.Context, as_json: Json = False, quiet: Plain = False) -> None:
    """Show versions, folders, processor and GPU, and the defaults that are in force here."""
    from foveola.workflow.environment import describe_environment

    defaults = find_defaults(Path.cwd(), _commands(context))
    environment = describe_environment().model_copy(
        update={"defaults_file": path_text(defaults.path), "defaults": defaults.document}
    )
    rows = environment.model_dump(exclude={"format"})
    rows["defaults"] = {f"default {name}": value for name, value in defaults.common.items()} | {
        f"default {command} --{name}": value
        for command, values in defaults.of_commands.items()
        for name, value in values.items()
    }
    rows["pretrained_weights"] = {
        f"weights of {name}": path or "not on this machine" for name, path in environment.pretrained_weights.items()
    }
    show(environment, as_json, lambda tables: tables.facts(rows))


def help(
    context: typer.Context,
    command: Annotated[str | None, typer.Argument(metavar="[COMMAND]", help="The command to explain.")] = None,
) -> None:
    """Show the help of Foveola, or of one command."""
    group, root = _commands(context), context.find_root()
    if command is None:
        typer.echo(group.get_help(root))
    elif command in group.commands:
        explained = group.commands[command]
        typer.echo(explained.get_help(explained.make_context(command, [], root, resilient_parsing=True)))
    else:
        raise UserError(unknown("command", command, group.commands))


def _commands(context: typer.Context) -> TyperGroup:
    group = context.find_root().command
    assert isinstance(group, TyperGroup), "the program has commands"
    return group
