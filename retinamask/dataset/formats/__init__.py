"""Annotation file formats, each to and from the one table of `retinamask.dataset.annotations`."""

from retinamask.dataset.formats.class_names import class_ids
from retinamask.dataset.formats.reading import Problem, summary
from retinamask.dataset.formats.voc import read_voc
from retinamask.dataset.formats.voc_xml import write_voc

__all__ = ["Problem", "class_ids", "read_voc", "summary", "write_voc"]
