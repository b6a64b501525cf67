"""The whole audit, with JSON and page, of 10,000 drawn JPEGs of 640 x 480: seconds and peak memory.

No other tool does the same, so there is nothing to compare with; a second run on a quarter of the images shows that
memory does not grow with their number. The images are made once, in a temporary folder, and each run is a process of
its own, so that its peak is its own. Prints one JSON line.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

COUNTS = (2_500, 10_000)
SIZE_WH = (640, 480)

# Runs in a process of its own; its last line is its processor seconds and its peak in megabytes (ru_maxrss: kB).
RUN = """
import resource, sys
from retinamask.cli import main
status = main(sys.argv[1:])
used = resource.getrusage(resource.RUSAGE_SELF)
print(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
sys.exit(status)
"""


def draw_images(folder: Path, count: int) -> None:
    """Pictures like photographs in size and detail: soft spots, all different, and grain."""
    generator = np.random.default_rng(0)
    grain = generator.normal(0, 9, (SIZE_WH[1] * 2, SIZE_WH[0] * 2, 3)).astype(np.float32)
    for number in range(count):
        spots = generator.integers(30, 226, (6, 8, 3)).astype(np.float32)
        top, left = generator.integers(0, SIZE_WH[1]), generator.integers(0, SIZE_WH[0])
        picture = cv2.resize(spots, SIZE_WH, interpolation=cv2.INTER_CUBIC)
        picture += grain[top : top + SIZE_WH[1], left : left + SIZE_WH[0]]
        cv2.imwrite(str(folder / f"{number:05d}.jpg"), np.clip(picture, 0, 255).astype(np.uint8))


def write_table(folder: Path, count: int) -> Path:
    """Three boxes an image, of 20 to 200 pixels."""
    generator = np.random.default_rng(1)
    lines = []
    for number in range(count):
        for side in generator.integers(20, 200, 3):
            x, y = generator.integers(0, SIZE_WH[0] - side), generator.integers(0, SIZE_WH[1] - side)
            name = ("mask", "no_mask")[generator.integers(2)]
            lines.append(f"{number:05d}.jpg,{x},{y},{x + side},{y + side},{name}\n")
    path = folder / f"annotations_{count}.csv"
    path.write_text("".join(lines))
    return path


def measure(table: Path) -> dict[str, float]:
    """Audit in a new process: seconds from its start to its end, those of all processors, and its peak of memory."""
    outputs = [f"--{kind}={table.with_suffix('.' + kind)}" for kind in ("json", "html")]
    started = time.perf_counter()
    command = [sys.executable, "-c", RUN, "audit", str(table), *outputs]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    seconds = time.perf_counter() - started
    processor_seconds, peak = map(float, said.splitlines()[-1].split())
    return {
        "seconds": round(seconds, 1),
        "processor_seconds": round(processor_seconds, 1),
        "peak_megabytes": round(peak, 1),
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        draw_images(Path(folder), max(COUNTS))
        bytes_an_image = round(sum(path.stat().st_size for path in Path(folder).glob("*.jpg")) / max(COUNTS))
        runs = {str(count): measure(write_table(Path(folder), count)) for count in COUNTS}
    shown = {"benchmark": "audit", "cores": os.cpu_count(), "size_wh": SIZE_WH, "bytes_an_image": bytes_an_image}
    print(json.dumps({**shown, "images": runs}))


if __name__ == "__main__":
    main()
