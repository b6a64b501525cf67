"""The optimizer: updates against NumPy and Keras, clipping, loss scaling, kept state, strategies."""

import subprocess
import sys

import numpy as np
import pytest

from retinamask.detectors import _keras
from retinamask.training.learner import Optimizer, decays
from retinamask.training.settings import OPTIMIZERS, TrainingSettings

keras = _keras.prepare()
import tensorflow as tf  # noqa: E402

RATES = (0.1, 0.05, 0.05, 0.2)
SHAPES = {"conv/kernel": (3, 2), "conv/bias": (2,), "conv_bn/gamma": (2,), "conv_bn/beta": (2,)}


def settings(name: str = "adam", **options) -> TrainingSettings:
    return TrainingSettings(optimizer=name, gradient_clip=options.pop("gradient_clip", 0), **options)


def values(seed: int) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.normal(size=shape).astype(np.float32) for shape in SHAPES.values()]


def variables() -> list:
    return [tf.Variable(value, name=name) for name, value in zip(SHAPES, values(0), strict=True)]


def built(chosen: TrainingSettings, precision: str = "float32") -> tuple[Optimizer, list]:
    optimizer, weights = Optimizer(chosen, precision), variables()
    optimizer.build(weights)
    return optimizer, weights


def update(optimizer: Optimizer, weights: list, step: int) -> None:
    optimizer.set_rate(RATES[step % len(RATES)])
    optimizer.apply([tf.constant(value) for value in values(step + 1)], weights)


def arrays(variables) -> list[np.ndarray]:
    return [variable.numpy() for variable in variables]


def by_hand(name: str, momentum: float = 0.9, decay: float = 0.0) -> list[np.ndarray]:
    """Weights after four updates, in float64, from the papers' formulas with Keras's epsilon."""
    weights = [value.astype(float) for value in values(0)]
    first, second = ([np.zeros_like(value) for value in weights] for _ in range(2))
    for step, rate in enumerate(RATES):
        for i, gradient in enumerate(values(step + 1)):
            if name == "sgd":
                first[i] = momentum * first[i] - rate * gradient
                weights[i] = weights[i] + first[i]
                continue
            weights[i] = weights[i] * (1 - rate * decay * (i == 0))  # the kernel alone decays
            first[i] = 0.9 * first[i] + 0.1 * gradient
            second[i] = 0.999 * second[i] + 0.001 * gradient.astype(float) ** 2
            bias_corrected = rate * np.sqrt(1 - 0.999 ** (step + 1)) / (1 - 0.9 ** (step + 1))
            weights[i] = weights[i] - bias_corrected * first[i] / (np.sqrt(second[i]) + 1e-7)
    return weights


@pytest.mark.parametrize(
    "name, options, expected",
    [
        ("adam", {}, by_hand("adam")),
        ("sgd", {}, by_hand("sgd")),
        ("sgd", {"momentum": 0.0}, by_hand("sgd", momentum=0.0)),
        ("adamw", {"weight_decay": 0.3}, by_hand("adamw", decay=0.3)),
    ],
)
def test_updates_are_those_of_the_formulas(name, options, expected):
    optimizer, weights = built(settings(name, **options))
    for step in range(len(RATES)):
        update(optimizer, weights, step)
    for found, wanted in zip(arrays(weights), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-6)


def test_adamw_is_that_of_keras():
    optimizer, weights = built(settings("adamw", weight_decay=0.2))
    theirs, others = keras.optimizers.AdamW(weight_decay=0.2, jit_compile=False), variables()
    theirs.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    theirs.build(others)
    for step in range(len(RATES)):
        update(optimizer, weights, step)
        theirs.learning_rate.assign(RATES[step])
        theirs.apply_gradients(zip(values(step + 1), others, strict=True))
    for found, wanted in zip(arrays(weights), arrays(others), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=5e-6)


def test_weights_decay_and_biases_and_normalisation_do_not():
    """A gradient of zero moves nothing, so that what is left is the decay: 1 - 0.5 x 0.1 each update."""
    optimizer, weights = built(settings("adamw", weight_decay=0.5))
    before = arrays(weights)
    optimizer.set_rate(0.1)
    for _ in range(2):
        optimizer.apply([tf.zeros_like(weight) for weight in weights], weights)
    np.testing.assert_allclose(weights[0].numpy(), before[0] * 0.95**2, rtol=1e-6)
    for found, wanted in zip(arrays(weights[1:]), before[1:], strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_the_names_that_keras_retinanet_gives_tell_what_decays():
    from retinamask import detectors

    network = detectors.create("retinanet", {"a": 0}, backbone="mobilenet128_0.25", image_size=64).network()
    told = {name: decays(tf.Variable(0.0, name=name)) for name in ("bn_conv1/gamma", "P3/bias", "beta_block/kernel")}
    assert told == {"bn_conv1/gamma": False, "P3/bias": False, "beta_block/kernel": True}
    for variable in network.variables:
        if variable.trainable:  # kernels have more than one dimension; biases, gamma and beta one
            assert decays(variable) == (len(variable.shape) > 1), variable.name


@pytest.mark.parametrize("clip, share", [(6.5, 0.5), (13.0, 1.0), (20.0, 1.0), (0, 1.0)])
def test_the_norm_of_all_gradients_together_is_clipped(clip, share):
    """3, 4 and 12 together have the norm 13; one without a gradient counts nothing and stays."""
    optimizer, weights = built(settings("sgd", momentum=0.0, gradient_clip=clip))
    before = arrays(weights)
    gradients = [None, tf.constant([3.0, 0.0]), tf.constant([0.0, 4.0]), tf.constant([12.0, 0.0])]
    optimizer.set_rate(1.0)
    optimizer.apply(gradients, weights)
    moved = [was - now for was, now in zip(before, arrays(weights), strict=True)]
    np.testing.assert_array_equal(moved[0], 0)
    for found, gradient in zip(moved[1:], gradients[1:], strict=True):
        np.testing.assert_allclose(found, gradient.numpy() * share, atol=2e-6)


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_restored_state_goes_on_bit_for_bit(name, precision):
    chosen = settings(name, gradient_clip=1.0)
    optimizer, weights = built(chosen, precision)

    def step(optimizer, weights, number):
        optimizer.set_rate(RATES[number % len(RATES)])
        gradients = [tf.constant(value) * optimizer.scaled(tf.constant(1.0)) for value in values(number + 1)]
        if number == 2:
            gradients[1] = tf.constant([np.inf, 0.0]) if precision == "float16" else gradients[1]
        optimizer.apply(optimizer.unscaled(gradients), weights)

    for number in range(3):
        step(optimizer, weights, number)
    kept, kept_weights = arrays(optimizer.variables), arrays(weights)
    other, others = built(chosen, precision)
    assert [v.shape for v in other.variables] == [v.shape for v in kept]
    for variable, value in zip([*other.variables, *others], [*kept, *kept_weights], strict=True):
        variable.assign(value)
    for number in range(3, 6):
        step(optimizer, weights, number)
        step(other, others, number)
    for found, wanted in zip(
        arrays([*others, *other.variables]), arrays([*weights, *optimizer.variables]), strict=True
    ):
        np.testing.assert_array_equal(found, wanted)
    assert kept[0] == 3 and optimizer.variables[0].numpy() == 6  # updates, also a left out one


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_part_of_the_built_variables_may_be_trained_first(name):
    optimizer, weights = built(settings(name))
    before = arrays(weights)
    count = len(optimizer.variables)
    optimizer.set_rate(0.1)
    optimizer.apply([tf.constant(value) for value in values(1)][2:], weights[2:])
    for found, wanted in zip(arrays(weights)[:2], before[:2], strict=True):
        np.testing.assert_array_equal(found, wanted)
    update(optimizer, weights, 1)
    assert all((now != was).any() for now, was in zip(arrays(weights), before, strict=True))
    assert len(optimizer.variables) == count == len(optimizer._inner.variables())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_losses_and_gradients_are_scaled_in_float16_alone(precision):
    optimizer, _ = built(settings(), precision)
    assert float(optimizer.scaled(tf.constant(2.5))) == 2.5
    assert [g if g is None else float(g) for g in optimizer.unscaled([tf.constant(3.0), None])] == [3.0, None]
    optimizer, _ = built(settings(), "float16")
    assert float(optimizer.scaled(tf.constant(2.5))) == 2.5 * 2**15
    assert float(optimizer.unscaled([tf.constant(3.0 * 2**15)])[0]) == 3.0


@pytest.mark.parametrize("bad", [np.inf, np.nan])
@pytest.mark.parametrize("clip", [0, 1.0])
def test_an_overflow_leaves_the_update_out_and_halves_the_scale(bad, clip):
    optimizer, weights = built(settings("adamw", gradient_clip=clip), "float16")
    before = arrays([*weights, *optimizer.variables[1:-2]])
    assert float(optimizer.scaled(tf.constant(1.0))) == 2**15  # as the training step does, before each update
    gradients = [tf.constant(value) for value in values(1)]
    gradients[2] = tf.constant([1.0, bad])
    optimizer.apply(optimizer.unscaled(gradients), weights)
    for found, wanted in zip(arrays([*weights, *optimizer.variables[1:-2]]), before, strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert arrays(optimizer.variables[-2:]) == [2**14, 0]
    update(optimizer, weights, 2)
    assert arrays(optimizer.variables[-2:]) == [2**14, 1]
    assert (weights[0].numpy() != before[0]).any()


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("strategy", [tf.distribute.OneDeviceStrategy, tf.distribute.MirroredStrategy])
def test_a_strategy_changes_no_update(name, precision, strategy):
    alone, expected = built(settings(name, gradient_clip=1.0), precision)
    made = strategy("CPU:0" if strategy is tf.distribute.OneDeviceStrategy else ["CPU:0"])
    with made.scope():
        optimizer, weights = built(settings(name, gradient_clip=1.0), precision)

    @tf.function
    def train_step(gradients):
        made.run(lambda *each: optimizer.apply(optimizer.unscaled(each), weights), args=gradients)

    for step in range(3):
        optimizer.set_rate(RATES[step])
        alone.set_rate(RATES[step])
        scaled = [tf.constant(value) * alone.scaled(tf.constant(1.0)) for value in values(step + 1)]
        optimizer.scaled(tf.constant(1.0))
        train_step(tuple(scaled))
        alone.apply(alone.unscaled(scaled), expected)
    for found, wanted in zip(
        arrays([*weights, *optimizer.variables]), arrays([*expected, *alone.variables]), strict=True
    ):
        np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-7)


TWO_REPLICAS = """
from retinamask.detectors import _keras
_keras.prepare()
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from retinamask.training.learner import Optimizer
from retinamask.training.settings import TrainingSettings
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
for name, precision in [("adam", "float32"), ("adamw", "float32"), ("sgd", "float32"), ("adamw", "float16")]:
    results = []
    for chosen in (strategy, tf.distribute.get_strategy()):
        with chosen.scope():
            optimizer = Optimizer(TrainingSettings(optimizer=name, weight_decay=0.5, gradient_clip=1.0), precision)
            weights = [tf.Variable([1.0, -2.0], name="a/kernel"), tf.Variable([3.0], name="a/bias")]
            optimizer.build(weights)
        def replica():
            context = tf.distribute.get_replica_context()
            share = optimizer.scaled(tf.constant(1.0 / context.num_replicas_in_sync))
            summed = context.all_reduce("sum", [tf.constant([5.0, 6.0]) * share, tf.constant([0.0]) * share])
            optimizer.apply(optimizer.unscaled(summed), weights)
        step = tf.function(lambda: chosen.run(replica))
        for rate in (0.1, 0.2):
            optimizer.set_rate(rate)
            step()
        results.append([value.numpy() for value in [*weights, *optimizer.variables]])
        for weight in weights:
            copies = [copy.numpy() for copy in chosen.experimental_local_results(weight)]
            assert all((copy == copies[0]).all() for copy in copies), (name, copies)
        assert weights[1].numpy() == 3.0, name
    for two, one in zip(*results, strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-6, err_msg=name)
print("equal")
"""


def test_two_replicas_stay_equal_and_take_the_steps_of_one_device():
    ended = subprocess.run([sys.executable, "-c", TWO_REPLICAS], capture_output=True, text=True, timeout=120)
    assert ended.stdout.strip() == "equal", ended.stderr
