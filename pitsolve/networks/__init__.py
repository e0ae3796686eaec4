"""Block-repetitive networks with hand-written gradients, and parareal networks made of them."""

from pitsolve.networks.chain import Chain as Chain
from pitsolve.networks.data import Images as Images
from pitsolve.networks.data import crop_and_flip as crop_and_flip
from pitsolve.networks.data import read_cifar as read_cifar
from pitsolve.networks.evaluate import evaluate as evaluate
from pitsolve.networks.fit import FitResult as FitResult
from pitsolve.networks.fit import fit as fit
from pitsolve.networks.layer import Layer as Layer
from pitsolve.networks.layer import Sequence as Sequence
from pitsolve.networks.loss import cross_entropy as cross_entropy
from pitsolve.networks.loss import mean_squared as mean_squared
from pitsolve.networks.loss_and_gradient import loss_and_gradient as loss_and_gradient
from pitsolve.networks.parareal import PararealNetwork as PararealNetwork
from pitsolve.networks.parareal import parareal as parareal
from pitsolve.networks.perceptron import Activation as Activation
from pitsolve.networks.perceptron import Dense as Dense
from pitsolve.networks.perceptron import Residual as Residual
from pitsolve.networks.perceptron import residual_mlp as residual_mlp
from pitsolve.networks.timings import Timings as Timings
from pitsolve.networks.unrolled import Unrolled as Unrolled
from pitsolve.networks.unrolled import recurrent as recurrent
from pitsolve.networks.resnet import ResNet as ResNet
from pitsolve.networks.resnet import resnet as resnet
