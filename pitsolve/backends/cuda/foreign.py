"""Arrays of other libraries on the device: in without a copy, out in the kind that came in, on the stream of the caller."""

from __future__ import annotations

import sys

import numpy as np

from pitsolve.backends.cuda import arrays
from pitsolve.backends.cuda.launch import SIMULATED, Device, cuda, device, unavailable

_VECTOR_BYTES = 16


def wrap(value: object):
    """The memory behind a CuPy array, a torch tensor or anything else with ``__cuda_array_interface__``, C-contiguous.

    Kernels load 16 bytes at once, so slices that begin in between are copied; so are arrays in another order, through the host,
    which is slow and right for any strides.
    """
    array = value if hasattr(value, "copy_to_host") else cuda.as_cuda_array(value, sync=False)
    _wait_for(array)
    if not array.is_c_contiguous():
        return arrays.from_host(np.ascontiguousarray(_on_host(array)))
    address = (getattr(array, "__cuda_array_interface__", None) or {"data": (0, False)})["data"][0] or 0
    return arrays.copy(array) if address % _VECTOR_BYTES else array


def _wait_for(array) -> None:
    """What was begun on the stream that an array names, if that is not the stream of the call."""
    stream, own = getattr(array, "stream", 0), device().stream
    if stream and int(stream) != int(own or 1):  # 1 is the default stream by its name
        stream.synchronize()


def _on_host(array) -> np.ndarray:
    """A copy of an array of any strides; Numba does not copy backwards, so it gets the same memory forwards."""
    backwards = [stride < 0 for stride in array.strides]
    if SIMULATED or not any(backwards):
        return arrays.to_host(array)
    interface = array.__cuda_array_interface__
    address = interface["data"][0] + sum((size - 1) * stride for size, stride in zip(array.shape, array.strides) if stride < 0)
    forwards = {**interface, "data": (address, False), "strides": tuple(map(abs, array.strides))}
    host = arrays.to_host(cuda.from_cuda_array_interface(forwards, owner=array, sync=False))
    return host[tuple(slice(None, None, -1 if back else 1) for back in backwards)]


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
