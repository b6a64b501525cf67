"""Parameters of notebooks, runs, their errors and their record.

A kernel takes seconds to start: what can be checked without one is, and each notebook run here checks several
things at once.
"""

import io
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest
from PIL import Image

from retinamask.dataset import files
from retinamask.detectors import snapshots
from retinamask.runs import record as records
from retinamask.runs import runner
from retinamask.runs.enter import NotebookRun
from retinamask.runs.parameters import (
    check_parameters,
    converted,
    known_parameters,
    read_parameters_file,
    training_settings,
)
from retinamask.runs.record import RunRecord, make_run_folder, make_timed_run_folder
from retinamask.runs.runner import NotebookError, run, run_notebook
from retinamask.training.settings import NO_AUGMENTATION

DECLARED = """\
# The settings of the training.
epochs: int = 3  # how often the data is seen
learning_rate: float = 1  # the step; an int as default
freeze: bool = True
tag: str = "a # b"  # a text with a hash
labels: list[str] = [
    "with_mask",
    "without_mask",
]  # the classes
limit: int = -1
"""


def code(source, *tags):
    return nbformat.v4.new_code_cell(source, metadata={"tags": list(tags)})


def text(source):
    return nbformat.v4.new_markdown_cell(source)


@pytest.fixture
def write(tmp_path):
    """A function that writes a notebook of the given cells into a project's folder `notebooks`."""
    (tmp_path / "notebooks").mkdir()

    def write_notebook(name, *cells):
        path = tmp_path / "notebooks" / f"{name}.ipynb"
        nbformat.write(nbformat.v4.new_notebook(cells=list(cells)), path)
        return path

    return write_notebook


@pytest.fixture
def training(write):
    return write("02_train", text("# Training"), code(DECLARED, "parameters"))


@pytest.fixture
def no_kernel(monkeypatch):
    """Runs without a kernel: the notebooks that would be executed, with their parameters, as a list."""
    executed = []
    monkeypatch.setattr(
        runner,
        "run_notebook",
        lambda notebook, parameters, run_dir, **_: executed.append((notebook.stem, dict(parameters))),
    )
    return executed


def record_of(run_dir):
    return json.loads((run_dir / "run.json").read_text(encoding="utf-8"))


# The parameters cell.


def test_known_parameters(training):
    known = known_parameters(training)
    assert {name: (p.type_name, p.default, p.help) for name, p in known.items()} == {
        "epochs": ("int", 3, "how often the data is seen"),
        "learning_rate": ("float", 1.0, "the step; an int as default"),
        "freeze": ("bool", True, ""),
        "tag": ("str", "a # b", "a text with a hash"),
        "labels": ("list[str]", ["with_mask", "without_mask"], "the classes"),
        "limit": ("int", -1, ""),
    }
    assert [p.name for p in known.values()] == list(known)
    assert type(known["learning_rate"].default) is float


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "epochs = 3",
            "line 2 of the parameters cell: expected 'name: type = literal  # help', found 'epochs = 3'",
        ),
        ("epochs: int", "found 'epochs: int'"),
        ("self.epochs: int = 3", "found 'self.epochs: int = 3'"),
        ("import os", "found 'import os'"),
        ("%matplotlib inline", "line 2 of the parameters cell is not Python"),
        ("epochs: set = {1}", "epochs is set, expected one of: str, int, float, bool, list[str], list[float], dict"),
        ("epochs: int = '3'", "epochs is int, its default is no such literal: '3'"),
        ("epochs: int = True", "epochs is int, its default is no such literal: True"),
        ("epochs: int = None", "epochs is int, its default is no such literal: None"),
        ("home: str = str(1)", "home is str, its default is no such literal: str(1)"),
        ("labels: list[str] = [1]", "its default is no such literal: [1]"),
        ("rate: float = 1e999", "its default is no such literal"),
        ("first: int = 2", "the parameters cell has 'first' twice; keep one"),
    ],
)
def test_a_parameters_cell_that_is_refused(write, line, message):
    path = write("bad", code(f"first: int = 1\n{line}", "parameters"))
    with pytest.raises(ValueError) as caught:
        known_parameters(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("cells", "found"),
    [
        ([code("epochs: int = 3")], 0),
        ([code("a: int = 3", "parameters"), code("b: int = 3", "parameters")], 2),
        ([nbformat.v4.new_markdown_cell("a: int = 3", metadata={"tags": ["parameters"]})], 1),
    ],
)
def test_one_parameters_cell_is_needed(write, cells, found):
    path = write("bad", *cells)
    with pytest.raises(ValueError) as caught:
        known_parameters(path)
    assert str(caught.value) == f"{path}: expected one code cell tagged 'parameters', found {found}"


@pytest.mark.parametrize("content", [None, "", "not json", "{}", "[]", '{"nbformat": 4, "nbformat_minor": 5}', "\xff"])
def test_a_file_that_is_no_notebook(tmp_path, content):
    path = tmp_path / "broken.ipynb"
    if content is not None:
        path.write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match=r"broken\.ipynb: is not a notebook that can be read: "):
        known_parameters(path)


# The values.


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("epochs", 7, 7),
        ("epochs", "7", 7),
        ("learning_rate", "1e-5", 1e-5),
        ("learning_rate", 2, 2.0),
        ("learning_rate", "2", 2.0),
        ("freeze", "true", True),
        ("freeze", "False", False),
        ("freeze", False, False),
        ("tag", "123", "123"),
        ("tag", "none", "none"),
        ("tag", "", ""),
        ("labels", "a, b", ["a", "b"]),
        ("labels", "", []),
        ("labels", ["a,b"], ["a,b"]),
        ("limit", "5", 5),
    ],
)
def test_a_value_gets_the_declared_type(training, name, value, expected):
    checked = check_parameters(training, {name: value})
    assert checked == {name: expected}
    assert type(checked[name]) is type(expected)
    assert check_parameters(training, checked) == checked


def test_a_dict_is_read_from_text_as_yaml():
    assert converted("more", '{"mosaic": 0.5, "optimizer": "adamw"}', "dict") == {"mosaic": 0.5, "optimizer": "adamw"}
    assert converted("more", "{mosaic: 0.5}", "dict") == {"mosaic": 0.5}
    for wrong in ("mosaic", "{mosaic", "[0.5]", ""):
        with pytest.raises(ValueError, match=r"more is dict, got .* \(str\)"):
            converted("more", wrong, "dict")


def test_numbers_are_read_from_text_with_commas():
    assert converted("box_fit", "0, -0.1,1.3,1", "list[float]") == [0.0, -0.1, 1.3, 1.0]
    assert converted("box_fit", "", "list[float]") == []
    assert list(map(type, converted("box_fit", [1, 0.5], "list[float]"))) == [float, float]
    for wrong in ("1,,2", "wide", [True], [None], "nan"):
        with pytest.raises(ValueError, match="box_fit is "):
            converted("box_fit", wrong, "list[float]")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("epochs", "ten", "epochs is int, got 'ten' (str)"),
        ("epochs", "1.0", "epochs is int, got '1.0' (str)"),
        ("epochs", 1.0, "epochs is int, got 1.0 (float)"),
        ("epochs", True, "epochs is int, got True (bool)"),
        ("epochs", "true", "epochs is int, got 'true' (str)"),
        ("epochs", None, "epochs is int, got None (NoneType)"),
        ("learning_rate", False, "learning_rate is float, got False (bool)"),
        ("learning_rate", "fast", "learning_rate is float, got 'fast' (str)"),
        ("learning_rate", "nan", "learning_rate is float, got 'nan' (str); it must be finite"),
        ("learning_rate", float("inf"), "learning_rate is float, got inf (float); it must be finite"),
        ("learning_rate", 10**400, "(int); int too large to convert to float"),
        ("freeze", "yes", "freeze is bool, got 'yes' (str)"),
        ("freeze", 1, "freeze is bool, got 1 (int)"),
        ("tag", 123, "tag is str, got 123 (int)"),
        ("tag", None, "tag is str, got None (NoneType)"),
        (
            "labels",
            ["a", 1],
            "labels is list[str], got ['a', 1] (list); its items must be texts, none of them empty",
        ),
        (
            "labels",
            "a,,b",
            "labels is list[str], got 'a,,b' (str); its items must be texts, none of them empty",
        ),
        ("limit", "few", "limit is int, got 'few' (str)"),
        (
            "epoch",
            3,
            "no parameter named 'epoch'; did you mean 'epochs'? it has: "
            "epochs, learning_rate, freeze, tag, labels, limit",
        ),
        ("xyz", 3, "no parameter named 'xyz'; it has: epochs, "),
        (3, 3, "no parameter named 3; it has: epochs, "),
    ],
)
def test_a_value_that_is_refused(training, name, value, message):
    with pytest.raises(ValueError) as caught:
        check_parameters(training, {name: value})
    assert str(caught.value).startswith(f"{training}: ")
    assert message in str(caught.value)


def test_a_notebook_without_parameters(write):
    path = write("none", code("# nothing yet", "parameters"))
    assert known_parameters(path) == {}
    with pytest.raises(ValueError, match="no parameter named 'a'; it has: none"):
        check_parameters(path, {"a": 1})


# The parameters file.


def test_a_parameters_file(tmp_path, training):
    path = tmp_path / "values.yaml"
    path.write_text("\ufeff# fast\nlearning_rate: 1e-5\nepochs: 2\nlabels: [a, b]\n", encoding="utf-8")
    values = read_parameters_file(path)
    assert check_parameters(training, values) == {
        "learning_rate": 1e-5,
        "epochs": 2,
        "labels": ["a", "b"],
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", ":3: 'a' is given twice; keep one"),
        ("- a\n- b\n", ":1: expected 'name: value' lines, found list"),
        ("\n\nepochs 3\n", ":3: expected 'name: value' lines, found str"),
        ("# nothing\n", ":1: expected 'name: value' lines, found NoneType"),
        ("a: 1\nb: [1\n", ":3: broken YAML: "),
        ("a: 1\nb: !!python/name:os.system x\n", ":2: broken YAML: could not determine a constructor"),
        ("a: 1\n---\nb: 1\n", ":2: broken YAML: but found another document"),
        ("a: 1\n[1]: 2\n", ":2: broken YAML: found unhashable key"),
        ("a: 1\non: 2\n", ":2: 'on' is no parameter's name; quote it"),
        ("a: \x07\n", ": broken YAML: "),
        ("a: 2026-13-45\n", ": cannot be read: month"),
        ("a: \xff\n", ": cannot be read: 'utf-8'"),
        (None, ": cannot be read: [Errno 2]"),
    ],
)
def test_a_parameters_file_that_is_refused(tmp_path, content, message):
    path = tmp_path / "values.yaml"
    if content is not None:
        path.write_text(content, encoding="latin-1")
    with pytest.raises(ValueError) as caught:
        read_parameters_file(path)
    assert str(caught.value).startswith(f"{path}{message}")


# The run's folder.


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "../a", "a\\b", "/tmp", ".hidden", "-f", "a b", "a\n", "x" * 101]
)
def test_an_unsafe_name_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match=r"run name .* are allowed"):
        make_run_folder(tmp_path / "runs", name)
    assert not (tmp_path / "runs").exists()


def test_a_taken_name_is_refused_and_forced(tmp_path, capsys):
    first = make_run_folder(tmp_path, "a")
    (first / "model").write_text("precious")
    with pytest.raises(ValueError, match="a run of that name exists; .* with --force"):
        make_run_folder(tmp_path, "a")
    for _ in range(2):  # within one second: the folders moved aside do not meet
        make_run_folder(tmp_path, "a", force=True)
    olds = sorted(tmp_path.glob("a.old-*"))
    assert len(olds) == 2
    assert [(old / "model").read_text() for old in olds if (old / "model").exists()] == ["precious"]
    assert list(first.iterdir()) == []
    assert f"{first}: the earlier run was moved to {olds[0]}" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="processes are asked for by signal")
def test_a_run_that_is_going_on_is_not_moved(tmp_path):
    folder = make_run_folder(tmp_path, "a")
    record = RunRecord(folder, {}, tmp_path)
    with pytest.raises(ValueError, match="this run is still running; stop it, or choose another name"):
        make_run_folder(tmp_path, "a", force=True)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    record.content["process"]["pid"] = dead.pid
    files.write_json(folder / "run.json", record.content)
    assert make_run_folder(tmp_path, "a", force=True) == folder


def test_a_file_in_the_place_of_the_runs(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(ValueError, match="is not a folder, so no run can be kept in it"):
        make_timed_run_folder(tmp_path / "runs", "pipeline")


def test_runs_started_at_once_never_share_a_folder(tmp_path):
    def start(_):
        try:
            return make_run_folder(tmp_path, "same")
        except ValueError:
            return None

    with ThreadPoolExecutor(8) as pool:
        timed = list(pool.map(lambda _: make_timed_run_folder(tmp_path, "pipeline"), range(8)))
        named = list(pool.map(start, range(8)))
    assert len(set(timed)) == 8
    assert named.count(None) == 7


# Which notebooks run with which values; no kernel is started.


def test_each_notebook_gets_the_parameters_it_has(write, tmp_path, no_kernel):
    write("a", code("seed: int = 1\nrun_dir: str = ''\nonly_a: str = 'x'", "parameters"))
    write("b", code("seed: int = 2\nrun_dir: str = ''", "parameters"))
    folders = {"runs_dir": tmp_path / "runs", "notebooks_dir": tmp_path / "notebooks"}
    run_dir = run(["a", "b"], {"only_a": "5", "seed": "9"}, name="first", **folders)
    assert run_dir == tmp_path / "runs" / "first"
    assert no_kernel == [
        ("a", {"seed": 9, "only_a": "5", "run_dir": str(run_dir)}),
        ("b", {"seed": 9, "run_dir": str(run_dir)}),
    ]
    assert record_of(run_dir)["seed"] == 9

    timed = run("b.ipynb", {"run_dir": "elsewhere"}, **folders)
    assert no_kernel[-1] == ("b", {"run_dir": "elsewhere"})
    assert timed.name.startswith("b-2")
    assert run(["a", "b"], {}, **folders).name.startswith("pipeline-2")


@pytest.mark.parametrize(
    ("names", "parameters", "message"),
    [
        ("c", {}, "no notebook named 'c'; it has: a, b"),
        ([], {}, "notebooks to run: expected each of them once, got none"),
        (["a", "a.ipynb"], {}, "notebooks to run: expected each of them once, got a, a"),
        (
            ["a", "b"],
            {"sed": 3},
            "b.ipynb: no parameter named 'sed'; did you mean 'seed'? it has: seed, only_a",
        ),
        (["a", "b"], {"seed": "x"}, "seed is int, got 'x' (str)"),
        ("b", {"only_a": 1}, "no parameter named 'only_a'; it has: seed"),
    ],
)
def test_what_is_refused_before_a_folder_is_made(write, tmp_path, no_kernel, names, parameters, message):
    write("a", code("seed: int = 1\nonly_a: str = 'x'", "parameters"))
    write("b", code("seed: int = 2", "parameters"))
    (tmp_path / "runs" / "old").mkdir(parents=True)
    with pytest.raises(ValueError) as caught:
        run(names, parameters, "old", True, tmp_path / "runs", tmp_path / "notebooks")
    assert message in str(caught.value)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["old"]
    assert no_kernel == []


# The record.


def test_record(tmp_path):
    record = RunRecord(tmp_path, {"a": {"seed": 1}, "b": {"seed": 2}}, tmp_path)
    assert record_of(tmp_path)["status"] == "running"
    with record.notebook("a"):
        assert record_of(tmp_path)["notebooks"]["a"]["status"] == "running"
    (tmp_path / "dataset.json").write_text('{"fingerprint": "abc"}')
    (tmp_path / "metrics.json").write_text('{"mAP": NaN, "n": 3}')
    record.end()
    content = record_of(tmp_path)
    assert content["status"] == "finished"
    assert content["notebooks"]["a"]["status"] == "finished"
    assert content["notebooks"]["a"]["seconds"] >= 0
    assert content["notebooks"]["b"] == {
        "status": "waiting",
        "started": None,
        "ended": None,
        "seconds": None,
        "parameters": {"seed": 2},
    }
    assert content["seed"] == {"a": 1, "b": 2}
    assert content["dataset_fingerprint"] == "abc"
    assert content["metrics"] == {"mAP": None, "n": 3}
    assert content["packages"].keys() == set(records.PACKAGES)
    assert content["packages"]["papermill"]
    assert content["started"] <= content["ended"]
    assert [path.name for path in tmp_path.glob(".run.json*")] == []


def test_a_broken_metrics_file_does_not_fail_the_run(tmp_path):
    record = RunRecord(tmp_path, {}, tmp_path)
    (tmp_path / "metrics.json").write_text("{")
    (tmp_path / "dataset.json").write_text("[]")
    record.end()
    content = record_of(tmp_path)
    assert (content["metrics"], content["dataset_fingerprint"], content["seed"]) == (None, None, None)


def test_git_revision(tmp_path, monkeypatch):
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert records._git(tmp_path) is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    assert records._git(tmp_path) is None
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    clean = records._git(tmp_path)
    assert len(clean["revision"]) == 40
    assert clean["dirty"] is False
    (tmp_path / "new.py").write_text("")
    assert records._git(tmp_path) == {"revision": clean["revision"], "dirty": True}
    monkeypatch.setenv("PATH", "")
    assert records._git(tmp_path) is None


# Real kernels.


class AnsweringStream(io.StringIO):
    """Makes a file as soon as it has been written "first"."""

    def __init__(self, path):
        super().__init__()
        self.path = path

    def write(self, piece):
        if "first" in piece:
            self.path.touch()
        return super().write(piece)


def test_a_run(write, tmp_path, monkeypatch, caplog):
    """Parameters, `run_dir`, the kernel's folder, output while a cell runs, and the record, in one kernel."""
    (tmp_path / "runs {x}").mkdir()  # papermill would take the braces for a parameter
    work = (
        "import json, os, time, pathlib\n"
        "print('first', flush=True)\nuntil = time.monotonic() + 60\n"
        "while not pathlib.Path('seen').exists() and time.monotonic() < until:\n    time.sleep(0.01)\n"
        "print('second' if pathlib.Path('seen').exists() else 'nobody read it')\n"
        "out = pathlib.Path(run_dir) / 'metrics.json'\n"
        "out.write_text(json.dumps([os.getcwd(), rate, labels, keep]));"
    )
    declared = "rate: float = 1.0\nlabels: list[str] = []\nkeep: bool = True\nseed: int = 5\nrun_dir: str = ''"
    write("work", text("# Work"), code(declared, "parameters"), text("## The work\nat last"), code(work))
    stream = AnsweringStream(tmp_path / "seen")
    monkeypatch.setattr(sys, "stderr", stream)
    values = {"rate": "1e-5", "labels": "a,b'\"\\", "keep": "false"}
    run_dir = run("work", values, "one", False, tmp_path / "runs {x}", tmp_path / "notebooks")

    lines = ["[work] Work", "[work] The work", "first", "second"]
    assert stream.getvalue().splitlines() == lines
    assert caplog.text == ""
    record = record_of(run_dir)
    assert record["metrics"] == [str(tmp_path), 1e-5, ["a", "b'\"\\"], False]
    assert (record["status"], record["seed"], record["error"]) == ("finished", 5, None)
    entry = record["notebooks"]["work"]
    assert entry["status"] == "finished"
    assert entry["parameters"] == {
        "rate": 1e-5,
        "labels": ["a", "b'\"\\"],
        "keep": False,
        "seed": 5,
        "run_dir": str(run_dir),
    }
    assert 0 < entry["seconds"] <= record["seconds"]
    assert sorted(path.name for path in run_dir.iterdir()) == ["metrics.json", "run.json", "work.ipynb"]


def test_a_failing_cell(write, tmp_path, capsys):
    """The error, the record and the broken notebook; the notebook after it is not started."""
    write(
        "a",
        code("n: int = 0", "parameters"),
        code("print('before')\n"),
        code("\nrate = 1 / n\nrate"),
        code("2"),
    )
    write("b", code("n: int = 0", "parameters"))
    with pytest.raises(NotebookError) as caught:
        run(["a", "b"], {"n": 0}, "one", False, tmp_path / "runs", tmp_path / "notebooks")
    broken = tmp_path / "runs" / "one" / "a.ipynb"
    assert str(caught.value) == (
        f"{tmp_path / 'notebooks' / 'a.ipynb'}: cell 3 (rate = 1 / n) failed: "
        f"ZeroDivisionError: division by zero\nthe broken notebook: {broken}"
    )
    assert caught.value.notebook_path == broken
    assert "division by zero" in broken.read_text()
    record = record_of(broken.parent)
    assert record["status"] == "failed"
    assert record["failed_cell"] == {
        "notebook": "a",
        "number": 3,
        "title": "rate = 1 / n",
        "error": "ZeroDivisionError",
        "message": "division by zero",
    }
    assert {name: entry["status"] for name, entry in record["notebooks"].items()} == {
        "a": "failed",
        "b": "waiting",
    }
    assert not (broken.parent / "b.ipynb").exists()
    assert capsys.readouterr().err == "before\n"


def test_a_kernel_that_dies(write, tmp_path):
    write("a", code("n: int = 0", "parameters"), text("## Too much"), code("import os\nos.kill(os.getpid(), 9)"))
    with pytest.raises(NotebookError) as caught:
        run("a", {}, "out", False, tmp_path, tmp_path / "notebooks")
    assert "a.ipynb: cell 3 (Too much) failed: DeadKernelError: the kernel died; " in str(caught.value)
    assert f"the broken notebook: {tmp_path / 'out' / 'a.ipynb'}" in str(caught.value)
    assert (tmp_path / "out" / "a.ipynb").exists()
    record = record_of(tmp_path / "out")
    assert record["status"] == record["notebooks"]["a"]["status"] == "failed"


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_run_that_is_interrupted_or_terminated_says_so_in_one_line(write, tmp_path):
    """Ctrl-C reaches the whole group of processes; neither leaves "running" in the record, nor a kernel."""
    (tmp_path / "retinamask").mkdir()  # the project's root has it
    working = "import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(300)"
    write("a", text("# Work"), code("n: int = 0", "parameters"), code(working))
    script = "import sys; from retinamask.cli import main; sys.exit(main())"
    stopped = []
    for number in (signal.SIGINT, signal.SIGTERM):
        command = [sys.executable, "-c", script, "run", "a", "--name", number.name]
        environment = os.environ | {"PYTHONPATH": str(Path(runner.__file__).parents[2])}
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        stopped.append((number, process))
    for number, process in stopped:
        assert process.stderr.readline() == "[a] Work\n"
        kernel = int(process.stderr.readline())
        os.killpg(process.pid, number)
        assert process.communicate(timeout=60)[1] == "retinamask: stopped\n" and process.returncode == 130
        record = record_of(tmp_path / "runs" / number.name)
        assert record["status"] == record["notebooks"]["a"]["status"] == "stopped" and record["ended"]
        with pytest.raises(ProcessLookupError):
            os.kill(kernel, 0)


def test_a_kernel_that_does_not_start(write, tmp_path, monkeypatch):
    import papermill

    def refuse(*arguments, **options):
        raise RuntimeError("no kernel")

    monkeypatch.setattr(papermill, "execute_notebook", refuse)
    path = write("a", code("n: int = 0", "parameters"))
    with pytest.raises(NotebookError, match=r"a\.ipynb: before its first cell failed: RuntimeError: no kernel"):
        run_notebook(path, {}, tmp_path / "out")


def test_importing_is_cheap():
    heavy = "{'papermill', 'nbformat', 'tensorflow', 'numpy', 'yaml'}"
    script = f"import sys, retinamask.runs.runner; print(sorted({heavy} & set(sys.modules)))"
    root = Path(runner.__file__).parents[2]
    shown = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    assert shown.stdout == "[]\n"


def test_a_run_goes_on_in_its_folder(tmp_path, write):
    notebook = "seed: int = 1\nrun_dir: str = ''"
    for name in ("first", "second"):
        write(name, code(notebook, "parameters"), code("print(run_dir)"))
    folders = {"runs_dir": tmp_path / "runs", "notebooks_dir": tmp_path / "notebooks"}
    run_dir = run("first", {}, "mine", **folders)
    assert run("second", {"seed": 4}, continued="mine", **folders) == run_dir
    record = record_of(run_dir)
    assert {name: entry["status"] for name, entry in record["notebooks"].items()} == dict.fromkeys(
        ("first", "second"), "finished"
    )
    with pytest.raises(ValueError, match="first.ipynb: was run there before"):
        run("first", {}, continued="mine", **folders)
    with pytest.raises(ValueError, match="no run of that name; the newest are: mine"):
        run("second", {}, continued="other", **folders)


def test_a_notebook_that_was_killed_goes_on_as_it_was_begun(tmp_path, write, capsys):
    """A run of which the process was killed is recorded as running, and holds what was executed so far."""
    declared = "rate: float = 1.0\nresume: bool = False\nrun_dir: str = ''"
    lasting = "from pathlib import Path\nPath(run_dir, f'{rate} {resume}').touch()\nassert resume"
    write("train", code(declared, "parameters"), code(lasting))
    folders = {"runs_dir": tmp_path / "runs", "notebooks_dir": tmp_path / "notebooks"}
    with pytest.raises(NotebookError):
        run("train", {"rate": 0.25}, "mine", **folders)
    run_dir = tmp_path / "runs" / "mine"
    record = record_of(run_dir)
    record["status"] = record["notebooks"]["train"]["status"] = "running"
    record["process"]["pid"] = 2**31 - 1  # of no process
    (run_dir / "run.json").write_text(json.dumps(record))
    broken = (run_dir / "train.ipynb").read_bytes()

    with pytest.raises(ValueError, match="train.ipynb: did not finish; continue it with -p resume true"):
        run("train", {}, continued="mine", **folders)
    assert record_of(run_dir) == record
    assert run("train", {"resume": "true"}, continued="mine", **folders) == run_dir
    assert (run_dir / "0.25 True").exists() and record_of(run_dir)["notebooks"]["train"]["status"] == "finished"
    (aside,) = run_dir.glob("train.old-*.ipynb")
    assert aside.read_bytes() == broken and str(aside) in capsys.readouterr().err
    with pytest.raises(ValueError, match="train.ipynb: was run there before"):
        run("train", {"resume": True}, continued="mine", **folders)


# The snapshot that a run takes.


def test_a_run_takes_its_own_snapshot(tmp_path, monkeypatch):
    """The preferred kind first, of it the newest training, of that the best; never another run's."""
    monkeypatch.setattr(snapshots, "read", lambda path: Path(path).name)
    written = [
        ("a_best", "retinanet", "training", "a", "1", True),
        ("a_last", "retinanet", "training", "a", "1", False),
        ("a-2_last", "retinanet", "training", "a", "2", False),
        ("a-2_best", "retinanet", "training", "a", "2", True),
        ("a_best_inference", "retinanet", "inference", "a", "1", True),
        ("faces", "mask_classifier", "training", "a", "3", True),
        ("other", "retinanet", "training", "b", "9", True),
        (".half", "retinanet", "training", "a", "9", True),
    ]
    for stem, detector, kind, run_name, started, best in written:
        record = {"detector": detector, "kind": kind, "training": {"run": run_name, "started": started, "best": best}}
        (tmp_path / f"{stem}.json").write_text(json.dumps(record))
    (tmp_path / "own.json").write_text('{"colour": "red"}')
    (tmp_path / "broken.json").write_text("{")
    assert NotebookRun({"run_dir": "runs/a"}).snapshot("", tmp_path, "training") == "a-2_best.json"
    assert NotebookRun({"run_dir": "runs/a"}).snapshot("", tmp_path, "inference", "training") == "a_best_inference.json"
    assert NotebookRun({"run_dir": "runs/a"}).snapshot("", tmp_path, "training", classifier=True) == "faces.json"
    assert NotebookRun({"run_dir": "runs/b"}).snapshot("", tmp_path, "inference", "training") == "other.json"
    assert NotebookRun({"run_dir": "runs/a"}).snapshot("elsewhere/x.h5", tmp_path, "training") == "x.h5"
    with pytest.raises(ValueError) as caught:
        NotebookRun({"run_dir": "runs/b"}).snapshot("", tmp_path, "inference")
    assert str(caught.value) == (
        f"the run 'b' has no inference snapshot in {tmp_path}; run a training notebook and 03_convert_snapshot in this "
        f"run first, or name one with the parameter snapshot; there are: {tmp_path / 'a_best_inference.h5'}"
    )
    for number in range(11):
        (tmp_path / f"c{number}.json").write_text(json.dumps({"detector": "retinanet", "kind": "training"}))
    with pytest.raises(ValueError, match="a_last.h5, .* and 6 more$"):
        NotebookRun({"run_dir": "runs/z"}).snapshot("", tmp_path, "training")


# The parameter `more` of the training notebooks.


def test_more_holds_every_other_setting():
    more = {"mosaic": 0.5, "optimizer": "adamw", "ratios": [0.5, 1.0], "momentum": 0.8}
    settings, network = training_settings("retinanet", more, epochs=3, image_size=96, seed=4)
    assert (settings.epochs, settings.seed, settings.optimizer, settings.augmentation.mosaic) == (3, 4, "adamw", 0.5)
    assert settings.momentum == 0.8  # of sgd: training and network have each a setting of that name
    assert network == {"image_size": 96, "ratios": (0.5, 1.0)}
    assert training_settings("retinanet", {}, augment=False)[0].augmentation == NO_AUGMENTATION


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"mosiac": 0.5}, "retinanet has no mosiac; did you mean 'mosaic'? it has backbone, "),
        ({"alpha": 0.5}, "retinanet has no alpha; it has backbone, "),
        ({"epochs": 4}, "more has 'epochs', which is a parameter of its own; set it there"),
        ({"augmentation": None}, "retinanet has no augmentation"),
        ({"mosaic": 5}, "mosaic is 5, expected 0 to 1"),
        ({"mosaic": "0.5"}, "mosaic is '0.5', expected a"),
    ],
)
def test_what_more_does_not_take(more, message):
    with pytest.raises(ValueError) as caught:
        training_settings("retinanet", more, epochs=3)
    assert message in str(caught.value)


def test_a_picture_that_is_kept_by_hand_renews_the_page_of_the_run(tmp_path):
    """Without a page, as while `retinamask run` is at work, none is written."""
    run_of_notebook = NotebookRun({"run_dir": str(tmp_path)})
    run_of_notebook.keep(Image.new("RGB", (2, 2)), "first.png")
    assert not (tmp_path / "index.html").exists()
    (tmp_path / "index.html").write_text("old")
    run_of_notebook.keep(Image.new("RGB", (2, 2)), "second.png")
    page = (tmp_path / "index.html").read_text()
    assert "first.png" in page and "second.png" in page and f"<h1>Run {tmp_path.name}</h1>" in page
