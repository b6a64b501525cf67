"""Checks on copies: the same picture twice, with other labels, or in two splits.

`retinamask.dataset.copies` says what a copy is. Files with the same bytes are compared once, so that many copies of
one file stay cheap.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from retinamask.dataset import boxes, copies
from retinamask.dataset.annotations import image_paths
from retinamask.dataset.audit.checks import MOST_EXAMPLES, Case, Example, ImageBoxes, by_image
from retinamask.dataset.audit.source import Look, Source

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


def find_copies(looks: dict[str, Look], near_bits: int = copies.NEAR_BITS) -> Copies:
    """Find copies among images; a file that is there but is no readable image may be an exact copy too.

    Images show the same if their hashes, or one and the other's mirrored, differ by at most ``near_bits``.
    """
    by_bytes = defaultdict(list)
    for look in looks.values():
        if look.sha256:
            by_bytes[look.sha256].append(look.path)
    exact = [paths for paths in by_bytes.values() if len(paths) > 1]
    pairs = [(one, other, False) for paths in exact for one, other in pairwise(paths)]
    first = [looks[paths[0]] for paths in by_bytes.values() if looks[paths[0]].hashes]
    packed = np.frombuffer(b"".join(look.hashes for look in first), dtype=np.uint8)
    packed = packed.reshape(len(first), 2, copies.HASH_BITS // 8)
    hashes = copies.Hashes([look.path for look in first], packed[:, 0], packed[:, 1], [], [])
    near = copies.near_pairs(hashes, near_bits, most_per_image=3)  # enough to compare the labels of copies
    one, other = packed[near[:, 0], 0], packed[near[:, 1]]
    distances = np.unpackbits(one[:, None] ^ other, axis=2).sum(axis=2)  # (P, 2): as it is, mirrored
    mirrored = (distances[:, 1] < distances[:, 0]).tolist()
    pairs += [(first[i].path, first[j].path, turned) for (i, j), turned in zip(near.tolist(), mirrored, strict=True)]

    position = {path: number for number, path in enumerate(looks)}
    numbers = copies.groups(len(looks), [(position[one], position[other]) for one, other, _ in pairs])
    members = defaultdict(list)
    for path, number in zip(looks, numbers.tolist(), strict=True):
        members[number].append(path)
    return Copies(exact, [group for group in members.values() if len(group) > 1], pairs)


def check_splits(source: Source, looks: dict[str, Look], same: Copies) -> Iterator[Case]:
    """Find pictures in more than one split, in none, and those that the table lacks."""
    grouped, listed = {path for group in same.near for path in group}, set(image_paths(source.table))
    for group in [*same.near, *([path] for path in looks if path not in grouped)]:
        sides = {name: [path for path in group if path in members] for name, members in source.splits.items()}
        sides = {name: members for name, members in sides.items() if members}
        if len(sides) > 1:
            files = dict.fromkeys([members[0] for members in sides.values()] + sum(sides.values(), []))
            detail = "; ".join(f"{name}: {_listed(members)}" for name, members in sides.items())
            yield "same picture in two splits", Example(tuple(files), detail)
    in_splits = set().union(*source.splits.values())
    yield from (("split image not in the table", Example((path,))) for path in sorted(in_splits - listed))
    outside = [path for path in looks if path in listed - in_splits and source.splits]
    yield from (("image in no split", Example((path,))) for path in outside)


def _listed(paths: list[str]) -> str:
    more = len(paths) - MOST_EXAMPLES
    return ", ".join(paths[:MOST_EXAMPLES]) + (f" and {more} more" if more > 0 else "")


def check_copies(source: Source, looks: dict[str, Look], same: Copies) -> Iterator[Case]:
    """Find copies, and those whose annotations disagree."""
    known = {path: ImageBoxes(path, np.zeros((0, 4)), []) for path in image_paths(source.table)}
    known |= {image.path: image for image in by_image(source.table)}
    for one, other, mirrored in same.pairs:
        if one in known and other in known:
            same_bytes = looks[one].sha256 == looks[other].sha256
            # in shares of the image's width and height, so that copies of other sizes can be compared
            units = [known[path].boxes_xyxy / np.tile(looks[path].upright_wh or (1, 1), 2) for path in (one, other)]
            if mirrored:
                units[1] = units[1][:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [1, 0, 1, 0]
            names = known[one].class_names, known[other].class_names
            if detail := _difference(*names, boxes.overlaps(*units), strict=same_bytes):
                kind = "exact copies labelled differently" if same_bytes else "near-copies labelled differently"
                yield kind, Example((one, other), detail)
    turned = {path for *pair, mirrored in same.pairs if mirrored for path in pair}
    for name, groups in (("exact file copies", same.exact), ("near-duplicate images", same.near)):
        for group in sorted(groups, key=len, reverse=True):  # stable: equals keep their order
            mirrored = name == "near-duplicate images" and not turned.isdisjoint(group)
            yield name, Example(tuple(group), f"{len(group)} files" + ", some mirrored" * mirrored)


def _difference(names: list[str], other_names: list[str], overlaps: np.ndarray, strict: bool) -> str:
    """How the annotations of two copies differ, in words; places count only if ``strict``: near ones may be cropped."""
    counts = [Counter(names), Counter(other_names)]
    if counts[0] != counts[1]:
        shown = [", ".join(f"{count} {name}" for name, count in sorted(each.items())) or "nothing" for each in counts]
        return " against ".join(shown)
    for name, row in zip(names, overlaps, strict=True):
        same_class = [overlap for overlap, known in zip(row, other_names, strict=True) if known == name]
        if max(same_class) < SAME_PLACE <= row.max():
            return f"one face is {name} here and {other_names[int(row.argmax())]} there"
        if strict and row.max() < SAME_PLACE:
            return f"a {name} of one lies elsewhere on the other"
    return ""
