"""What the files of this folder share: how a command is declared, and that nothing is replaced unasked."""

import argparse
from collections.abc import Callable
from pathlib import Path


def add_command(subparsers, name: str, function: Callable, text: str) -> argparse.ArgumentParser:
    """Declare a command; ``function`` is called with the parsed arguments and may return an exit status."""
    formatter = argparse.ArgumentDefaultsHelpFormatter
    command = subparsers.add_parser(name, help=text, description=text, formatter_class=formatter)
    command.set_defaults(command=function)
    return command


def refuse_existing(path: Path, force: bool = False) -> None:
    """What a user has is replaced only when that is asked for."""
    if path.exists() and not force:
        raise ValueError(f"{path} exists; choose another name, or replace it with --force")
