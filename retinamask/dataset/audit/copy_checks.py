"""Checks on copies: the same picture twice, with other labels, or in two splits.

`retinamask.dataset.copies` says what a copy is. Files with the same bytes are compared once, so that many copies of
one file stay cheap.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from retinamask.dataset import boxes, copies
from retinamask.dataset.annotations import image_paths
from retinamask.dataset.audit.box_checks import ImageBoxes, by_image
from retinamask.dataset.audit.findings import MOST_EXAMPLES, Example, Finding, found
from retinamask.dataset.audit.looking import Look

SAME_PLACE = 0.5  # IoU from which boxes of two copies are taken for the same face


@dataclass(frozen=True)
class Copies:
    """Which images show the same.

    Attributes:
        exact: groups of at least two files with the same bytes.
        near: groups of at least two images that show the same, those of ``exact`` included.
        pairs: paths of two copies and whether one is mirrored; joined, they give ``near``.
    """

    exact: list[list[str]]
    near: list[list[str]]
    pairs: list[tuple[str, str, bool]]

    def record(self) -> dict[str, dict[str, int]]:
        """Numbers of groups and files, and how many files are one too many."""
        return {
            name: {"groups": len(groups), "files": sum(map(len, groups)), "surplus": sum(len(g) - 1 for g in groups)}
            for name, groups in (("exact", self.exact), ("near", self.near))
        }


def find_copies(looks: Sequence[Look], near_bits: int = copies.NEAR_BITS) -> Copies:
    """Find copies among images; a file that is there but is no readable image may be an exact copy too.

    Args:
        looks: of the images.
        near_bits: images show the same if their hashes, or one and the other's mirrored, differ by so many bits.
    """
    by_bytes = defaultdict(list)
    for look in looks:
        if look.sha256:
            by_bytes[look.sha256].append(look.path)
    exact = [paths for paths in by_bytes.values() if len(paths) > 1]
    first = {paths[0] for paths in by_bytes.values()}
    pairs = [(one, other, False) for paths in exact for one, other in pairwise(paths)]
    pairs += _near([look for look in looks if look.hashes and look.path in first], near_bits)
    return Copies(exact, _groups([look.path for look in looks], pairs), pairs)


def check_copies(found_copies: Copies, table: pd.DataFrame, looks: Mapping[str, Look]) -> list[Finding]:
    """Findings about copies, and about those whose annotations disagree.

    Args:
        found_copies: from `find_copies`.
        table: annotations; only images that it names can disagree.
        looks: by path.
    """
    exact, near = _quarrels(found_copies, table, looks)
    mirrored = {path for one, other, mirrored in found_copies.pairs if mirrored for path in (one, other)}
    return [
        *found("exact copies labelled differently", "error", "pairs", _QUARREL, exact),
        *found("near-copies labelled differently", "warning", "pairs", _QUARREL_NEAR, near),
        *_copies_finding("exact file copies", _EXACT, found_copies.exact, set()),
        *_copies_finding("near-duplicate images", _NEAR, found_copies.near, mirrored),
    ]


def check_splits(
    found_copies: Copies, paths: Sequence[str], splits: Mapping[str, set[str]], listed: set[str]
) -> list[Finding]:
    """Findings about pictures that stand in more than one split.

    Args:
        found_copies: from `find_copies`.
        paths: all images, also those without a copy.
        splits: the paths of each split.
        listed: the paths of the audited table; others in the splits are reported.
    """
    grouped = {path for group in found_copies.near for path in group}
    leaks = []
    for group in [*found_copies.near, *([path] for path in paths if path not in grouped)]:
        sides = {name: [path for path in group if path in members] for name, members in splits.items()}
        sides = {name: members for name, members in sides.items() if members}
        if len(sides) > 1:
            files = dict.fromkeys([members[0] for members in sides.values()] + sum(sides.values(), []))
            detail = "; ".join(f"{name}: {_listed(members)}" for name, members in sides.items())
            leaks.append(Example(tuple(files), detail))
    strangers = sorted(set().union(*splits.values()) - listed)
    outside = [path for path in paths if path in listed and not any(path in members for members in splits.values())]
    return [
        *found("same picture in two splits", "error", "groups", _LEAK, leaks),
        *found("split image not in the table", "warning", "images", _STRANGER, [Example((p,)) for p in strangers]),
        *found("image in no split", "note", "images", _NO_SPLIT, [Example((path,)) for path in outside]),
    ]


_EXACT = "The same bytes under several names: {} files, of which {} are one too many. Keep one of each."
_NEAR = (
    "The same picture scaled, compressed, cropped a little, mirrored, or nearly so: {} files (exact copies included), "
    "of which {} are one too many. Keep each group on one side of a split, or a test measures what was learnt by heart."
)
_QUARREL = "The same file with other annotations: at least one is wrong. Compare, and delete a file or mend its labels."
_QUARREL_NEAR = "Nearly the same picture with other annotations: look whether a face was forgotten or mistaken."
_LEAK = (
    "The network is judged on pictures that it has learnt by heart: figures of such a test are too good. Split again "
    "so that groups of copies stay together."
)
_STRANGER = "They are looked at here, but without their boxes. Audit the table that the splits were made from."
_NO_SPLIT = "In the table, and in none of the splits."


def _copies_finding(name: str, message: str, groups: list[list[str]], mirrored: set[str]) -> list[Finding]:
    message = message.format(sum(map(len, groups)), sum(len(group) - 1 for group in groups))
    largest = sorted(groups, key=len, reverse=True)  # stable: equals keep their order
    details = [f"{len(group)} files" + ", some mirrored" * (not mirrored.isdisjoint(group)) for group in largest]
    cases = [Example(tuple(group), detail) for group, detail in zip(largest, details, strict=True)]
    return found(name, "warning", "groups", message, cases)


def _listed(paths: list[str], most: int = MOST_EXAMPLES) -> str:
    return ", ".join(paths[:most]) + (f" and {len(paths) - most} more" if len(paths) > most else "")


def _near(looks: list[Look], near_bits: int) -> list[tuple[str, str, bool]]:
    """Pairs of near-copies, and whether the mirror image is the nearer one."""
    packed = np.frombuffer(b"".join(look.hashes for look in looks), dtype=np.uint8)
    packed = packed.reshape(len(looks), 2, copies.HASH_BITS // 8)
    hashes = copies.Hashes([look.path for look in looks], packed[:, 0], packed[:, 1], [], [])
    pairs = copies.near_pairs(hashes, near_bits, most_per_image=3)  # enough to compare the labels of copies
    one, other = packed[pairs[:, 0], 0], packed[pairs[:, 1]]
    distances = np.unpackbits(one[:, None] ^ other, axis=2).sum(axis=2)  # (P, 2): as it is, mirrored
    mirrored = distances[:, 1] < distances[:, 0]
    return [(looks[i].path, looks[j].path, bool(m)) for (i, j), m in zip(pairs.tolist(), mirrored, strict=True)]


def _groups(paths: list[str], pairs: list[tuple[str, str, bool]]) -> list[list[str]]:
    position = {path: number for number, path in enumerate(paths)}
    numbers = copies.groups(len(paths), [(position[one], position[other]) for one, other, _ in pairs])
    members = defaultdict(list)
    for path, number in zip(paths, numbers.tolist(), strict=True):
        members[number].append(path)
    return [group for group in members.values() if len(group) > 1]


def _quarrels(
    found_copies: Copies, table: pd.DataFrame, looks: Mapping[str, Look]
) -> tuple[list[Example], list[Example]]:
    """Pairs of copies whose annotations disagree: exact ones, near ones."""
    nothing = np.zeros((0, 4))
    known = {path: ImageBoxes(path, nothing, []) for path in image_paths(table)}
    known |= {image.path: image for image in by_image(table)}
    exact, near = [], []
    for one, other, mirrored in found_copies.pairs:
        if one in known and other in known:
            same_bytes = looks[one].sha256 == looks[other].sha256
            boxes_of_two = [_unit_boxes(known[path], looks[path]) for path in (one, other)]
            if mirrored:
                boxes_of_two[1] = boxes_of_two[1][:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [1, 0, 1, 0]
            detail = _difference(known[one], known[other], *boxes_of_two, strict=same_bytes)
            if detail:
                (exact if same_bytes else near).append(Example((one, other), detail))
    return exact, near


def _unit_boxes(image: ImageBoxes, look: Look) -> np.ndarray:
    """Boxes in shares of the image's width and height, so that copies of other sizes can be compared."""
    return image.boxes_xyxy / np.tile(look.upright_wh or (1, 1), 2)


def _difference(
    one: ImageBoxes, other: ImageBoxes, one_boxes: np.ndarray, other_boxes: np.ndarray, strict: bool
) -> str:
    """How the annotations of two copies differ, in words; places count only if ``strict``: near ones may be cropped."""
    counts = [Counter(image.class_names) for image in (one, other)]
    if counts[0] != counts[1]:
        return f"{_counted(counts[0])} against {_counted(counts[1])}"
    overlaps = boxes.overlaps(one_boxes, other_boxes)
    for name, row in zip(one.class_names, overlaps, strict=True):
        same_class = [overlap for overlap, known in zip(row, other.class_names, strict=True) if known == name]
        if max(same_class) < SAME_PLACE <= row.max():
            return f"one face is {name} here and {other.class_names[int(row.argmax())]} there"
        if strict and row.max() < SAME_PLACE:
            return f"a {name} of one lies elsewhere on the other"
    return ""


def _counted(names: Counter) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(names.items())) or "nothing"
