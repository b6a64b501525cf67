"""What a run is worth: COCO figures, pictures to judge by eye, and one page that shows both.

All modules but `in_training` import only `retinamask.dataset`: TensorFlow is not needed to evaluate a table
of detections or to look at it.
"""
