"""A kernel against its oracle: `verify.verify(kernel)` runs and judges, `verify.judge(c, a, b)` judges alone."""

from loadsparse.gpu.verify.errors import InputError
from loadsparse.gpu.verify.inputs import ADVERSARIAL, Case
from loadsparse.gpu.verify.judge import Judgement, Mismatch, judge
from loadsparse.gpu.verify.result import FIELDS, Result, Row
from loadsparse.gpu.verify.run import files, judge_launch, verify

__all__ = [
    "ADVERSARIAL",
    "FIELDS",
    "Case",
    "InputError",
    "Judgement",
    "Mismatch",
    "Result",
    "Row",
    "files",
    "judge",
    "judge_launch",
    "verify",
]
