"""Evaluation: COCO figures, figures of classifiers, plots, pages, and what watches a training."""
