"""Deal groups of images to the sides of a split: near the shares, with the classes balanced, the same anywhere.

A side is "train", "val" or "test", or one of several folds.
"""

import hashlib
from collections.abc import Sequence

import numpy as np


def deal(
    amounts: np.ndarray, keys: Sequence[str], shares: dict[str, float], seed: int, fixed: Sequence[str | None]
) -> list[str]:
    """Give each group a side.

    Groups are taken in order of their size, the largest first, where size is the largest part that the group has of
    any column's total, so that those with a rare class come before the sides are full. A group goes to the side that
    its key and the seed draw, with the sides' shares as chances; if that side has no room left in one of the columns,
    to the side that it brings nearest to its share. So one more group changes the sides of few others.

    Args:
        amounts: ``(G, Q)``, not negative: how much of each of ``Q`` things a group has; the first column is its
            images, others are boxes by class.
        keys: a text for each group that names it on any machine; the order of groups does not matter.
        shares: of each side, adding up to 1.
        seed: another one deals otherwise.
        fixed: for each group the side that it keeps, or ``None``.

    Returns:
        The side of each group. No side is left without a box where that can be helped.
    """
    sides = list(shares)
    parts, totals = np.array(list(shares.values())), amounts.sum(axis=0)
    targets = np.outer(parts, totals).astype(float)  # (sides, Q): what each side should hold
    targets[:, 0] = whole_counts(int(totals[0]), parts)
    found = [None if side is None else sides.index(side) for side in fixed]
    filled = np.zeros_like(targets)
    for group, side in enumerate(found):
        if side is not None:
            filled[side] += amounts[group]
    draws = []  # two numbers from 0 to 1 that look random: for the order of equal groups, and for the side
    for key in keys:
        digest = hashlib.sha256(f"{seed}:{key}".encode()).digest()
        draws.append(tuple(int.from_bytes(part) / 2**56 for part in (digest[:7], digest[7:14])))
    sizes = (amounts / np.maximum(totals, 1)).max(axis=1, initial=0).round(9).tolist()
    for group in sorted(range(len(keys)), key=lambda group: (-sizes[group], draws[group])):
        if found[group] is None:
            amount, has = amounts[group], amounts[group] > 0
            side = min(int(np.searchsorted(np.cumsum(parts), draws[group][1], side="right")), len(sides) - 1)
            if not (filled[side, has] + amount[has] <= np.ceil(targets[side, has] - 1e-9)).all():  # no room there
                costs = _costs(amount[None], filled, targets)[0].tolist()
                side = costs.index(min(costs))
            found[group] = side
            filled[side] += amount
    _move_to_balance(found, amounts, filled, targets, fixed, draws)
    _leave_no_side_without_boxes(found, amounts[:, 1:].sum(axis=1), fixed, len(sides), sizes, draws)
    return [sides[side] for side in found]


def whole_counts(count: int, shares: np.ndarray) -> np.ndarray:
    """Divide ``count`` images by share, largest remainders first, at least one for each side if there are enough."""
    exact = count * shares
    counts = np.floor(exact + 1e-9)
    for side in np.argsort(counts - exact, kind="stable")[: round(count - counts.sum())]:
        counts[side] += 1
    while (counts == 0).any() and counts.max() > 1:
        counts[np.argmin(counts)] += 1
        counts[np.argmax(counts)] -= 1
    return counts


def _costs(amounts: np.ndarray, filled: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return how much each group would add to the sum of (filled - target)^2 / target at each side, ``(G, sides)``.

    Images weigh as much as all classes together.
    """
    costs = np.zeros((len(amounts), len(targets)))
    for column in range(amounts.shape[1]):  # added one by one, in the same order on any machine
        weight = 1 if column else max(1, amounts.shape[1] - 1)
        amount, scale = amounts[:, [column]], np.maximum(targets[:, column], 1e-9)
        costs += weight * amount * (amount + 2 * (filled - targets)[:, column]) / scale
    return costs.round(9)


def _move_to_balance(
    found: list[int],
    amounts: np.ndarray,
    filled: np.ndarray,
    targets: np.ndarray,
    fixed: Sequence[str | None],
    draws: list[tuple[float, float]],
) -> None:
    """Move single groups, the one that helps most first, as long as that brings the sides nearer to their targets."""
    order = sorted((group for group in range(len(found)) if fixed[group] is None), key=draws.__getitem__)
    held = amounts[order]
    at = np.array([found[group] for group in order], dtype=np.int64)
    for _ in range(len(order)):
        leaving = np.take_along_axis(-_costs(-held, filled, targets), at[:, None], axis=1)  # what staying costs
        gain = leaving - _costs(held, filled, targets)
        gain[np.arange(len(at)), at] = 0
        if gain.max(initial=0) <= 1e-6:
            break
        best, side = np.unravel_index(np.argmax(gain), gain.shape)
        filled[at[best]] -= held[best]
        filled[side] += held[best]
        at[best] = side
        found[order[best]] = int(side)


def _leave_no_side_without_boxes(
    found: list[int], boxes: np.ndarray, fixed: Sequence[str | None], sides: int, sizes: list[float], draws: list
) -> None:
    """Move the smallest free group with boxes to a side that has none, from the side that has most such groups."""
    for side in range(sides):
        with_boxes = [group for group in range(len(found)) if boxes[group] > 0]
        held = [sum(found[group] == other for group in with_boxes) for other in range(sides)]
        free = [group for group in with_boxes if fixed[group] is None and held[found[group]] > 1]
        if held[side] == 0 and free:
            smallest = min(free, key=lambda group: (-held[found[group]], sizes[group], draws[group]))
            found[smallest] = side
