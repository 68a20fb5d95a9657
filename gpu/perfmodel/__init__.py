"""Predicted time of a kernel and of a whole model: counts of the simulator, a GPU description, seven fitted constants."""

from loadsparse.gpu.perfmodel.endtoend import EndToEnd, batch_sweep, end_to_end
from loadsparse.gpu.perfmodel.gpu import Gpu, PerfError, load
from loadsparse.gpu.perfmodel.kernel import NAMES, Prediction, predict, roofline, sensitivities
from loadsparse.gpu.perfmodel.mine import predict_mine
from loadsparse.gpu.perfmodel.moe import Routing

__all__ = [
    "NAMES",
    "EndToEnd",
    "Gpu",
    "PerfError",
    "Prediction",
    "Routing",
    "batch_sweep",
    "end_to_end",
    "load",
    "predict",
    "predict_mine",
    "roofline",
    "sensitivities",
]
