"""Entry of the console script ``distclust``."""

from __future__ import annotations

from typing import Annotated

import typer

from distclust import __version__
from distclust.cli import commands
from distclust.cli.failures import EXIT_CODES

_EPILOG = "Exit codes: " + "; ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES.items()) + "."

app = typer.Typer(
    name="distclust",
    help="Cluster vector collections too large for one machine: the same bits on local threads, Dask and Spark.",
    epilog=_EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"distclust {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


for _command in (
    commands.demo,
    commands.kmeans,
    commands.bisect,
    commands.kmedoids,
    commands.gmm,
    commands.ppp,
    commands.assign,
    commands.evaluate,
    commands.sweep,
    commands.plan,
    commands.run,
    commands.resume,
    commands.inspect,
    commands.explain,
    commands.verify,
    commands.schema,
):
    app.command(epilog=_EPILOG)(_command)


def main() -> None:
    """Run the command line; ends the process with an exit code of `distclust.cli.failures.EXIT_CODES`."""
    app()


if __name__ == "__main__":
    main()
