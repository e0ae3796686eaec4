"""What training needs besides gradients: losses, optimisers, schedules, checkpoints; and models on sequences to train."""

from pitsolve.training.checkpoint import Checkpoint as Checkpoint
from pitsolve.training.checkpoint import CheckpointError as CheckpointError
from pitsolve.training.checkpoint import load_checkpoint as load_checkpoint
from pitsolve.training.checkpoint import save_checkpoint as save_checkpoint
from pitsolve.training.losses import cross_entropy as cross_entropy
from pitsolve.training.losses import mean_squared as mean_squared
from pitsolve.training.memory import keep_memory as keep_memory
from pitsolve.training.optimizers import SGD as SGD
from pitsolve.training.optimizers import Adam as Adam
from pitsolve.training.optimizers import AdamW as AdamW
from pitsolve.training.optimizers import Optimizer as Optimizer
from pitsolve.training.optimizers import global_norm as global_norm
from pitsolve.training.result import FitResult as FitResult
from pitsolve.training.schedules import StepSchedule as StepSchedule
from pitsolve.training.schedules import WarmupCosine as WarmupCosine

# isort: split
from pitsolve.sequences.fit import evaluate as evaluate  # stands on the rooms above
from pitsolve.sequences.fit import fit as fit
from pitsolve.sequences.model import SequenceClassifier as SequenceClassifier
from pitsolve.sequences.model import SequenceRegressor as SequenceRegressor
from pitsolve.sequences.solver import Solver as Solver
from pitsolve.sequences.solver import truncated_multigrid as truncated_multigrid
