"""Small images and annotation files that the tests of the formats share."""

import json
from pathlib import Path

from PIL import Image

SIZE = (40, 30)
EMPTY = (None,) * 5


def draw(path: Path, size: tuple[int, int] = SIZE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "orange").save(path)
    return path


def save(path: Path, content: str | bytes | dict | list) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, (dict, list)):
        content = json.dumps(content)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def rows(table) -> list[tuple]:
    return [tuple(row) for row in table.astype(object).where(table.notna(), None).itertuples(index=False, name=None)]


def actions(problems) -> list[str]:
    return [problem.action for problem in problems]
