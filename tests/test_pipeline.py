"""The notebooks as files, and all of them run in order on a tiny sample, as papermill runs them."""

import ast
import json
import subprocess
from pathlib import Path

import nbformat
import pytest
from test_watchers import EVALUATION_TAGS, STEP_TAGS, read_back

from retinamask.dataset import annotations
from retinamask.detectors import snapshots
from retinamask.notebook_parameters import known_parameters
from retinamask.notebooks import PIPELINE, TRAINING, enter_project, run
from retinamask.notebooks import pipeline as pipeline_of

ROOT = Path(__file__).parents[1]
TWO_STAGES = ("08_train_mask_classifier", "09_two_stage_detection")
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def git_status() -> str:
    return subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def pipeline(tiny, tmp_path_factory):
    """The folder of a run of all notebooks, and what git said before it."""
    before, folder = git_status(), tmp_path_factory.mktemp("pipeline")
    parameters = {
        "xml_dir": str(tiny / "scenes"),
        "snapshots_dir": str(folder / "snapshots"),
        "backbone": "mobilenet128_0.25",
        "image_size": 96,
        "epochs": 1,
        "steps": 2,
        "batch_size": 2,
        "val_share": 0.25,
        "test_share": 0.25,
        "show_from_score": "0.05",
    }
    return run(PIPELINE, parameters, "tiny", runs_dir=folder / "runs", notebooks_dir=ROOT / "notebooks"), before


def test_the_pipeline_is_all_of_the_notebooks_but_the_audit():
    others = [*list(TRAINING.values())[1:], *TWO_STAGES]
    assert [path.stem for path in NOTEBOOKS] == ["00_audit_dataset", *PIPELINE, *others]


@pytest.mark.parametrize("detector", list(TRAINING)[1:])
def test_every_detector_goes_through_the_same_notebooks(tiny, tmp_path, detector):
    parameters = {
        "annotations_csv": str(tiny / "annotations.csv"),
        "snapshots_dir": str(tmp_path / "snapshots"),
        "image_size": 96,
        "epochs": 1,
        "steps": 2,
        "batch_size": 2,
    }
    if detector == "yolov4_tiny":
        parameters |= {"own_anchors": True, "multi_scale": 1.4, "mosaic": 0.5, "score_threshold": 0.01}
    else:
        parameters |= {"alpha": 0.35}
    is_whole = detector == "yolov4_tiny"  # one is enough of the notebooks that do not know which detector it is
    names = [name for name in pipeline_of(detector) if name not in ("01_build_annotations", "04_visualise_detections")]
    run_dir = run(
        names if is_whole else names[:1], parameters, detector, runs_dir=tmp_path, notebooks_dir=ROOT / "notebooks"
    )
    record = json.loads((tmp_path / "snapshots" / f"{detector}_best.json").read_text())
    assert record["detector"] == detector and record["settings"]["image_size"] == 96
    assert (run_dir / "training_curves.png").exists()
    assert not is_whole or json.loads((run_dir / "metrics.json").read_text())["images"] > 0
    shown = set(read_back(next((run_dir / "tensorboard").iterdir())).Tags()["scalars"])
    found = {tag for tag in shown if tag.startswith(("DetectionBoxes_Precision/", "DetectionBoxes_Recall/"))}
    assert shown >= set(STEP_TAGS) and set(EVALUATION_TAGS) >= found
    assert {tag for tag in EVALUATION_TAGS if "(" not in tag} <= found  # of areas only those that there are
    written = {path.suffix for path in (tmp_path / "snapshots").iterdir()}
    assert ({".cfg", ".weights", ".names"} <= written) == (detector == "yolov4_tiny")


def test_both_stages_go_from_annotations_to_figures(tiny, tmp_path):
    """Offline, with `haar`; and the detectors' notebooks do not take the classifier for one of them."""
    folder = tmp_path / "snapshots"
    parameters = {
        "annotations_csv": str(tiny / "annotations.csv"),
        "snapshots_dir": str(folder),
        "image_height": 48,
        "image_width": 32,
        "alpha": 0.35,
        "dense": "8",
        "epochs": 1,
        "steps": 2,
        "batch_size": 4,
        "show_from_score": 0.05,
    }
    run_dir = run(TWO_STAGES, parameters, "faces", runs_dir=tmp_path, notebooks_dir=ROOT / "notebooks")
    record = json.loads((folder / "faces_best.json").read_text())
    settings = record["settings"]
    assert record["detector"] == "mask_classifier" and (settings["image_height"], settings["image_width"]) == (48, 32)
    pictures = ["augmentation", "training_curves", "confusion_matrix", "roc", "calibration", "prediction_plot"]
    pictures += ["mistakes", "two_stage_sheet"]
    assert {f"{name}.png" for name in pictures} <= {path.name for path in run_dir.iterdir()}
    cells = nbformat.read(run_dir / "09_two_stage_detection.ipynb", as_version=4).cells
    outputs = [output for cell in cells if cell.cell_type == "code" for output in cell.outputs]
    said = "".join(output.get("text", "") for output in outputs)
    assert "detections in" in said and "WARNING" not in said  # the test images are held out
    metrics = json.loads((run_dir / "two_stage_metrics.json").read_text())
    found = annotations.read_detections(run_dir / "two_stage_detections.csv")
    test = annotations.read_annotations(run_dir / "test.csv")
    assert metrics["images"] == len(annotations.image_paths(test)) > 0
    assert annotations.image_paths(found) == annotations.image_paths(test)
    assert snapshots.newest(folder, "training", classifier=True) == folder / "faces_best.h5"
    for kind in snapshots.KINDS:
        with pytest.raises(snapshots.SnapshotError, match=f"no {kind} snapshot"):
            snapshots.newest(folder, kind, run="faces")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_clean(path):
    cells = nbformat.read(path, as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert cells[0].source.startswith("# ") and "**Reads**" in cells[0].source and "**Takes**" in cells[0].source
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in cells) == 1
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    for cell in code:
        assert not any(line.lstrip().startswith(("!", "%")) for line in cell.source.splitlines())
        kinds = (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)
        assert not any(isinstance(node, kinds) for node in ast.walk(ast.parse(cell.source)))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_parameter_is_explained_and_papermill_reads_it(path):
    import papermill

    known = known_parameters(path)
    assert all(parameter.help for parameter in known.values()) and "run_dir" in known
    assert set(papermill.inspect_notebook(str(path))) == set(known)


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


def test_pictures_are_shown_in_the_notebooks(pipeline):
    for name in ("01_build_annotations", "02_train_retinanet", "04_visualise_detections", "05_evaluate"):
        cells = nbformat.read(pipeline[0] / f"{name}.ipynb", as_version=4).cells
        outputs = [output for cell in cells if cell.cell_type == "code" for output in cell.outputs]
        assert any("image/png" in output.get("data", {}) for output in outputs), name


def test_the_working_tree_is_as_clean_as_before(pipeline):
    assert git_status() == pipeline[1]


def test_a_notebook_started_in_its_own_folder_finds_the_project(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT / "notebooks")
    assert enter_project() == ROOT
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="is not inside the project"):
        enter_project()


def test_without_a_snapshot_detection_says_what_to_run_first(tiny, tmp_path):
    from retinamask.notebooks import NotebookError

    parameters = {"snapshots_dir": str(tmp_path / "none"), "annotations_csv": str(tiny / "annotations.csv")}
    with pytest.raises(NotebookError, match="run 03_convert_snapshot first") as raised:
        run("05_evaluate", parameters, "lonely", runs_dir=tmp_path, notebooks_dir=ROOT / "notebooks")
    assert (tmp_path / "lonely" / "05_evaluate.ipynb").is_file() and "cell 5" in str(raised.value)


def test_the_audit_runs_on_a_folder_of_xml_and_leaves_its_page(tiny, tmp_path):
    before = git_status()
    parameters = {"source": str(tiny / "scenes"), "image_size": 96}
    run_dir = run("00_audit_dataset", parameters, "audit", runs_dir=tmp_path, notebooks_dir=ROOT / "notebooks")
    record = json.loads((run_dir / "audit.json").read_text())
    assert record["images"] == 12 and record["severities"]["error"] == 0
    assert "Audit of scenes" in (run_dir / "audit.html").read_text() and git_status() == before
