"""Commands that run notebooks, the demo or keras-retinanet, or report on the installation."""

import argparse
import signal
import sys
import textwrap
from pathlib import Path

from retinamask.commands import add_command
from retinamask.dataset import files
from retinamask.detectors import DETECTORS

_WIDTH = 120  # letters of a line in the list of runs
_LEFT_OUT = ("revision", "version", "kind", "seconds", "epochs", "on", "status")  # where it is wider, in this order


def add_commands(subparsers) -> None:
    """Declare the commands of this file."""
    add_command(subparsers, "doctor", doctor_command, "Report what is installed and what is wrong with it.")
    text = "Run keras-retinanet's own train, evaluate, convert-model or debug with its own arguments."
    theirs = add_command(subparsers, "keras-retinanet", keras_retinanet_command, text)
    theirs.add_argument("name", metavar="train|evaluate|convert-model|debug", help="its command")
    theirs.add_argument("arguments", nargs=argparse.REMAINDER, help="passed on; --help is keras-retinanet's own")

    text = "Run a notebook, or the pipeline from annotations to evaluation, with a record in runs/."
    run = add_command(subparsers, "run", run_command, f"{text} run NOTEBOOK --help lists its parameters.")
    run.add_argument("notebook", help="a notebook's name or path, or: pipeline")
    names = ", ".join(name for name, kind in DETECTORS.items() if not kind.classifies)
    run.add_argument("--detector", help=f"of the pipeline: {names}; retinanet if left out")
    value = "a parameter; may be given several times"
    run.add_argument("-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help=value)
    run.add_argument("-f", "--parameters-file", help="YAML file of parameters; -p overrides it")
    run.add_argument("--name", help="name of the run's folder; made from the time if left out")
    run.add_argument("--continue", dest="continued", metavar="RUN", help="continue in the folder of an earlier run")
    run.add_argument("--force", action="store_true", help="move an earlier run of that name aside")

    text = "Run a notebook, or the pipeline, for each combination of values, and write one table of all runs."
    grid = add_command(subparsers, "sweep", sweep_command, f"{text} Started again it runs what is not finished.")
    grid.add_argument("notebook", help="a notebook's name, or: pipeline")
    value = "values to try for a parameter, or for detector; may be given several times"
    grid.add_argument("--grid", action="append", required=True, metavar="NAME=VALUE,VALUE", help=value)
    value = "a parameter that all runs have; may be given several times"
    grid.add_argument("-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help=value)
    value = "run on the workers of a Dask cluster: its scheduler's address, or local for processes on this machine"
    grid.add_argument("--dask", metavar="ADDRESS", help=value)
    grid.add_argument("--out", metavar="DIR", help="folder of runs and sweep.csv; runs/sweep_NOTEBOOK if left out")

    text = "List all runs, the newest first and below each its best snapshots, or show what differs between two."
    ledger = add_command(subparsers, "runs", runs_command, text)
    ledger.add_argument("names", nargs="*", metavar="NAME", help="two of the listed names, to be compared")
    ledger.add_argument("--runs-dir", default="runs", help="folder with the folders of the runs, such as a sweep's")
    ledger.add_argument("--snapshots-dir", default="snapshots", help="folder of the snapshots")
    ledger.add_argument("--out", metavar="CSV", help="also write the table to this file")
    ledger.add_argument("--force", action="store_true", help="replace an existing file")

    demo = add_command(subparsers, "demo", demo_command, "Draw faces, train on them, and show the detections.")
    demo.add_argument("--images", type=int, default=700, help="how many scenes to draw")
    demo.add_argument("--steps", type=int, default=240, help="training steps")
    demo.add_argument("--data", help="folder for the scenes; data/demo_IMAGES if left out")
    demo.add_argument("--name", help="name of the run's folder; made from the time if left out")


def run_command(given) -> int:
    from retinamask.runs import runner
    from retinamask.runs.parameters import read_parameters_file

    parameters = read_parameters_file(given.parameters_file) if given.parameters_file else {}
    parameters |= dict(given.parameter)
    if "run_dir" in parameters:
        raise ValueError(
            "run_dir is the run's own folder: choose a --name, or continue an earlier run with --continue RUN"
        )
    if given.continued and given.name:
        raise ValueError("give --name for a new run or --continue for an earlier one, not both")
    if given.detector and given.notebook != "pipeline":
        raise ValueError("--detector chooses the training notebook of the pipeline; name that notebook instead")
    notebook = Path(given.notebook)
    folder = _folder_of(notebook)
    names = runner.pipeline(given.detector or "retinanet") if given.notebook == "pipeline" else notebook.stem
    return _run_and_report(names, parameters, given.name, given.force, folder, given.continued)


def sweep_command(given) -> int:
    from retinamask.runs.enter import enter_project
    from retinamask.runs.sweep import sweep

    out = given.out and Path(given.out).absolute()
    enter_project()
    grid: dict[str, list[str]] = {}
    for axis in given.grid:
        name, equals, values = axis.partition("=")
        if not (name and equals) or name in grid or name in dict(given.parameter):
            raise ValueError(f"--grid {axis}: expected NAME=VALUE,VALUE, each name once and not by -p too")
        grid[name] = values.split(",")
    notebook = Path(given.notebook).stem
    out = out or Path("runs", f"sweep_{notebook}")
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        table = sweep(notebook, grid, dict(given.parameter), out, given.dask)
    finally:
        signal.signal(signal.SIGTERM, before)
    print(table.drop(columns="error").to_string(index=False, float_format="%.4g"))
    failed = int((table["status"] != "finished").sum())
    print(f"{len(table)} runs, {failed} failed: {out / 'sweep.csv'}")
    return 1 if failed else 0


def runs_command(given) -> None:
    from retinamask.runs.ledger import compare_runs, read_runs

    if len(given.names) not in (0, 2):
        raise ValueError(f"found {len(given.names)} names, expected none, for the list, or two, to be compared")
    if given.out:
        files.refuse_existing(given.out, given.force)
    table, problems = read_runs(given.runs_dir, given.snapshots_dir)
    print(*problems, sep="\n", end="\n" * bool(problems), file=sys.stderr)
    table = compare_runs(table, *given.names) if given.names else table.drop(columns="parameters").set_index("name")
    if given.out:
        files.write_text(given.out, table.to_csv(lineterminator="\n"))
    if table.empty:
        return print("no runs and no trainings yet")
    if given.names:
        return print(_text(table))
    below = (table["kind"] == "training") & table["run"].isin(table.index[table["kind"] == "run"])
    table.index = ["  " * its_run + name for name, its_run in below.items()]
    started = table["started"].str[2:16].str.replace("T", " ")
    table = table.assign(started=started, data=table["data"].str[:8]).drop(columns="run")
    table, left_out = table.dropna(axis=1, how="all").rename(columns={"judged_on": "on"}), []
    for column in _LEFT_OUT:
        if column in table and max(map(len, _text(table).splitlines())) > _WIDTH:
            table, left_out = table.drop(columns=column), [*left_out, column]
    print(_text(table))
    if left_out:
        print(f"left out for want of room: {', '.join(left_out)}; --out CSV has them")


def _text(table) -> str:
    shown = table.astype(object).where(table.notna(), "-")
    return shown.rename_axis(None).to_string(float_format="{:.4g}".format, max_colwidth=40)


def _folder_of(notebook: Path) -> Path:
    """Return the folder of a notebook; one that is only named is in the project's, which is entered."""
    from retinamask.runs.enter import enter_project

    if notebook.parent != Path():
        return notebook.parent.resolve()
    enter_project()
    return Path("notebooks")


def parameters_help(notebook: str) -> str:
    """List the parameters of a notebook, or of the pipeline's, with types, defaults and explanations."""
    from retinamask.runs import runner
    from retinamask.runs.parameters import known_parameters, settings_in_more

    folder, lines = _folder_of(Path(notebook)), []
    for name in runner.PIPELINE if notebook == "pipeline" else [Path(notebook).stem]:
        path = folder / f"{name}.ipynb"
        further = "further settings, which -p takes too and puts into the parameter more:"
        found = {f"parameters of {name}:": known_parameters(path), further: settings_in_more(path)}
        for heading, parameters in found.items():
            lines += ["", heading] if parameters else []
            for parameter in parameters.values():
                lines.append(f"  {parameter.name}: {parameter.type_name} = {parameter.default!r}")
                lines += textwrap.wrap(parameter.help, 110, initial_indent=" " * 8, subsequent_indent=" " * 8)
    return "\n".join(lines)


def _run_and_report(names, parameters, name, force=False, folder=Path("notebooks"), continued=None) -> int:
    """Run the notebooks of a folder, write the page of the run, and print where to look."""
    from retinamask.evaluation.page import write_page
    from retinamask.runs import runner

    # A run that is terminated ends its kernel and its record like one that Ctrl-C stops.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        run_dir = runner.run(names, parameters, name, force, notebooks_dir=folder, continued=continued)
    except runner.NotebookError as error:
        print(f"retinamask: {error}", file=sys.stderr)
        return 1
    finally:
        signal.signal(signal.SIGTERM, before)
    page = write_page(run_dir)
    sheet = run_dir / "contact_sheet.png"
    print("\nLook at:", *[f"  {path}" for path in (page, sheet) if path.exists()], sep="\n")
    return 0


def doctor_command(given) -> int:
    from retinamask.doctor import report

    facts, faults = report()
    print(*facts, sep="\n")
    print(*[f"WRONG: {fault}" for fault in faults] or ["Nothing is wrong."], sep="\n")
    return 1 if faults else 0


def keras_retinanet_command(given) -> None:
    from retinamask.detectors import keras_retinanet

    keras_retinanet.run(given.name, given.arguments)


def demo_command(given) -> int:
    from retinamask.dataset.sample import draw_sample
    from retinamask.runs import runner
    from retinamask.runs.enter import enter_project

    enter_project()
    data = given.data or f"data/demo_{given.images}"
    print(f"Drawing {given.images} scenes in {data}")
    draw_sample(data, given.images, size=256, seed=1)
    parameters = {
        "xml_dir": data,
        "image_size": 160,
        "epochs": 5,
        "steps": max(1, given.steps // 5),
        "val_share": 0.05,  # of so many scenes enough to choose the best epoch by
        "learning_rate": 6e-4,
    }
    return _run_and_report(runner.PIPELINE, parameters, given.name)
