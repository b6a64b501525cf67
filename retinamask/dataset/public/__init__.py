"""Public data sets and published face detectors: where they are, and how they come here whole and verified."""
