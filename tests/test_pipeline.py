"""The notebooks as files, and all of them run on a tiny sample.

The pipeline runs as papermill runs it, in real kernels; the other notebooks cell by cell in this process, which spares
the seconds of a kernel, and in kernels as slow tests.
"""

import ast
import json
import subprocess
from pathlib import Path

import nbformat
import pytest
from notebook_cells import ROOT, run_cells
from test_watchers import EVALUATION_TAGS, STEP_TAGS, read_back

from retinamask.dataset import annotations
from retinamask.evaluation import leaderboard
from retinamask.runs.enter import enter, enter_project
from retinamask.runs.parameters import known_parameters, settings_in_more
from retinamask.runs.runner import PIPELINE, run
from retinamask.runs.runner import pipeline as pipeline_of

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
ALONE = (
    "06_train_ssd_mobilenet_v2_fpnlite",
    "07_train_yolov4_tiny",
    "08_train_mask_classifier",
    "09_two_stage_detection",
    "10_error_analysis",
    "11_compare_detectors",
)
SHORT = {"image_size": 96, "epochs": 1, "steps": 2, "batch_size": 2}
FACES = {"image_height": 48, "image_width": 32, "alpha": 0.35, "dense": "8", "epochs": 1, "steps": 2, "batch_size": 4}
PRECISE = {"precision": "float32"}  # measures nothing


def git_status() -> str:
    return subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def pipeline(tiny, tmp_path_factory):
    """The folder of a run of the whole pipeline, and what git said before it."""
    before, folder = git_status(), tmp_path_factory.mktemp("pipeline")
    parameters = {
        "xml_dir": str(tiny / "scenes"),
        "snapshots_dir": str(folder / "snapshots"),
        "backbone": "mobilenet128_0.25",
        **SHORT,
        **PRECISE,
        "val_share": 0.25,
        "test_share": 0.25,
        "show_from_score": "0.05",
    }
    return run(PIPELINE, parameters, "tiny", runs_dir=folder / "runs", notebooks_dir=ROOT / "notebooks"), before


def outputs_of(path: Path) -> list[dict]:
    cells = nbformat.read(path, as_version=4).cells
    return [output for cell in cells if cell.cell_type == "code" for output in cell.outputs]


def pngs_in(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*.png")}


def test_the_pipeline_is_all_of_the_notebooks_but_the_audit():
    assert [path.stem for path in NOTEBOOKS] == ["00_audit_dataset", *PIPELINE, *ALONE]
    trained_by = {name: pipeline_of(name, ROOT / "notebooks")[1] for name in ("retinanet", "yolov4_tiny")}
    assert trained_by == {"retinanet": "02_train_retinanet", "yolov4_tiny": "07_train_yolov4_tiny"}
    with pytest.raises(ValueError, match="no detector named 'yolo'; there are: retinanet, ssd_mobilenet_v2_fpnlite, y"):
        pipeline_of("yolo", ROOT / "notebooks")


# The cells of the first are those of the second, which writes Darknet's files and fits anchors too.
@pytest.mark.parametrize("name", [pytest.param(ALONE[0], marks=pytest.mark.slow), ALONE[1]])
def test_every_detector_is_trained_and_shows_its_pictures(tiny, tmp_path, monkeypatch, name):
    detector, run_dir, folder = name.partition("_train_")[2], tmp_path / "mine", tmp_path / "snapshots"
    parameters = {"annotations_csv": str(tiny / "annotations.csv"), "snapshots_dir": str(folder), **SHORT}
    if detector == "yolov4_tiny":
        parameters |= {"own_anchors": True, "more": {"multi_scale": 1.4, "mosaic": 0.5, **PRECISE}}
    else:
        parameters |= {"alpha": 0.35, "more": PRECISE}
    done = run_cells(name, monkeypatch, run_dir=str(run_dir), **parameters)
    record = json.loads((folder / "mine_best.json").read_text())
    assert record["detector"] == detector and record["settings"]["image_size"] == 96
    assert pngs_in(run_dir) == {"augmentation.png", "learning_rate.png", "training_curves.png"}
    assert len(done.pictures) == 3
    shown = set(read_back(run_dir / "tensorboard").Tags()["scalars"])
    found = {tag for tag in shown if tag.startswith(("DetectionBoxes_Precision/", "DetectionBoxes_Recall/"))}
    assert shown >= set(STEP_TAGS) and set(EVALUATION_TAGS) >= found
    assert {tag for tag in EVALUATION_TAGS if "(" not in tag} <= found  # of areas only those that there are
    written = {path.suffix for path in folder.iterdir()}
    assert ({".cfg", ".weights", ".names"} <= written) == (detector == "yolov4_tiny")
    if detector == "yolov4_tiny":  # one is enough of the notebooks that do not know which detector it is
        common = {"snapshots_dir": str(folder), "run_dir": str(run_dir)}
        run_cells("03_convert_snapshot", monkeypatch, score_threshold=0.01, **common)
        done = run_cells("05_evaluate", monkeypatch, **common)
        assert done.variables["model"].snapshot.kind == "inference" and len(done.pictures) == 5
        metrics = json.loads((run_dir / "metrics.json").read_text())
        assert metrics["images"] > 0 and metrics["leaked_images"] == 0
        done = run_cells("05_evaluate", monkeypatch, split="train", **common)
        metrics = json.loads((run_dir / "metrics.json").read_text())
        assert metrics["leaked_images"] == metrics["images"] == 8
        assert "LEAK: 8 of 8" in done.variables["leaks"].remarks[0]
        done = run_cells("10_error_analysis", monkeypatch, **common)
        pictures = {f"{name}.png" for name in ("errors", "worst_images", "doubtful_annotations", "found_by_trait")}
        assert pictures <= pngs_in(run_dir) and len(done.pictures) == 4
        assert len((run_dir / "mistakes.csv").read_text().splitlines()) == 1 + len(done.variables["mistakes"])
        monkeypatch.setattr(leaderboard, "_peak_memory", lambda weights, paths, faces: 100.0)
        done = run_cells("11_compare_detectors", monkeypatch, passes=1, timed_images=1, **common)
        assert len(done.pictures) == 2 and done.variables["board"].table["model"].tolist() == ["mine_best.h5"]
        assert "| mine_best.h5 | 96 |" in (run_dir / "leaderboard.md").read_text()


def test_both_stages_go_from_annotations_to_figures(tiny, tmp_path, monkeypatch, capsys):
    """Offline, with `haar`; and the detectors' notebooks do not take the classifier for one of them."""
    run_dir, folder = tmp_path / "faces", tmp_path / "snapshots"
    common = {"annotations_csv": str(tiny / "annotations.csv"), "snapshots_dir": str(folder), "run_dir": str(run_dir)}
    done = run_cells("08_train_mask_classifier", monkeypatch, more=PRECISE, **FACES, **common)
    record = json.loads((folder / "faces_best.json").read_text())
    settings = record["settings"]
    assert record["detector"] == "mask_classifier" and (settings["image_height"], settings["image_width"]) == (48, 32)
    pictures = ["augmentation", "training_curves", "confusion_matrix", "roc", "calibration"]
    pictures += ["prediction_plot", "mistakes"]
    assert pngs_in(run_dir) == {f"{name}.png" for name in pictures} and len(done.pictures) == len(pictures)
    capsys.readouterr()
    done = run_cells("09_two_stage_detection", monkeypatch, show_from_score=0.05, **common)
    assert (run_dir / "two_stage_sheet.png").is_file() and len(done.pictures) == 1
    said = capsys.readouterr().out
    assert "detections in" in said and "WARNING" not in said  # the test images are held out
    metrics = json.loads((run_dir / "two_stage_metrics.json").read_text())
    found = annotations.read_detections(run_dir / "two_stage_detections.csv")
    test = annotations.read_annotations(run_dir / "test.csv")
    assert metrics["images"] == len(annotations.image_paths(test)) > 0
    assert annotations.image_paths(found) == annotations.image_paths(test)
    done = run_cells("09_two_stage_detection", monkeypatch, face_detector="snapshot", **common)
    assert done.variables["faces"].weights.name == "mask_detector.onnx" and len(done.variables["remarks"]) == 1
    with monkeypatch.context() as patched, pytest.raises(ValueError, match="show a picture that the model was trained"):
        patched.setattr("retinamask.evaluation.leaks.shown_in", lambda hashes, known: [True])
        run_cells("09_two_stage_detection", monkeypatch, face_detector="snapshot", **common)
    with pytest.raises(ValueError, match="the run 'faces' has no training snapshot in .*there are: none"):
        run_cells("03_convert_snapshot", monkeypatch, **common)


def test_the_audit_runs_on_a_folder_of_xml_and_leaves_its_page(tiny, tmp_path, monkeypatch):
    run_dir = tmp_path / "audit"
    done = run_cells("00_audit_dataset", monkeypatch, source=str(tiny / "scenes"), image_size=96, run_dir=str(run_dir))
    record = json.loads((run_dir / "audit.json").read_text())
    assert record["images"] == 12 and record["severities"]["error"] == 0
    assert "Audit of scenes" in (run_dir / "audit.html").read_text()
    assert pngs_in(run_dir) == {"audit_classes.png", "audit_box_sizes.png"} and len(done.pictures) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("names", [["00_audit_dataset"], ALONE[:1], ALONE[1:2], ALONE[2:4]], ids=lambda names: names[0])
def test_the_other_notebooks_run_in_kernels(tiny, tmp_path, names):
    table = {"annotations_csv": str(tiny / "annotations.csv"), "snapshots_dir": str(tmp_path / "s"), **PRECISE}
    parameters = {"source": str(tiny / "scenes")} if names[0].startswith("00") else table
    parameters |= FACES if "mask_classifier" in names[0] else SHORT if "_train_" in names[0] else {}
    run_dir = run(names, parameters, "mine", runs_dir=tmp_path, notebooks_dir=ROOT / "notebooks")
    shown = [output for name in names for output in outputs_of(run_dir / f"{name}.ipynb")]
    assert sum("image/png" in output.get("data", {}) for output in shown) >= len(pngs_in(run_dir)) > 0


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_clean(path):
    cells = nbformat.read(path, as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert cells[0].source.startswith("# ") and "**Reads**" in cells[0].source and "**Takes**" in cells[0].source
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in cells) == 1
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    for cell in code:
        assert not any(line.lstrip().startswith(("!", "%")) for line in cell.source.splitlines())
        nodes = list(ast.walk(ast.parse(cell.source)))
        assert not any(isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef) for node in nodes)
        imports = {ast.unparse(node) for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)}
        assert imports <= {
            "import retinamask as rm", "import pandas as pd", "from pathlib import Path",
            "from IPython.display import display",
        }  # fmt: skip


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_parameter_is_explained_and_papermill_reads_it(path):
    import papermill

    known = known_parameters(path)
    assert all(parameter.help for parameter in known.values()) and "run_dir" in known
    assert set(papermill.inspect_notebook(str(path))) == set(known) and len(known) <= 27


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_texts_that_plain_papermill_passes_get_their_types(path, tmp_path, monkeypatch):
    """`papermill ... -p with_unannotated false -p sources data/mine` gives texts, of which "false" would be true."""
    monkeypatch.chdir(ROOT)
    cell = next(c for c in nbformat.read(path, as_version=4).cells if "parameters" in c.metadata.get("tags", []))
    for text in ("false", "False"):
        given: dict = {}
        exec(cell.source, given)
        known = known_parameters(path)
        texts = {"bool": text, "list[str]": "data/mine"}
        changed = {name: texts[p.type_name] for name, p in known.items() if p.type_name in texts}
        given |= {**changed, "run_dir": str(tmp_path / text)}
        enter(path.stem, given)
        assert {name: given[name] for name in changed} == {
            name: False if known[name].type_name == "bool" else ["data/mine"] for name in changed
        }
    for name, value in ((next(iter(known)), 3), ("run_dir", None)):
        with pytest.raises(ValueError, match=f"{name} is str, got {value!r}"):
            enter(path.stem, {**given, name: value})
    with pytest.raises(ValueError, match="no parameter named 'run_dr'; did you mean 'run_dir'?"):
        enter(path.stem, {**given, "In": [cell.source, "# Parameters\nrun_dr = 'x'"]})


def test_every_setting_is_a_parameter_or_a_key_of_more():
    """The parameters that the training notebooks had before are taken still, and each is explained."""
    before = {
        "backbone", "weights", "image_size", "batch_size", "accumulate", "epochs", "steps", "optimizer",
        "learning_rate", "schedule", "warm_up", "momentum", "weight_decay", "gradient_clip", "ema",
        "freeze_epochs", "balance",
        "early_stop", "plateau_patience", "augment", "flip", "zoom_out", "zoom_in", "visible_share", "brightness",
        "contrast", "saturation", "mosaic", "precision", "cache", "evaluate_every", "keep_best", "keep_last",
        "checkpoint_minutes", "find_learning_rate", "resume", "snapshots_dir", "seed", "run_dir",
    }  # fmt: skip
    for name, own in (("02_train_retinanet", set()), (ALONE[0], {"localization", "regularisation", "alpha"})):
        path = ROOT / "notebooks" / f"{name}.ipynb"
        known, more = known_parameters(path), settings_in_more(path)
        assert before - ({"backbone"} if own else set()) | own <= {*known, *more}
        assert len(known) <= 20 and all(more[key].help for key in before & set(more))


def test_the_pipeline_leaves_what_a_person_looks_for(pipeline):
    run_dir, _ = pipeline
    expected = {f"{name}.ipynb" for name in PIPELINE}
    expected |= {f"{name}.csv" for name in ("annotations", "train", "val", "test", "classes", "detections", "log")}
    expected |= {"contact_sheet.png", "training_curves.png", "precision_recall.png", "metrics.json", "run.json"}
    assert expected <= {path.name for path in run_dir.iterdir()}
    metrics = json.loads((run_dir / "metrics.json").read_text())
    figures = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl", "per_class"]
    assert set(figures) <= set(metrics) and list(metrics["per_class"]) == ["mask", "no_mask"]


def test_the_record_says_what_was_done(pipeline):
    record = json.loads((pipeline[0] / "run.json").read_text())
    assert record["status"] == "finished" and record["dataset_fingerprint"]
    assert record["packages"]["keras-retinanet"] == "1.0.0" and record["metrics"]["images"] == 3
    assert record["notebooks"]["02_train_retinanet"]["parameters"]["learning_rate"] == 6e-4


def test_training_never_saw_the_test_images(pipeline):
    run_dir, _ = pipeline
    seen = [set(annotations.read_annotations(run_dir / f"{name}.csv")["image_path"]) for name in ("train", "val")]
    test = set(annotations.read_detections(run_dir / "detections.csv")["image_path"])
    assert len(test) == 3 and not test & (seen[0] | seen[1])


def test_every_picture_is_shown_in_the_notebooks(pipeline):
    """A figure that is not its cell's last expression is written and never seen; 02 shows a live figure too."""
    expected = {"01_build_annotations": 3, "02_train_retinanet": 4, "04_visualise_detections": 1, "05_evaluate": 5}
    for name in PIPELINE:
        pictures = ["image/png" in output.get("data", {}) for output in outputs_of(pipeline[0] / f"{name}.ipynb")]
        assert sum(pictures) == expected.get(name, 0), name


def test_setup_prints_nothing_and_only_changed_parameters_are_injected(pipeline):
    for name in PIPELINE:
        _, declared, injected, setup = nbformat.read(pipeline[0] / f"{name}.ipynb", as_version=4).cells[:4]
        assert "parameters" in declared.metadata.tags and "enter(" in setup.source and setup.outputs == []
        assert "run_dir = " in injected.source and "seed" not in injected.source
    assert (
        '\nmore = {"precision": "float32"}\n'
        in nbformat.read(pipeline[0] / "02_train_retinanet.ipynb", as_version=4).cells[2].source
    )


def test_the_working_tree_is_as_clean_as_before(pipeline):
    assert git_status() == pipeline[1]


def test_a_notebook_started_in_its_own_folder_finds_the_project(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT / "notebooks")
    enter_project()
    assert Path.cwd() == ROOT
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="is not inside the project"):
        enter_project()


@pytest.mark.parametrize("name", ["03_convert_snapshot", "04_visualise_detections", "05_evaluate"])
def test_a_run_without_a_snapshot_of_its_own_asks_for_one(pipeline, tmp_path, monkeypatch, name):
    """The models of other runs are named, and none of them is taken."""
    folder = pipeline[0].parents[1] / "snapshots"
    with pytest.raises(ValueError) as raised:
        run_cells(name, monkeypatch, run_dir=str(tmp_path / "lonely"), snapshots_dir=str(folder))
    assert "the run 'lonely' has no " in str(raised.value) and f"{folder / 'tiny_best.h5'}" in str(raised.value)
    assert "in this run first, or name one with the parameter snapshot" in str(raised.value)


def test_images_are_detected_in_a_run_that_is_not_there_yet(pipeline, tiny, tmp_path, monkeypatch, capsys):
    """As by plain papermill with `-p sources FOLDER`; the folder of an earlier run is kept."""
    folder, run_dir = pipeline[0].parents[1] / "snapshots", tmp_path / "new" / "run"
    given = {"snapshot": str(folder / "tiny_best.h5"), "sources": str(tiny / "scenes"), "run_dir": str(run_dir)}
    done = run_cells("04_visualise_detections", monkeypatch, show_from_score=0.05, **given)
    assert len(annotations.image_paths(done.variables["detections"])) == 12 and len(done.pictures) == 1
    first = (run_dir / "detections.csv").read_bytes()
    assert json.loads((run_dir / "run.json").read_text())["status"] == "by hand"
    assert "holds" not in capsys.readouterr().err
    enter("04_visualise_detections", done.variables)  # as another run begins
    (aside,) = run_dir.parent.glob("run.old-*")
    assert (aside / "detections.csv").read_bytes() == first and (aside / "contact_sheet.png").is_file()
    assert f"holds an earlier run of this notebook; a copy of the folder is {aside}" in capsys.readouterr().err
    resumed = {"resume": True, "run_dir": str(run_dir), "__annotations__": {"resume": bool, "run_dir": str}}
    enter("04_visualise_detections", resumed)
    assert len(list(run_dir.parent.glob("run.old-*"))) == 1
