"""Annotation file formats, each to and from the one table of `retinamask.dataset.annotations`."""

from retinamask.dataset.formats.voc import Problem, read_voc, summary, write_voc

__all__ = ["Problem", "read_voc", "summary", "write_voc"]
