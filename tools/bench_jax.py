"""The rows of the MLP in JAX, where it is installed: many trials in one compiled program.

    python -m tools.bench_jax

JAX is no dependency of the project. It gets one core, as training has.
"""

import importlib.util
import os
import time
from contextlib import contextmanager
from itertools import islice

import numpy as np

from batchscaling.training import digits

STEPS = {16: 400, 64: 200, 256: 80}
FLAGS = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"


def found():
    """Return whether JAX is installed."""
    return importlib.util.find_spec("jax") is not None


def program(jax, inputs, labels, trials):
    """Return initial trials of heavy ball, and the compiled function that takes their steps."""
    jnp = jax.numpy

    def init(key):
        first, second = jax.random.split(key)
        weights = jax.random.normal(first, (64, 64)) / 5.7, jax.random.normal(second, (64, 10)) / 8
        return (weights[0], jnp.zeros(64)), (weights[1], jnp.zeros(10))

    def loss(params, x, y):
        (first, first_bias), (second, second_bias) = params
        outputs = jax.nn.relu(x @ first + first_bias) @ second + second_bias
        picked = jnp.take_along_axis(jax.nn.log_softmax(outputs), y[:, None], 1)
        return -picked.mean()

    def step(params, velocity, lr, x, y):
        grads = jax.grad(loss)(params, x, y)
        velocity = jax.tree.map(lambda v, g: 0.5 * v + g, velocity, grads)
        return jax.tree.map(lambda p, v: p - lr * v, params, velocity), velocity

    lr = jnp.geomspace(0.001, 0.01, trials)
    steps = jax.vmap(step, in_axes=(0, 0, 0, None, None))

    @jax.jit
    def run(params, velocity, batches):
        def body(state, index):
            return steps(*state, lr, inputs[index], labels[index]), None

        return jax.lax.scan(body, (params, velocity), batches)[0]

    params = jax.vmap(init)(jax.random.split(jax.random.key(0), trials))
    return params, run


@contextmanager
def one_core():
    """Keep this thread, and those that it starts, on one core, which JAX's flags do not."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def turns(batch_size, trials):
    """Yield microseconds of one step of one trial without end, each turn, without compiling."""
    os.environ.setdefault("XLA_FLAGS", FLAGS)
    import jax

    data, steps = digits(), STEPS[batch_size]
    inputs, labels = (jax.numpy.asarray(t.numpy()) for t in (data.train_inputs, data.train_labels))
    params, run = program(jax, inputs, labels, trials)
    velocity = jax.tree.map(jax.numpy.zeros_like, params)
    batches = jax.random.randint(jax.random.key(1), (steps, batch_size), 0, len(inputs))
    jax.block_until_ready(run(params, velocity, batches))
    while True:
        start = time.perf_counter()
        jax.block_until_ready(run(params, velocity, batches))
        yield 1e6 * (time.perf_counter() - start) / steps / trials


if __name__ == "__main__":
    if not found():
        raise SystemExit("JAX is not installed: pip install jax")
    with one_core():
        for size in STEPS:
            median = np.median(list(islice(turns(size, 64), 7)))
            print(f"JAX, digits MLP, 64 trials, B = {size:4}: {median:7.1f}")
