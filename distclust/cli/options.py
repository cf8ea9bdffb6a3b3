"""Options of the commands, made from the fields of the job models: names, help, defaults and checks have one source.

Values pass as the user typed them; the model that a command builds turns them into numbers and refuses what is wrong.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from distclust.cli.failures import reported

Given = dict[str, Any]
"""What the user typed, by field name; options that were left out are missing."""

Handler = Callable[[Given], None]

_SPECIAL_NAMES = {"n_clusters": ("-k",), "n_components": ("-k",), "output": ("--output", "-o")}

_METAVARS = {
    "columns": "A,B,C",
    "categorical": "A,B,C",
    "matrix_bytes": "SIZE",
    "memory": "SIZE",
    "target_bytes": "SIZE",
    "scratch": "DIR",
    "output": "DIR",
    "column": "NAME",
    "id_column": "NAME",
    "weight_column": "NAME",
    "engine": "ENGINE",
    "truth": "NAME",
    "covariance_type": "WORD",
    "init_params": "WORD",
    "pca": "NUMBER",
    "reg_covar": "NUMBER",
    "scaling": "WORD",
    "features": "WORD",
    "warm_start": "MODEL",
}

_PANELS = {
    "Rows": ("column", "columns", "categorical", "id_column", "weight_column", "on_bad_rows"),
    "How it runs": (
        "output",
        "overwrite",
        "engine",
        "memory",
        "scratch",
        "target_bytes",
        "checkpoint_seconds",
        "json",
        "debug",
    ),
}
_OTHER_PANEL = "What is computed"


def _parameter(name: str, kind: Any, info: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, info])


def _panel(name: str) -> str:
    return next((panel for panel, names in _PANELS.items() if name in names), _OTHER_PANEL)


def data_argument(model: type[BaseModel]) -> inspect.Parameter:
    """Return the argument for the dataset: one or several paths."""
    help_text = model.model_fields["data"].description
    return _parameter("data", list[str], typer.Argument(metavar="DATA", help=help_text, show_default=False))


def text_argument(name: str, metavar: str, help_text: str) -> inspect.Parameter:
    """Return an argument that is one word."""
    return _parameter(name, str, typer.Argument(metavar=metavar, help=help_text, show_default=False))


def text_option(name: str, names: tuple[str, ...], metavar: str, help_text: str) -> inspect.Parameter:
    """Return an option that no job has."""
    info = typer.Option(*names, metavar=metavar, help=help_text, show_default=False)
    return _parameter(name, str | None, info, None)


def switch(name: str, help_text: str) -> inspect.Parameter:
    """Return an option that is either there or not."""
    info = typer.Option(f"--{name}", help=help_text, rich_help_panel=_panel(name))
    return _parameter(name, bool, info, False)


JSON = switch("json", "Print one JSON object on standard output instead of text.")
DEBUG = switch("debug", "Show the traceback of an error; as does DISTCLUST_DEBUG=1.")


def options_of(
    model: type[BaseModel], *, only: Iterable[str] | None = None, without: Iterable[str] = (), optional: bool = False
) -> list[inspect.Parameter]:
    """Return an option for each field of a job.

    Parameters
    ----------
    model : type
    only : iterable of str, optional
        Fields that get one; default: all but ``kind`` and ``data``.
    without : iterable of str, optional
        Fields that get none.
    optional : bool, default=False
        Fields without a default may be left out, and defaults are not shown: something else fills them.
    """
    wanted = model.model_fields.keys() if only is None else set(only)
    left_out = {"kind", "data", *without}
    chosen = [item for item in model.model_fields.items() if item[0] in wanted and item[0] not in left_out]
    chosen.sort(key=lambda item: not item[1].is_required())
    return [_option(name, field, optional) for name, field in chosen]


def takes(*parameters: inspect.Parameter) -> Callable[[Handler], Callable[..., None]]:
    """Give a handler the parameters that typer reads; its errors end the process with their own exit codes.

    ``--debug`` comes with every command.
    """
    signature = inspect.Signature(
        [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in (*parameters, DEBUG)]
    )

    def decorate(handler: Handler) -> Callable[..., None]:
        @functools.wraps(handler)
        def command(**typed: Any) -> None:
            with reported(debug=typed.pop("debug")):
                handler({name: value for name, value in typed.items() if value is not None and value is not False})

        command.__signature__ = signature  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
        return command

    return decorate


def job_values(given: Given) -> Given:
    """Return what the user typed under the keys of a job file."""
    values = {name: value for name, value in given.items() if name != "json"}
    for name in {"n_clusters", "n_components"} & values.keys():
        values["k"] = values.pop(name)
    for name in {"columns", "categorical"} & values.keys():
        values[name] = [part.strip() for part in values[name].split(",") if part.strip()]
    return values


def _option(name: str, field: FieldInfo, optional: bool) -> inspect.Parameter:
    names = _SPECIAL_NAMES.get(name, (f"--{name.replace('_', '-')}",))
    help_text, panel = _help(field, optional), _panel(name)
    if field.annotation is bool:
        return _parameter(name, bool, typer.Option(*names, help=help_text, rich_help_panel=panel), False)
    info = typer.Option(
        *names, metavar=_metavar(name, field), help=help_text, show_default=False, rich_help_panel=panel
    )
    if field.is_required() and not optional:
        return _parameter(name, str, info)
    return _parameter(name, str | None, info, None)


def _help(field: FieldInfo, optional: bool) -> str:
    parts = [field.description or ""]
    if get_origin(field.annotation) is Literal:
        parts.append(f"One of {', '.join(map(str, get_args(field.annotation)))}.")
    if not optional and not field.is_required() and field.annotation is not bool and field.default not in (None, ()):
        parts.append(f"Default: {field.default}.")
    return " ".join(part for part in parts if part)


def _metavar(name: str, field: FieldInfo) -> str:
    if name in _METAVARS:
        return _METAVARS[name]
    if get_origin(field.annotation) is Literal:
        return "WORD"
    if field.annotation in (int, int | None):
        return "INTEGER"
    if name == "n_clusters":
        return "K|auto" if get_origin(field.annotation) is not tuple else "K,K,..."
    return "NUMBER" if field.annotation is float else "TEXT"
