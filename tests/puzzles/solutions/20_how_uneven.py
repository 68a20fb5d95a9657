import numpy as np


def how_uneven(choices, experts):
    loads = np.bincount(choices.ravel(), minlength=experts)
    return loads.max() / loads.mean() - 1
