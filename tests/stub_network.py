"""A stub of a network, for tests of files: its weights are a text."""

import h5py


class Network:
    """Saves its text as an ``.h5``."""

    def __init__(self, text: str):
        self.text = text

    def save(self, path, include_optimizer) -> None:
        with h5py.File(path, "w") as file:
            file["text"] = self.text


def held(path) -> str:
    """The text in a weights file."""
    with h5py.File(path) as file:
        return file["text"][()].decode()
