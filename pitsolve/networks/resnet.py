"""Deep residual networks for small images, as chains of bottleneck units."""

from __future__ import annotations

import math

from pitsolve import check
from pitsolve.networks.bottleneck import Bottleneck
from pitsolve.networks.chain import Chain
from pitsolve.networks.convolution import Convolution
from pitsolve.networks.layer import Sequence
from pitsolve.networks.normalisation import BatchNorm
from pitsolve.networks.perceptron import Activation, Dense
from pitsolve.networks.pooling import GlobalAveragePooling

_STAGES = 3


class ResNet(Chain):
    """What :func:`resnet` makes: a chain that is torn with 1 x 1 convolutions as surrogates."""

    def surrogate(self, first: int) -> Convolution:
        """A 1 x 1 convolution from the image to the state before block ``first``, with the stride of the blocks before."""
        stride = math.prod(block.stride for block in self.blocks[:first])
        return Convolution(self.pre.inputs, self.blocks[first].inputs, 1, stride)


def resnet(depth: int, classes: int = 10, *, width: int = 16, channels: int = 3) -> ResNet:
    """A pre-activation residual network of bottleneck units for images (B, H, W, channels) such as those of CIFAR.

    A 3 x 3 convolution to ``width`` channels; three stages of (depth - 2) / 9 units of widths w, 2 w, 4 w with 4 w, 8 w, 16 w
    channels, the first unit of the second and of the third stage with stride 2; normalisation, rectifier, global average
    pooling and a dense layer.

    Parameters
    ----------
    depth : int
        Layers with weights, 9 k + 2 for k units a stage: 29, 110, 164, 1001.
    classes : int
        Outputs.
    width : int
        w; 16 in the papers.
    channels : int
        Of the images.

    Returns
    -------
    ResNet
        A :class:`Chain`. Torn by :func:`parareal`, C^2 ... C^N are 1 x 1 convolutions with stride, and coarse units have no
        centring in their normalisations, so that zero goes to zero.

    References
    ----------
    Lee, Park and Lee, "Parareal neural networks emulating a parallel-in-time algorithm", TNNLS 2022, section 4. He, Zhang, Ren
    and Sun, "Identity mappings in deep residual networks", ECCV 2016.

    Examples
    --------
    >>> import pitsolve as ps
    >>> net = ps.networks.resnet(depth=1001, classes=10)
    >>> net
    ResNet of 333 blocks, 10327706 parameters
    >>> ps.networks.parareal(net, subnetworks=18)
    PararealNetwork of 18 subnetworks with 18 or 19 blocks each, 10979610 parameters
    """
    if check.count("depth", depth) % 9 != 2 or depth < 11:
        raise ValueError(f"depth must be 9 k + 2 for k units in each of the three stages, such as 29, 110 or 1001, got {depth}")
    for name, value in (("classes", classes), ("width", width), ("channels", channels)):
        check.count(name, value)
    units, blocks, inputs = (depth - 2) // 9, [], width
    for stage in range(_STAGES):
        for unit in range(units):
            blocks.append(Bottleneck(inputs, width << stage, 2 if stage and not unit else 1))
            inputs = blocks[-1].outputs
    post = Sequence((("norm", BatchNorm(inputs)), ("relu", Activation("relu")), ("pool", GlobalAveragePooling()),
                     ("dense", Dense(inputs, classes))))
    return ResNet(Convolution(channels, width), tuple(blocks), post)
