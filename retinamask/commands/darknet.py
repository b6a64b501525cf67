"""Commands for users of Darknet: a folder to train in, whether one is sound, and a snapshot as Darknet's files."""

from retinamask.commands import add_command
from retinamask.detectors.darknet.folder import FolderSettings, folder_problems, write_folder
from retinamask.setting import described


def add_commands(subparsers) -> None:
    """Declare the commands of this file."""
    text = "Write the folder in which Darknet trains YOLOv4-tiny: cfg, obj.data, obj.names, lists, images and labels."
    files = add_command(subparsers, "darknet-files", darknet_files_command, text)
    files.add_argument("annotations", help="the CSV; a split that lies beside it is taken as it is")
    files.add_argument("classes", help="classes.csv, whose ids become Darknet's class numbers")
    files.add_argument("--out", required=True, metavar="DIR", help="a new or empty folder")
    for name, known in described(FolderSettings).items():
        option = f"--{name.replace('_', '-')}"
        files.add_argument(option, type=known.type, default=known.default, help=known.metadata["help"])

    text = "Check a Darknet folder before it trains: class counts, cfg, image lists, label files."
    check = add_command(subparsers, "darknet-check", darknet_check_command, text)
    check.add_argument("data", help="obj.data")
    check.add_argument("cfg", help="the cfg to train with it")

    text = "Write a yolov4_tiny snapshot as cfg, weights and names, for OpenCV's DNN module and Darknet."
    weights = add_command(subparsers, "darknet-weights", darknet_weights_command, text)
    weights.add_argument("snapshot", help=".h5 or .json of a training or inference snapshot")
    weights.add_argument("--out", required=True, metavar="DIR", help="folder for STEM.cfg, STEM.weights, STEM.names")
    weights.add_argument("--force", action="store_true", help="replace files of these names")


def darknet_files_command(given) -> None:
    from retinamask.detectors.yolov4_tiny import FIRST_LAYERS, RELEASE

    settings = FolderSettings(**{name: vars(given)[name] for name in described(FolderSettings)})
    made = write_folder(given.annotations, given.classes, given.out, settings)
    counts = ", ".join(f"{count} {side}" for side, count in made.images.items())
    print(f"images: {counts}; test.txt is not in obj.data, so that Darknet never sees those images")
    print(
        f"boxes overlap with their best anchor by {made.overlap:.3f} on average "
        f"(published anchors: {made.published_overlap:.3f}); {made.max_batches} updates"
    )
    print(f"written: {made.cfg.parent}; put {RELEASE}{FIRST_LAYERS} there and start Darknet in it:")
    print(f"darknet detector train obj.data {made.cfg.name} {FIRST_LAYERS} -map")


def darknet_check_command(given) -> None:
    problems = folder_problems(given.data, given.cfg)
    if problems:
        raise ValueError("\n".join(problems))
    print(f"{given.data} and {given.cfg} agree, and every listed image has a sound label file")


def darknet_weights_command(given) -> None:
    from retinamask.detectors import snapshots
    from retinamask.inference.convert import export_darknet

    made = export_darknet(snapshots.read(given.snapshot), given.out, given.force)
    print(f"written: {made.cfg}, {made.weights}, {made.names}")
    print(
        f"input: RGB from 0 to 1, fitted into {made.image_size} x {made.image_size} at the top left, the rest black; "
        f"cv2.dnn.readNetFromDarknet({str(made.cfg)!r}, {str(made.weights)!r})"
    )
