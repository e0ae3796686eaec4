"""Block-repetitive networks with hand-written gradients, and parareal networks made of them."""

from pitsolve.networks.bottleneck import Bottleneck as Bottleneck
from pitsolve.networks.chain import Chain as Chain
from pitsolve.networks.convolution import Convolution as Convolution
from pitsolve.networks.layer import Layer as Layer
from pitsolve.networks.layer import Sequence as Sequence
from pitsolve.networks.loss import cross_entropy as cross_entropy
from pitsolve.networks.loss import mean_squared as mean_squared
from pitsolve.networks.loss_and_gradient import loss_and_gradient as loss_and_gradient
from pitsolve.networks.normalisation import BatchNorm as BatchNorm
from pitsolve.networks.parareal import PararealNetwork as PararealNetwork
from pitsolve.networks.parareal import parareal as parareal
from pitsolve.networks.perceptron import Activation as Activation
from pitsolve.networks.perceptron import Dense as Dense
from pitsolve.networks.perceptron import Residual as Residual
from pitsolve.networks.perceptron import residual_mlp as residual_mlp
from pitsolve.networks.pooling import GlobalAveragePooling as GlobalAveragePooling
from pitsolve.networks.timings import Timings as Timings
from pitsolve.networks.unrolled import Unrolled as Unrolled
from pitsolve.networks.unrolled import recurrent as recurrent
