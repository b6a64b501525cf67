"""Precision: which one is chosen on which machine, and a network that is built and run in bfloat16."""

import logging
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from retinamask import detectors
from retinamask.detectors import _keras
from retinamask.detectors.faster_precision import memory
from retinamask.training import precision
from retinamask.training.settings import TrainingError, TrainingSettings

NONE, VOLTA, TURING, AMPERE, PASCAL = [], [(7, 0)], [(7, 5)], [(8, 0)], [(6, 1)]
OLD_PROCESSOR = "flags : fpu sse avx2 avx512f avx512_vnni\n"


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Makes this a machine with these GPUs and this processor."""

    def be(gpus=NONE, flags=OLD_PROCESSOR):
        (tmp_path / "cpuinfo").write_text(f"processor : 0\n{flags}")
        monkeypatch.setattr(precision, "PROCESSOR", tmp_path / "cpuinfo")
        monkeypatch.setattr(precision, "gpu_capabilities", lambda: gpus)

    return be


@pytest.mark.parametrize(
    "gpus, expected",
    [
        (PASCAL, "float32"),
        (VOLTA, "float16"),
        (TURING, "float16"),
        (AMPERE, "bfloat16"),
        ([(10, 0), (9, 0)], "bfloat16"),
        (AMPERE + TURING, "float16"),
        (AMPERE + PASCAL, "float32"),
    ],
)
def test_auto_on_gpus_goes_by_the_weakest(machine, gpus, expected):
    machine(gpus)
    assert precision.choose("auto") == expected


def test_auto_on_a_processor_without_the_instructions_is_float32(machine):
    machine()
    assert precision.choose("auto") == "float32"
    machine(flags="")
    precision.PROCESSOR.unlink()  # not Linux
    assert precision.choose("auto") == "float32"


@pytest.fixture
def short(monkeypatch, tmp_path):
    """A function that chooses for a run of so many updates on a processor with bfloat16, of made-up timings."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    detector = SimpleNamespace(name="any", classes={"a": 0}, record=lambda: {"image_size": 500})
    examples = SimpleNamespace(canvas_wh=(500, 500), detector=detector)

    def chosen(seconds=None, steps=1000, **settings):
        """``seconds``: what steps in float32 and bfloat16 take, in turn; None if nothing may be measured."""
        given = {name: iter([9.0, *each]) for name, each in zip(("float32", "bfloat16"), seconds or (), strict=False)}
        steppers = {name: lambda name=name: next(given[name]) for name in given}

        def timers(*_):
            return steppers or pytest.fail("measured")

        return precision.precision_to_use(
            examples, TrainingSettings(**settings), steps, SimpleNamespace(cluster_resolver=None), timers
        )

    return chosen


@pytest.mark.skipif(sys.platform != "linux", reason="the cache folder is elsewhere")
@pytest.mark.parametrize("flag", ["avx512_bf16", "amx_bf16"])
@pytest.mark.parametrize("low, expected", [(1.0, "float32"), (0.87, "float32"), (0.84, "bfloat16"), (1.4, "float32")])
def test_auto_on_a_processor_decides_with_a_margin_and_remembers(machine, short, capsys, flag, low, expected):
    machine(flags=f"flags : avx512f {flag} la57\nmodel name : Some CPU @ 2 GHz\n")
    full, noisy = [1.0, 1.0, 1.0, 5.0, 0.2], [low, low, 9.0, low, low]  # one step of each met a busy machine
    assert short((full, noisy)) == expected
    said = capsys.readouterr().out
    assert f"precision: {expected}; a step takes 1 s in float32 and {low:.3g} s in bfloat16" in said
    assert short() == expected  # nothing is measured again
    assert f"precision: {expected}, as measured before: a step takes 1 s" in capsys.readouterr().out
    for other in ({"batch_size": 8}, {"accumulate": 2}):
        assert short(([1.0] * 5, [0.5] * 5), **other) == "bfloat16"
    machine(flags=f"flags : avx512f {flag} la57\nmodel name : Another CPU\n")
    assert short(([1.0] * 5, [0.5] * 5)) == "bfloat16"


@pytest.mark.skipif(sys.platform != "linux", reason="the cache folder is elsewhere")
def test_a_memory_that_is_damaged_or_cannot_be_written_is_measured_again(machine, short, capsys):
    machine(flags="flags : amx_bf16\n")
    memory().parent.mkdir(parents=True)
    memory().write_text("{")
    assert short(([1.0] * 5, [0.5] * 5)) == "bfloat16" and short() == "bfloat16"
    memory().unlink()
    memory().parent.rmdir()
    memory().parent.write_text("a file in the place of the folder")
    assert short(([1.0] * 5, [0.5] * 5)) == "bfloat16"
    assert "cannot be remembered" in capsys.readouterr().out


def test_nothing_is_measured_for_a_short_run_or_where_the_precision_is_given(machine, short, capsys):
    machine(flags="flags : amx_bf16\n")
    assert short(steps=149) == "float32"  # 149 updates of 4 images of 500 x 500
    assert "too short for a measurement" in capsys.readouterr().out
    assert short(precision="bfloat16") == "bfloat16"


@pytest.mark.parametrize("gpus, warned", [(NONE, True), (TURING, True), (AMPERE, False)])
def test_bfloat16_is_given_when_asked_for_and_said_to_be_slow(machine, caplog, gpus, warned):
    machine(gpus)
    with caplog.at_level(logging.WARNING):
        assert precision.choose("bfloat16") == "bfloat16"
    assert ("emulated and slow" in caplog.text) == warned


def test_float16_needs_a_gpu(machine):
    machine()
    with pytest.raises(TrainingError, match="take bfloat16 or float32"):
        precision.choose("float16")
    machine(PASCAL)
    assert precision.choose("float16") == "float16"


def test_policies(machine):
    machine()
    assert {precision.policy(name) for name in ("float32", "bfloat16", "float16")} == {"float32"}
    machine(AMPERE)
    named = [precision.policy(name) for name in ("float32", "bfloat16", "float16")]
    assert named == ["float32", "mixed_bfloat16", "mixed_float16"]


def test_the_policy_is_put_back_even_after_an_error(machine):
    machine(AMPERE)
    policy = _keras.prepare().mixed_precision.global_policy
    before = policy()
    with pytest.raises(RuntimeError), precision.building("bfloat16"):
        assert policy().name == "mixed_bfloat16"
        raise RuntimeError
    assert policy().name == before.name == "float32"


def options():
    import tensorflow as tf

    return tf.config.optimizer.get_experimental_options().get(precision.ONEDNN_OPTION, False)


def test_the_option_of_onednn_is_put_back_even_after_an_error(machine):
    machine()
    before = options()
    for name, wanted in [("bfloat16", True), ("float32", False)]:
        with pytest.raises(RuntimeError), precision.computing(name):
            assert options() is wanted
            raise RuntimeError
        assert options() is before
    with precision.computing("bfloat16"):
        with precision.computing("float32"):
            assert options() is False
        assert options() is True
    machine(AMPERE)
    with precision.computing("bfloat16"):
        assert options() is False


@pytest.fixture(scope="module")
def twins():
    """A network in mixed bfloat16 with random weights that are not trivial, and the same in float32."""
    detector = detectors.create("retinanet", {"a": 0, "b": 1}, backbone="mobilenet128_0.25", image_size=64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(precision, "gpu_capabilities", lambda: AMPERE)
        with precision.building("bfloat16"):
            mixed = detector.network(seed=1)
    generator = np.random.default_rng(2)
    for variable in mixed.variables:  # He et al.'s deviation, so that something of the image reaches the outputs
        if "kernel" in variable.name:
            inputs = 9 if "depthwise" in variable.name else np.prod(variable.shape[:-1])
            variable.assign(generator.normal(0, np.sqrt(2 / inputs), variable.shape))
    twin = detector.network(seed=9)
    twin.set_weights(mixed.get_weights())
    return mixed, twin


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).uniform(-1, 1, (2, 64, 64, 3)).astype(np.float32)


def test_a_network_in_bfloat16_has_float32_variables_and_the_outputs_of_its_twin(twins, image):
    import tensorflow as tf

    mixed, twin = twins
    assert {weight.dtype for weight in mixed.get_weights()} == {np.dtype("float32")}
    for low, full in zip(mixed(image), twin(image), strict=True):
        assert (low.dtype, full.dtype) == (tf.bfloat16, tf.float32)
        error = np.abs(tf.cast(low, tf.float32) - full)
        assert np.ptp(full) > 0.05  # else anything would be close
        assert error.max() < 3e-2 * np.abs(full).max()  # 28 layers, each rounding to 1/256


def test_the_losses_of_bfloat16_outputs_cast_to_float32_are_finite_and_have_gradients(twins, image):
    import tensorflow as tf
    from keras_retinanet import losses as theirs
    from keras_retinanet.utils.anchors import anchor_targets_bbox, anchors_for_shape

    mixed, twin = twins
    objects = {"bboxes": np.array([[8.0, 8, 40, 44]]), "labels": np.array([1])}
    nothing = {"bboxes": np.zeros((0, 4)), "labels": np.zeros(0)}
    targets = anchor_targets_bbox(anchors_for_shape((64, 64, 3)), list(image), [objects, nothing], 2)

    def losses(network):
        with tf.GradientTape() as tape:
            outputs = [tf.cast(output, tf.float32) for output in network(image)]
            pairs = zip((theirs.smooth_l1(), theirs.focal()), targets, outputs, strict=True)
            values = [loss(target, output) for loss, target, output in pairs]
            total = tf.add_n(values)
        return values, tape.gradient(total, network.trainable_variables)

    (low, low_gradients), (full, _) = losses(mixed), losses(twin)
    assert np.isfinite(low).all()
    np.testing.assert_allclose(low, full, rtol=2e-2)
    for gradient in low_gradients:
        assert gradient.dtype == tf.float32 and np.isfinite(gradient).all()


@pytest.mark.skipif("avx512f" not in precision.PROCESSOR.read_text(), reason="oneDNN converts from AVX512 on")
def test_within_the_block_graphs_compute_convolutions_in_bfloat16(machine):
    """Bfloat16 keeps 8 bits of a number: 1 + 1/512 becomes 1, and 36 of them 36."""
    import tensorflow as tf

    machine()
    image, kernel = tf.fill((1, 8, 8, 4), 1 + 1 / 512), tf.fill((3, 3, 4, 4), 1.0)
    found = {}
    for name in ("float32", "bfloat16"):
        with precision.computing(name):
            convolve = tf.function(lambda x: tf.nn.conv2d(x, kernel, 1, "VALID"))
            found[name] = float(convolve(image)[0, 0, 0, 0])
    assert found == {"float32": 36 + 36 / 512, "bfloat16": 36.0}
