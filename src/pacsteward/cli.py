"""The root command: ``pacsteward <room> <verb>``.

A command is a plain function of the `House` that returns what is to be printed; here its first
parameter is taken away, ``--data`` and ``--json`` are added, and errors become exit codes.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from cyclopts import App, Parameter

from pacsteward import __version__, commands
from pacsteward.app import Place, find_all_rooms, opened_house
from pacsteward.base.errors import PacstewardError
from pacsteward.feature import Command, Feature
from pacsteward.hospital.cli import send_studies
from pacsteward.output import complain, exit_code_of, show

DataOption = Annotated[
    Path | None,
    Parameter(name="--data", help="The archive's data folder; also PACSTEWARD_DATA."),
]
JsonOption = Annotated[
    bool, Parameter(name="--json", help="Print the result as JSON, for scripts.")
]


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and leave with its exit code."""
    app = build(find_all_rooms())
    try:
        code = app(sys.argv[1:] if arguments is None else arguments)
    except PacstewardError as error:
        code = complain(error)
    except BrokenPipeError:
        code = 0
    except KeyboardInterrupt:
        code = 130
    sys.exit(code if isinstance(code, int) else 0)


def build(rooms: Iterable[Feature]) -> App:
    """Put the whole command line together."""
    app = App(
        name="pacsteward",
        help="The imaging archive and everything its administrator needs around it.",
        version=__version__,
        result_action="return_value",
        # A switch is off until it is named: nobody needs `--no-…`, or `--empty-…` of a list. One
        # that is neither on nor off until it is named asks for its own.
        default_parameter=Parameter(negative_bool=(), negative_iterable=()),
    )
    app.command(commands.serve, name="serve")
    app.command(commands.repl, name="repl")
    app.command(_without_house(commands.show_house), name="house")
    settings = App(name="settings", help="What the machine was told, and by whom.")
    settings.command(_without_house(commands.explain_settings), name="explain")
    app.command(settings)
    _add(app, "archive", "The stored bytes and their index.", commands.ARCHIVE)
    for room in rooms:
        if room.commands:
            _add(app, room.name, room.summary, room.commands)
    hospital = App(name="hospital", help="A pretend hospital to try things with.")
    hospital.command(_without_house(send_studies), name="send")
    app.command(hospital)
    return app


def _add(app: App, name: str, summary: str, verbs: Iterable[Command]) -> None:
    group = App(name=name, help=summary)
    for verb in verbs:
        group.command(_with_house(verb), name=verb.verb)
    app.command(group)


def _with_house(verb: Command) -> Callable[..., int]:
    """Turn a function of the house into a command that opens the house first."""
    run = verb.run

    def command(*args: Any, data: Path | None = None, json: bool = False, **options: Any) -> int:
        try:
            with opened_house(Place.found(data), may_make_index=verb.makes_index) as house:
                result = run(house, *args, **options)
                show(result, as_json=json)
        except PacstewardError as error:
            return complain(error, as_json=json)
        return exit_code_of(result)

    return _dressed(command, run, takes_house=True)


def _without_house(run: Callable[..., Any]) -> Callable[..., int]:
    """Turn a function that needs no house into a command."""

    def command(*args: Any, json: bool = False, **options: Any) -> int:
        try:
            show(run(*args, **options), as_json=json)
        except PacstewardError as error:
            return complain(error, as_json=json)
        return 0

    return _dressed(command, run, takes_house=False)


def _dressed(
    command: Callable[..., int], run: Callable[..., Any], *, takes_house: bool
) -> Callable[..., int]:
    """Give `command` the signature and prose of `run`, with our options added."""
    hints = get_type_hints(run, include_extras=True)
    parameters = list(inspect.signature(run).parameters.values())[1 if takes_house else 0 :]
    parameters = [
        parameter.replace(annotation=hints.get(parameter.name, parameter.annotation))
        for parameter in parameters
    ]
    ours: list[tuple[str, Any, Any]] = [("json", JsonOption, False)]
    if takes_house:
        ours.insert(0, ("data", DataOption, None))
    parameters += [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
        )
        for name, annotation, default in ours
    ]
    command.__signature__ = inspect.Signature(parameters, return_annotation=int)  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in parameters} | {"return": int}
    command.__name__ = run.__name__
    command.__doc__ = run.__doc__
    return command
