"""YOLOv4-tiny as Darknet describes it: ``.cfg`` and ``.weights`` files, network and decoding."""
