import numpy as np


def sign_step(bias, loads, rate):
    return bias + rate * np.sign(loads.mean() - loads)
