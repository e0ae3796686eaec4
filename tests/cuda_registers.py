"""The most registers that a thread of each kernel may take, in float32 and in float64, with any constants."""

CEILINGS = {
    "pointwise.largest": (32, 32),
    "rows.clear": (32, 32),
    "tridiagonal.factor": (255, 208),
    "tridiagonal.transmit": (255, 255),
    "tridiagonal_large.correct": (64, 128),
    "tridiagonal_large.factor": (64, 64),
    "tridiagonal_large.substitute": (64, 128),
    "tridiagonal_large.transmit": (64, 80),
    "tridiagonal_rows.begin": (32, 32),
    "tridiagonal_rows.merge": (32, 32),
    "tridiagonal_rows.mismatch": (32, 40),
    "tridiagonal_rows.post": (48, 40),
    "tridiagonal_rows.residual": (40, 40),
    "tridiagonal_rows.right_sides": (80, 96),
    "tridiagonal_rows.smallest_pivots": (32, 32),
    "tridiagonal_sweeps.correct": (128, 176),
    "tridiagonal_sweeps.substitute": (240, 255),
}
