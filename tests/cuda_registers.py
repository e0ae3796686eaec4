"""The most registers that a thread of each kernel may take, in float32 and in float64, with any constants."""

CEILINGS = {
    "gated_linearise.linearise_slab": (96, 128),
    "newton_apply.apply_chunks": (168, 192),
    "newton_chunks.reduce_chunks": (168, 200),
    "newton_tiles.enter": (24, 24),
    "newton_tiles.iterate_channels": (128, 176),
    "newton_time.iterate_time": (64, 96),
    "pointwise.largest": (32, 32),
    "rows.clear": (32, 32),
}
