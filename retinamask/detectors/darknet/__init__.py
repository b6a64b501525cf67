"""Darknet: its cfg, weights and data files, and the network, loss and boxes of YOLOv4-tiny."""
