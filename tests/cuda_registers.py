"""The most registers that a thread of each kernel may take, in float32 and in float64, with any constants."""

CEILINGS = {
    "gated_linearise.linearise_slab": (96, 128),
    "pointwise.largest": (32, 32),
}
