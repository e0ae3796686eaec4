"""The most registers that a thread of each kernel may take, in float32 and in float64, with any constants."""

CEILINGS = {
    "general.linearise": (255, 255),
    "general.merge": (255, 255),
    "general.sweep": (255, 255),
    "general_derivatives.accumulate": (255, 255),
    "general_derivatives.differentiate": (255, 255),
    "general_derivatives.pull_inputs": (255, 255),
    "general_derivatives.pull_parameters": (255, 255),
    "general_derivatives.total": (255, 255),
    "general_windows.pull": (255, 255),
    "general_windows.pull_by_block": (255, 255),
    "transfer.multiply_blocks": (255, 255),
    "transfer.multiply_columns": (255, 255),
    "transfer.multiply_diagonal": (255, 255),
    "rows.clear": (255, 255),
    "rows.copy": (255, 255),
    "pointwise.largest": (32, 32),
}
