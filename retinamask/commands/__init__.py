"""The commands: a file for each kind of thing that they work on.

Imports stand inside the functions, so that a command starts only what it needs.
"""

import argparse
import re
from collections.abc import Callable


class _Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Show a default only where there is one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return super()._get_help_string(action) if action.default else action.help


def add_command(subparsers, name: str, function: Callable, text: str) -> argparse.ArgumentParser:
    """Declare a command; ``function`` is called with the parsed arguments and may return an exit status."""
    command = subparsers.add_parser(name, help=text, description=text, formatter_class=_Formatter)
    command._negative_number_matcher = re.compile(r"-[\d.]")  # argparse's own takes -1e-4 for an option
    command.set_defaults(command=function, parser=command)
    return command
