"""A detector is two places: a class of ten lines and its entry in the table; its options follow, and it trains."""

from dataclasses import dataclass

import pytest

import retinamask as rm
from retinamask import detectors
from retinamask.cli import main
from retinamask.detectors.retinanet import RetinaNet, RetinaNetSettings
from retinamask.setting import setting


@dataclass(frozen=True)
class DimRetinaNetSettings(RetinaNetSettings):
    backbone: str = setting("mobilenet128_0.25", "any that keras-retinanet has")
    dimming: float = setting(1.0, "share of the light that reaches the network", 0.1, 1)


class DimRetinaNet(RetinaNet):
    name = "dim_retinanet"
    Settings = DimRetinaNetSettings

    def network_input(self, images_rgb, sizes_wh):
        return super().network_input(images_rgb, sizes_wh) * self.settings.dimming


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(detectors.DETECTORS, DimRetinaNet.name, DimRetinaNet)


def test_its_option_is_listed_with_its_help(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "dim_retinanet: share of the light that reaches the network [1.0]" in shown
    assert "dim_retinanet: imagenet, coco, or an .h5 file" in shown


def test_it_trains_and_its_snapshot_detects(tiny, tmp_path, capsys):
    table = [str(tiny / "annotations.csv"), str(tiny / "classes.csv"), "--out", str(tmp_path / "dim")]
    options = ["--detector", "dim_retinanet", "--dimming", "0.5", "--image-size", "64", "--epochs", "1", "--steps", "2"]
    assert main(["train", *table, *options, "--batch-size", "2"]) == 0
    model = rm.load(tmp_path / "dim_last.h5")
    assert model.snapshot.record["settings"]["dimming"] == 0.5
    assert "dim_retinanet mobilenet128_0.25" in str(model.snapshot)
    model.detect(tiny / "scenes" / "images" / "scene_0000.jpg")
    assert main(["train", *table, *options, "--dimming", "2", "--out", str(tmp_path / "new")]) == 2
    assert "dimming is 2.0, expected 0.1 to 1" in capsys.readouterr().err
