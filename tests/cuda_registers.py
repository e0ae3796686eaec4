"""The most registers that a thread of each kernel may take, in float32 and in float64, with any constants."""

CEILINGS = {
    "back_substitution.pull": (168, 200),
    "gated_linearise.linearise_slab": (96, 128),
    "parameter_gradients.add_up": (32, 32),
    "parameter_gradients.outer": (128, 128),
    "parameter_gradients.pull_inputs": (128, 128),
    "parameter_gradients.settle": (16, 16),
    "pointwise.largest": (32, 32),
    "preactivations.preactivate": (176, 184),
    "rows.clear": (32, 32),
    "rows.compare": (32, 48),
    "rows.gather": (48, 48),
    "rows.linear": (32, 32),
    "rows.maxima": (32, 40),
    "rows.multiply": (32, 32),
    "rows.products": (32, 32),
    "rows.repeat": (40, 40),
    "rows.scatter": (48, 48),
    "rows.shift": (48, 40),
    "rows.square_sums": (32, 32),
    "streamed_substitution.pull": (128, 128),
}
