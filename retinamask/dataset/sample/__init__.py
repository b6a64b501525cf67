"""The drawn sample data set: people with and without masks, and the labelImg files that go with them."""

from retinamask.dataset.sample.scenes import CLASSES, draw_sample, draw_scene

__all__ = ["CLASSES", "draw_sample", "draw_scene"]
