import numpy as np
from pitsolve.backends.cuda.gated_model import GatedModel
from pitsolve.backends.cuda.launch import device
def project(self, x, begin, end, start, stop):
    p = self.weights.host
    host = device().download(x)[:, begin:end] if not isinstance(x, np.ndarray) else x[:, begin:end]
    return device().upload((host @ p["weight_ih"].T + p["bias_ih"]).astype(self.dtype))
GatedModel.project = project
