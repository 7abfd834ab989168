"""Any number of Python threads may compute at once, each operation by any number of OpenMP's."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import paddle
import pytest

from resnet_fit import densenet, resnet
from resnet_fit.backends import onednn_problem, set_threads, threads, use_backend
from resnet_fit.errors import UserError

BACKENDS = ["paddle", "channels_last", *([] if onednn_problem() else ["onednn"])]
needs_onednn = pytest.mark.skipif("onednn" not in BACKENDS, reason="no onednn backend here")


@pytest.fixture(autouse=True)
def the_number_of_threads_as_it_was():
    before = threads()
    yield
    set_threads(before)


def run_in_child(code: str) -> str:
    """Output of a program: that it crashes or hangs is a failed test."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env={**os.environ, "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


STRESS = """
import sys, threading
import numpy as np, paddle
from resnet_fit import densenet, resnet
from resnet_fit.backends import use_backend

def make(seed):
    paddle.seed(seed)
    build = densenet if seed % 2 else resnet
    network = build([2, 1], 10, "cifar")
    use_backend(network, "onednn")
    return network

def train(seed, network):
    rng = np.random.default_rng(seed)
    optimizer = paddle.optimizer.Momentum(0.01, 0.9, network.parameters())
    results = []
    for _ in range(STEPS):
        images = rng.normal(size=(8, 3, 16 + 2 * (seed % 3), 16)).astype("float32")
        images, labels = paddle.to_tensor(images), paddle.to_tensor(rng.integers(0, 10, 8))
        logits = network(images)
        paddle.nn.functional.cross_entropy(logits, labels).backward()
        optimizer.step()
        optimizer.clear_grad()
        results.append(logits.numpy())
    network.eval()
    with paddle.no_grad():
        results.append(network(images).numpy())
    return results + [value.numpy() for value in network.state_dict().values()]

alone = [train(seed, make(seed)) for seed in range(THREADS)]
networks = [make(seed) for seed in range(THREADS)]
together = {}

def work(seed):
    together[seed] = train(seed, networks[seed])

workers = [threading.Thread(target=work, args=[seed]) for seed in range(THREADS)]
for worker in workers: worker.start()
for worker in workers: worker.join()
for seed, expected in enumerate(alone):
    for right, ours in zip(expected, together[seed], strict=True):
        np.testing.assert_array_equal(ours, right)
print("equal")
"""


@needs_onednn
@pytest.mark.parametrize("count", [2, pytest.param(8, marks=pytest.mark.slow)])
def test_networks_trained_at_the_same_time_are_those_trained_alone(count):
    assert run_in_child(f"THREADS, STEPS = {count}, 3" + STRESS) == "equal\n"


@needs_onednn
@pytest.mark.slow
def test_networks_trained_at_the_same_time_for_longer():
    assert run_in_child("THREADS, STEPS = 6, 20" + STRESS) == "equal\n"


@pytest.mark.parametrize("backend", BACKENDS)
def test_several_threads_evaluate_one_network(backend):
    network = resnet([1, 1], 10, "cifar", width=16)
    use_backend(network, backend)
    network.eval()
    batches = [paddle.rand([n, 3, 16, 16]) for n in (1, 4, 9, 16)]
    expected = [network(images).numpy() for images in batches]
    together = threading.Barrier(len(batches))

    def work(images):
        together.wait(timeout=60)
        with paddle.no_grad():
            return [network(images).numpy() for _ in range(20)]

    with ThreadPoolExecutor(len(batches)) as pool:
        found = list(pool.map(work, batches))  # an exception in a thread is raised here
    for outputs, right in zip(found, expected, strict=True):
        for output in outputs:
            np.testing.assert_array_equal(output, right)


@needs_onednn
def test_memory_stays_bounded_where_every_batch_has_another_size():
    grown = run_in_child("""
import paddle
from resnet_fit import resnet
from resnet_fit.backends import use_backend

def megabytes():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 1e6

network = resnet([1], 10, "cifar", width=16)
use_backend(network, "onednn")
network(paddle.rand([2, 3, 64, 64])).sum().backward()
for i in range(56):
    network(paddle.rand([2, 3, 24 + i % 8, 24 + i // 8])).sum().backward()
    if i == 20:
        before = megabytes()
print(megabytes() - before)
""")
    assert float(grown) < 10  # 30 where nothing is dropped


def outputs_and_gradients(network, images):
    logits = network(paddle.to_tensor(images))
    logits.square().sum().backward()
    gradients = [p.grad.numpy() for p in network.parameters() if not p.stop_gradient]
    network.clear_gradients()
    return [logits.numpy(), *gradients]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("build", [resnet, densenet])
def test_another_number_of_threads_changes_results_by_rounding_alone(build, backend):
    network = build([1, 1], 10, "cifar")
    use_backend(network, backend)
    images = np.random.default_rng(0).normal(size=(8, 3, 16, 16)).astype("float32")
    results = {}
    for count in (2, 1, 3, 2):
        set_threads(count)
        assert threads() == count
        ours = outputs_and_gradients(network, images)
        if count in results:  # exactly the same again
            for a, b in zip(ours, results[count], strict=True):
                np.testing.assert_array_equal(a, b)
        results[count] = ours
    for count in (1, 3):
        logits, *gradients = zip(results[count], results[2], strict=True)
        np.testing.assert_allclose(*logits, rtol=1e-4, atol=1e-4)
        for a, b in gradients:  # a ReLU here or there decides otherwise
            assert np.linalg.norm(a - b) < 0.02 * np.linalg.norm(b)


@needs_onednn
def test_the_number_may_change_between_forward_and_backward():
    network = resnet([1, 1], 10, "cifar", width=16)
    use_backend(network, "onednn")
    images = np.random.default_rng(0).normal(size=(8, 3, 16, 16)).astype("float32")
    set_threads(2)
    expected = outputs_and_gradients(network, images)
    logits = network(paddle.to_tensor(images))
    set_threads(1)
    logits.square().sum().backward()
    gradients = [p.grad.numpy() for p in network.parameters() if not p.stop_gradient]
    for a, b in zip(gradients, expected[1:], strict=True):
        assert np.linalg.norm(a - b) < 1e-3 * np.linalg.norm(b)


def in_another_thread(ask: Callable[[], int]) -> int:
    found: list[int] = []
    worker = threading.Thread(target=lambda: found.append(ask()))
    worker.start()
    worker.join()
    return found[0]


def test_the_number_is_that_of_the_python_thread_that_sets_it():
    before = in_another_thread(threads)
    set_threads(before + 1)
    assert threads() == before + 1
    assert in_another_thread(threads) == before


@pytest.mark.parametrize("count", [0, -1, 1.0, True, "2"])
def test_a_number_of_threads_that_is_none_is_refused(count):
    with pytest.raises(UserError, match=r"threads: received .*, expected a whole number above 0"):
        set_threads(count)
