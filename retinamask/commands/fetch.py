"""The command that fetches public data sets, and published face detectors, by name."""

import sys

from retinamask.commands.parsing import add_command

_OTHERS = (
    "Open Images, Roboflow and VisualData give their sets as archives in known formats. Unpack one and run: "
    "retinamask annotations FOLDER --from coco|yolo|voc|open_images"
)
_SHOWN_PROBLEMS = 20


def add_commands(subparsers) -> None:
    """Declare the command of this file."""
    text = (
        "Fetch a public data set by its name, verified, and turned into annotations.csv and classes.csv; or the "
        "verified files of a face detector."
    )
    command = add_command(subparsers, "fetch", fetch_command, text)
    command.epilog = _OTHERS
    command.add_argument("name", nargs="?", metavar="NAME", help="one of --list")
    command.add_argument(
        "--folder",
        help="it comes into FOLDER/NAME/ (default: data for data sets, ~/.cache/retinamask for face detectors)",
    )
    command.add_argument(
        "--from",
        dest="source",
        metavar="FILE_OR_FOLDER",
        help="an archive, or an unpacked folder, or the files of a face detector, that you fetched by hand",
    )
    command.add_argument("--list", action="store_true", help="list what there is")


def fetch_command(given) -> None:
    from retinamask.dataset.public.catalogue import DATA_SETS, FACE_MODELS, described
    from retinamask.dataset.public.fetch import fetch, fetch_model

    if given.list:
        print("\n\n".join([*map(described, [*DATA_SETS, *FACE_MODELS]), _OTHERS]))
        return
    names = f"{', '.join(DATA_SETS)}; or a face detector: {', '.join(FACE_MODELS)}"
    if given.name is None:
        raise ValueError(f"which data set? Give its name, one of: {names}")
    if given.name in FACE_MODELS:
        paths = fetch_model(given.name, given.folder, given.source)
        print(f"verified by SHA-256: {', '.join(map(str, paths))}")
        print(f"licence: {FACE_MODELS[given.name].licence}")
        return
    if given.name not in DATA_SETS:
        raise ValueError(f"no public data set is called {given.name!r}; there are: {names}")
    fetched = fetch(given.name, given.folder or "data", given.source)
    _report(fetched, DATA_SETS[given.name])


def _report(fetched, entry) -> None:
    """Print counts, licence and what is not as expected."""
    for problem in fetched.problems[:_SHOWN_PROBLEMS]:
        print(problem, file=sys.stderr)
    if len(fetched.problems) > _SHOWN_PROBLEMS:
        print(f"... {len(fetched.problems)} in all, listed in {fetched.folder / 'source.json'}", file=sys.stderr)
    for difference in fetched.differences:
        print(f"not as expected: {difference}", file=sys.stderr)
    counts = ", ".join(f"{count:,} {name}" for name, count in fetched.boxes.items())
    print(f"{fetched.images:,} images, {sum(fetched.boxes.values()):,} boxes ({counts})")
    if fetched.sha256:
        verified = "as expected" if entry.sha256 == fetched.sha256 else "none is known to compare it with"
        print(f"SHA-256 of the archive: {fetched.sha256} ({verified})")
    if fetched.archive:
        print(f"The archive is kept as {fetched.archive}; delete it if you like")
    print(f"licence: {entry.licence}\ncite: {entry.citation}")
    where = f"{fetched.folder / 'annotations.csv'}, {fetched.folder / 'classes.csv'}"
    print(f"{'It was there already' if fetched.was_there else 'Done'}: {where}")
