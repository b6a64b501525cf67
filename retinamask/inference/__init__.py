"""Inference: from a snapshot and images to the table of detections."""
