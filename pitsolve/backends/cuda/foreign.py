"""Arrays of other libraries on the device: in without a copy, out in the kind that came in, on the stream of the caller."""

from __future__ import annotations

import sys

import numpy as np

from pitsolve.backends.cuda import arrays
from pitsolve.backends.cuda.launch import Device, cuda, unavailable

_VECTOR_BYTES = 16


def wrap(value: object):
    """The memory behind a CuPy array, a torch tensor or anything else with ``__cuda_array_interface__``, C-contiguous.

    Kernels load 16 bytes at once, so slices that begin in between are copied; so are arrays in another order, through the host,
    which is slow and right for any strides.
    """
    array = value if hasattr(value, "copy_to_host") else cuda.as_cuda_array(value, sync=False)
    if not array.is_c_contiguous():
        return arrays.from_host(np.ascontiguousarray(array.copy_to_host()))
    address = (getattr(array, "__cuda_array_interface__", None) or {"data": (0, False)})["data"][0] or 0
    return arrays.copy(array) if address % _VECTOR_BYTES else array


def restore(array, like: object):
    """``array`` as the kind of ``like``: a torch tensor, a CuPy array, a NumPy array, or Numba's device array as it is."""
    if not (hasattr(like, "__cuda_array_interface__") or hasattr(like, "__cuda_ndarray__")):
        return arrays.to_host(array)
    library = type(like).__module__.partition(".")[0]
    if library == "torch":
        return sys.modules["torch"].as_tensor(array, device=like.device)
    if library == "cupy":
        return sys.modules["cupy"].asarray(array)
    return array


def stream_of(value: object):
    """The stream on which the caller works: that of the array if it names one, torch's current one, else the default."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        number = torch.cuda.current_stream(value.device).cuda_stream
    else:
        number = (getattr(value, "__cuda_array_interface__", None) or {}).get("stream")
    return cuda.external_stream(number) if number and number > 2 else 0


def device_for(value: object) -> Device:
    """Where a call whose leading array is ``value`` runs; a RuntimeError says why nothing can."""
    reason = unavailable()
    if reason:
        raise RuntimeError(f"backend 'cuda' cannot be used: {reason}")
    return Device(stream_of(value))
