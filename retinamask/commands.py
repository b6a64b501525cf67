"""What each command does with its parsed arguments, by calling the functions that the notebooks call.

Below `cli`, which parses. Imports stand inside the functions, so that a command starts only what it needs.
"""

import sys
from pathlib import Path


def sample_command(given) -> None:
    from retinamask.dataset.sample import draw_sample

    paths = draw_sample(given.out, given.images, given.size, given.seed)
    print(f"{len(paths)} scenes and their labelImg XML files are in {given.out}")


def annotations_command(given) -> None:
    from retinamask.dataset import annotations
    from retinamask.dataset.formats import class_ids, read_voc, summary

    out, classes_csv = Path(given.out), Path(given.classes)
    _refuse_existing(out, given.force)
    known = annotations.read_classes(classes_csv) if classes_csv.exists() else None
    table, problems = read_voc(given.sources, out.parent, given.images, known, given.with_unannotated)
    for problem in problems:
        print(problem, file=sys.stderr)
    if annotations.objects(table).empty:
        raise ValueError(f"no box is left for {classes_csv}; {summary(problems)}: fix them, or name another --classes")
    classes = known or class_ids(table)
    if known is None:
        annotations.write_classes(classes, classes_csv)
    moved = annotations.write_annotations(table, out)
    boxes = annotations.objects(table)
    print(annotations.count_boxes(table, classes).to_string())
    print(
        f"{len(annotations.image_paths(table))} images, {len(boxes)} boxes ({moved} rounded to whole pixels): "
        f"{out}, {classes_csv}; {summary(problems)}"
    )


def train_command(given) -> None:
    from retinamask import detectors
    from retinamask.dataset import annotations
    from retinamask.detectors import weights
    from retinamask.evaluation.in_training import epoch_evaluation
    from retinamask.training.train import TrainingSettings, train

    classes = annotations.read_classes(given.classes)
    table = annotations.read_annotations(given.annotations, classes)
    normalisation = weights.normalisation_for(given.weights)
    detector = detectors.create(
        "retinanet", classes, backbone=given.backbone, image_size=given.image_size, normalisation=normalisation
    )
    chosen = {name: getattr(given, name) for name in TrainingSettings.__dataclass_fields__ if hasattr(given, name)}
    settings = TrainingSettings(**chosen)
    evaluate = None
    if given.val_annotations:
        validation = annotations.read_annotations(given.val_annotations, classes)
        evaluate = epoch_evaluation(detector, validation, Path(given.val_annotations).parent)
    log_csv = Path(f"{given.out}_log.csv")
    if log_csv.exists():
        raise ValueError(f"{log_csv} exists; choose another --out")
    network = detector.network(given.freeze_backbone, given.seed)
    record = {"weights": weights.start(network, detector, given.weights)}
    folder = Path(given.annotations).parent
    trained = train(detector, network, table, folder, settings, given.out, evaluate, record, log_csv)
    print(f"best: {trained.best}\nlast: {trained.last}")


def convert_command(given) -> None:
    from retinamask.dataset import annotations
    from retinamask.detectors import snapshots
    from retinamask.inference.convert import adopt, convert

    weights = Path(given.snapshot).with_suffix(".h5")
    if given.classes and not weights.with_suffix(".json").exists():
        sides = (given.image_min_side, given.image_max_side)
        snapshot = adopt(weights, annotations.read_classes(given.classes), given.backbone, *sides)
        print(f"adopted: {snapshot}")
        if snapshot.kind == "inference":
            print("it was converted before; its own thresholds stay, --out and the thresholds given here do not apply")
            return
    else:
        snapshot = snapshots.read(weights)
    print(f"converted: {convert(snapshot, given.out, given.score_threshold, given.nms_threshold)}")


def detect_command(given) -> None:
    from retinamask.dataset import annotations
    from retinamask.inference.detect import Predictor, detect, find_images

    out = Path(given.out)
    _refuse_existing(out, given.force)
    paths = find_images(given.sources, out.parent)
    predictor = Predictor.load(given.snapshot)
    table, unreadable = detect(predictor, paths, out.parent, given.score_threshold, given.batch_size)
    for message in unreadable:
        print(f"left out: {message}", file=sys.stderr)
    if len(unreadable) == len(paths):
        raise ValueError(f"none of the {len(paths)} image(s) could be read; nothing is written to {out}")
    annotations.write_detections(table, out)
    found = len(annotations.objects(table))
    print(f"{found} detections in {len(paths) - len(unreadable)} images, {len(unreadable)} unreadable: {out}")


def evaluate_command(given) -> None:
    from retinamask.dataset import annotations
    from retinamask.detectors import snapshots
    from retinamask.evaluation import coco
    from retinamask.inference.detect import Predictor, detect

    if given.out:
        _refuse_existing(Path(given.out), given.force)
    classes = annotations.read_classes(given.classes)
    table = annotations.read_annotations(given.annotations, classes)
    if given.detections:
        detections = annotations.read_detections(given.detections)
        detections = annotations.moved(detections, Path(given.detections).parent, Path(given.annotations).parent)
    else:
        snapshot = snapshots.read(given.snapshot)
        snapshots.check_classes(snapshot, classes)
        paths, folder = annotations.image_paths(table), Path(given.annotations).parent
        detections, unreadable = detect(Predictor.load(snapshot), paths, folder)
        for message in unreadable:
            print(f"counted as without detections: {message}", file=sys.stderr)
    metrics = coco.evaluate(table, detections, classes)
    print(*coco.remarks(detections), sep="\n", file=sys.stderr)
    print(coco.metrics_table(metrics).to_string(index=False))
    for name, figures in metrics["per_class"].items():
        print(name, figures)
    if given.out:
        coco.write_metrics(metrics, given.out)


def run_command(given) -> int:
    from retinamask import notebooks
    from retinamask.notebook_parameters import read_parameters_file

    parameters = read_parameters_file(given.parameters_file) if given.parameters_file else {}
    parameters |= dict(given.parameter)
    notebook = Path(given.notebook)
    folder = notebook.parent if notebook.parent != Path() else Path("notebooks")
    names = notebooks.PIPELINE if given.notebook == "pipeline" else notebook.stem
    return _run_and_report(names, parameters, given.name, given.force, folder)


def _run_and_report(names, parameters, name: str | None, force: bool = False, folder: Path = Path("notebooks")) -> int:
    """Run the notebooks of a folder, write the page of the run, and say where to look."""
    from retinamask import notebooks
    from retinamask.evaluation.page import write_page

    try:
        run_dir = notebooks.run(names, parameters, name, force, notebooks_dir=folder)
    except notebooks.NotebookError as error:
        print(f"retinamask: {error}", file=sys.stderr)
        return 1
    page = write_page(run_dir, f"Face masks found by {run_dir.name}")
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
    from retinamask.detectors import keras_commands

    keras_commands.run(given.name, given.arguments)


def demo_command(given) -> int:
    from retinamask import notebooks
    from retinamask.dataset.sample import draw_sample

    notebooks.enter_project()
    data = given.data or f"data/demo_{given.images}"
    print(f"Drawing {given.images} scenes in {data}")
    draw_sample(data, given.images, size=256, seed=1)
    parameters = {
        "xml_dir": data,
        "image_size": 160,
        "epochs": 5,
        "steps": max(1, given.steps // 5),
        "evaluate_every": 5,
        "learning_rate": 6e-4,
    }
    return _run_and_report(notebooks.PIPELINE, parameters, given.name)


def _refuse_existing(path: Path, force: bool = False) -> None:
    """What a user has is replaced only when that is asked for."""
    if path.exists() and not force:
        raise ValueError(f"{path} exists; choose another name, or replace it with --force")
