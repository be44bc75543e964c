"""The command line: ``inas-deploy bench | compare | check | report | devices | doctor``."""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from typer.exceptions import TyperException

from inas_deploy.commands import devices
from inas_deploy.commands.bench import bench
from inas_deploy.commands.check import check
from inas_deploy.commands.compare import compare
from inas_deploy.commands.doctor import doctor
from inas_deploy.commands.predict import predict
from inas_deploy.commands.profile import profile
from inas_deploy.commands.report import report
from inas_deploy.report.text import clean
from targets.errors import KitError
from targets.extras import DISTRIBUTION

EXIT_OK, EXIT_USAGE, EXIT_INTERRUPTED = 0, 2, 130

app = typer.Typer(
    name=DISTRIBUTION,
    help="Measure vision networks on your devices, and believe the number.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (bench, compare, check, profile, predict, report, doctor):
    app.command()(command)
app.add_typer(devices.app, name="devices")


def _print_version(wanted: bool) -> None:
    if wanted:
        Console().print(f"{DISTRIBUTION} {version(DISTRIBUTION)}", highlight=False)
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Measure vision networks on your devices, and believe the number."""


def _complain(text: str) -> None:
    Console(stderr=True, soft_wrap=True).print(f"error: {clean(' '.join(text.split()))}", markup=False, highlight=False)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 fine, 1 regression, 2 bad input, 3 device unavailable, 130 stopped.

    Args:
        arguments: Arguments without the program's name; the process's own by default.
    """
    # A polite kill ends like Ctrl-C: the store is whole, and the last line says how to go on.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that knows no "±" still gets the figures
    try:
        code = typer.main.get_command(app).main(args=arguments, prog_name=DISTRIBUTION, standalone_mode=False)
    except TyperException as error:
        context = getattr(error, "ctx", None)  # of the sub-command that refused its words
        what = error.format_message().replace("Value error, ", "")
        _complain(f"{what} Try '{context.command_path if context else DISTRIBUTION} --help'.")
        code = EXIT_USAGE
    except KitError as error:
        _complain(str(error))
        code = error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        code = EXIT_INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has gone; nothing is left to say
        code = EXIT_OK
    except (OSError, UnicodeError) as error:  # a name too long, a full disk: what no command foresaw
        _complain(f"{error}. Check the file names and the space on the disk.")
        code = EXIT_USAGE
    sys.exit(code or EXIT_OK)


if __name__ == "__main__":
    main()
