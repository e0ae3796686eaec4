"""Layers and models on sequences (B, T, m), with hand-written gradients; their recurrences go through the solvers."""

from pitsolve.sequences.combine import Averaged as Averaged
from pitsolve.sequences.combine import Concatenated as Concatenated
from pitsolve.sequences.combine import LastStep as LastStep
from pitsolve.sequences.combine import MeanOverTime as MeanOverTime
from pitsolve.sequences.evaluation import Evaluation as Evaluation
from pitsolve.sequences.model import SequenceClassifier as SequenceClassifier
from pitsolve.sequences.model import SequenceRegressor as SequenceRegressor
from pitsolve.sequences.pointwise import GLU as GLU
from pitsolve.sequences.pointwise import Dropout as Dropout
from pitsolve.sequences.pointwise import EachStep as EachStep
from pitsolve.sequences.pointwise import LayerNorm as LayerNorm
from pitsolve.sequences.pointwise import Relu as Relu
from pitsolve.sequences.recurrent import Recurrent as Recurrent
from pitsolve.sequences.solver import Solver as Solver
from pitsolve.sequences.solver import truncated_multigrid as truncated_multigrid
