"""Runs of the notebooks: their parameters checked, a folder and a record for each run."""
