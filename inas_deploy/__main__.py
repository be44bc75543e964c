"""``python -m inas_deploy`` is ``inas-deploy``."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

EXIT_BUG = 70


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit; also while it is still being imported, Ctrl-C is no traceback.

    An error that nobody foresaw exits with 70: Python's own code for it is 1, which stands for a proven regression.

    Args:
        arguments: Arguments without the program's name; the process's own by default.
    """
    try:
        from inas_deploy import cli

        cli.main(arguments)
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, SystemExit):
            with suppress(OSError, ValueError):  # nobody listens any more
                traceback.print_exc()
                sys.stderr.write("error: a bug of the kit, not of your model. Please report it with the lines above.\n")
            sys.exit(EXIT_BUG)


if __name__ == "__main__":
    main()
