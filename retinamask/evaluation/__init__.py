"""What a run is worth: COCO figures, pictures to judge by eye, and one page that shows both.

`in_training` judges a network after each epoch; `watchers` show how its training goes, each a
watcher as `watchers` describes. The other modules import only `retinamask.dataset`: TensorFlow is not needed to
evaluate a table of detections or to look at it.
"""
