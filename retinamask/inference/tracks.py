"""Follow faces through a video, so that everybody counts once."""

from collections import Counter

import numpy as np

from retinamask.inference.detect import Detections

WEAKEST = 0.1  # score from which a box may continue a person who was found before, as in ByteTrack
LOST_SECONDS = 1.0  # how long somebody may be out of sight and still be known
_STEPS = (0.001, LOST_SECONDS / 3)  # seconds by which the tracker's clock may go forward from frame to frame
_RATES = (3, 60)  # frames per second between which that of a file is believed
_LEFT = 0.25  # side of what is left of a face at the picture's edge, in its other side: whoever comes there is new
_BUFFER = 0.15  # of a box's sides, by which it counts as larger on each side: in slow videos faces leap


class Tracker:
    """Numbers the people in successive frames, with ByteTrack (Zhang et al. 2022, arXiv:2110.06864).

    Boxes are matched with where each person is expected from the motion so far, first those from ``score_threshold``
    on, then the weaker ones, which continue people and start none. Two frames in a row make a person; who comes back
    after more than `LOST_SECONDS` and at least three frames is a new one. Faces are not compared: of two who meet and
    turn round out of sight, each may go on as the other.

    Attributes:
        class_of: label of each person, by number: that with the highest sum of scores from ``score_threshold`` on.
    """

    def __init__(self, score_threshold: float, rate: float):
        """``rate`` is the usual one of the video, in frames per second; their times may be uneven."""
        from trackers import BIoU, ByteTrackTracker  # loads for a second and a half

        self.score_threshold, self.class_of, self._sums = score_threshold, {}, {}
        self._clock = self._seconds = 0.0
        self._tracker = ByteTrackTracker(
            lost_track_buffer=round(30 * LOST_SECONDS),
            frame_rate=float(np.clip(rate, *_RATES)),
            track_activation_threshold=score_threshold,
            high_conf_det_threshold=score_threshold,
            iou=BIoU(_BUFFER),
        )

    def __call__(self, detections: Detections, seconds: float, size_wh: tuple[int, int]) -> np.ndarray:
        """Return the number of the person in each box, ``int (N,)`` from 1, and 0 where none is known.

        Args:
            detections: in the next frame, from the score `WEAKEST` on.
            seconds: when it is shown, no sooner than the frame before.
            size_wh: of the frame; who is expected outside of it has left.
        """
        import supervision

        # Without limits a webcam or GIF of one frame in two seconds would lose everybody in every frame.
        self._clock += float(np.clip(seconds - self._seconds, *_STEPS))
        self._seconds = seconds
        which = {"box": np.arange(len(detections.scores))}
        given = supervision.Detections(detections.boxes_xyxy, confidence=detections.scores, data=which)
        found = self._tracker.update(given, timestamp=self._clock)
        self._tracker.tracks = [
            one for one in self._tracker.tracks if not one.time_since_update or _inside(one, size_wh)
        ]
        numbers = np.zeros(len(given), int)
        if len(found):
            numbers[found.data["box"]] = found.tracker_id + 1
        for number, score, label in zip(numbers.tolist(), *map(np.ndarray.tolist, detections[1:3]), strict=True):
            if number and score >= self.score_threshold:
                sums = self._sums.setdefault(number, Counter())
                sums[label] += score
                self.class_of[number] = max(sums, key=sums.get)
        return numbers

    @property
    def expected_xyxy(self) -> np.ndarray:
        """Where everybody is in the last frame, ``(N, 4)``, also who is out of sight for the moment."""
        return self._tracker.tracked_objects.xyxy


def _inside(one, size_wh: tuple[int, int]) -> bool:
    """Whether enough of somebody's face is expected inside the frame."""
    left_top, right_bottom = np.clip(one.get_state_bbox().reshape(2, 2), 0, size_wh)
    sides = right_bottom - left_top
    return sides.min() > _LEFT * sides.max()
