"""tanh as float32 kernels see it, in the form that costs two special instructions of the card and no branch.

tanh(x) = 1 - 2 / (1 + exp(2 x)) has an absolute error of about 1e-7 and the right limits at infinity.
"""

from pitsolve.backends.cuda.intrinsics import exp2_approximate, reciprocal_approximate

_TWO_LOG2_E = 2.8853900817779268  # 2 / log(2)


def tanh(x):
    """Hyperbolic tangent."""
    return 1.0 - 2.0 * reciprocal_approximate(1.0 + exp2_approximate(_TWO_LOG2_E * x))
