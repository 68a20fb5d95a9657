import numpy as np


def balancer(scores, k):
    tokens, experts = scores.shape
    bias = np.zeros(experts)
    for n in range(1, 1001):
        choices = np.argsort(-(scores + bias), axis=1, kind="stable")[:, :k]
        loads = np.bincount(choices.ravel(), minlength=experts)
        bias = bias + 0.1 / n**0.75 * np.sign(k * tokens / experts - loads)
    return bias
