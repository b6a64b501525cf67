"""The command line: a light wrapper; each command calls the functions that the notebooks call."""

import argparse
import difflib
import logging
import os
import sys
from collections.abc import Sequence

from retinamask import __version__
from retinamask.commands import annotate, classifier, darknet, data, detect, models, runs, training


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is 0, or 2 with one message on a user's mistake, 1 on a failed run
    or if what could not be read was left out."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if arguments[:1] == ["run"] and {"-h", "--help"} & set(arguments) and not arguments[1].startswith("-"):
            print(runs.parameters_help(arguments[1]))
            return 0
        given, unknown = _parser().parse_known_args(arguments)
        if unknown:
            options = [name for action in given.parser._actions for name in action.option_strings]
            close = difflib.get_close_matches(unknown[0].partition("=")[0], options)
            meant = f"; did you mean {' or '.join(close)}?" if close else ""
            given.parser.error(f"unrecognized arguments: {' '.join(unknown)}{meant}")
        return given.command(given) or 0
    except BrokenPipeError:  # who reads the output, such as `| head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError) as error:
        print(f"retinamask: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print(f"retinamask: {str(stop) or 'stopped'}", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="retinamask",
        description="Face-mask detection with Keras-RetinaNet, from labelImg XML to drawn detections.",
        epilog="Each command explains itself: retinamask COMMAND --help",
    )
    parser.add_argument("--version", action="version", version=f"retinamask {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for subject in (data, annotate, training, classifier, detect, models, darknet, runs):
        subject.add_commands(subparsers)
    return parser
