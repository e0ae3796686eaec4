"""A model on sequences whose recurrences run on the device: the loss and gradient of the CPU."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from pitsolve.sequences import Evaluation
from pitsolve.sequences.task import loss_and_gradient
from pitsolve.training import SequenceClassifier, Solver

pytestmark = pytest.mark.usefixtures("small_blocks")


@pytest.mark.parametrize("method", ["sequential", "deer"])
def test_a_model_with_its_recurrences_on_the_device_has_the_gradient_of_the_cpu(method):
    model = SequenceClassifier(input_size=2, hidden=4, classes=3, strides=2, bidirectional=True, residual=True, norm=True)
    random = np.random.default_rng(5)
    params, x, lengths = model.init(seed=3, dtype=np.float64), random.standard_normal((2, 7, 2)), np.array([7, 4])
    cpu, device = (loss_and_gradient(model, params, x, np.array([0, 2]), model.loss,
                                     Evaluation(Solver(method, backend=backend), lengths, lambda call: call))
                   for backend in ("cpu", "cuda"))
    assert abs(device[0] - cpu[0]) < 1e-12
    for name in params:
        assert_allclose(device[2][name], cpu[2][name], rtol=1e-9, atol=1e-12, err_msg=name)
