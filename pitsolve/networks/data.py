"""CIFAR-10 and CIFAR-100: the official binary files and .npz, and the augmentation that belongs to them."""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pitsolve import check

_SIDE, _CHANNELS = 32, 3
_PIXELS = _SIDE * _SIDE * _CHANNELS
_FOLDER = {(10, "train"): [f"data_batch_{k}.bin" for k in range(1, 6)], (10, "test"): ["test_batch.bin"],
           (100, "train"): ["train.bin"], (100, "test"): ["test.bin"]}


@dataclass(frozen=True, eq=False)
class Images:
    """Labelled images.

    Attributes
    ----------
    pixels : ndarray (N, 32, 32, 3) of uint8
        Height, width, colour.
    labels : ndarray (N,) of int64
        From 0.
    """

    pixels: np.ndarray = field(repr=False)
    labels: np.ndarray = field(repr=False)

    def standardised(self, like: Images | None = None, dtype: type = np.float32) -> np.ndarray:
        """Pixels with mean 0 and standard deviation 1 in each colour; those of ``like``, if given: the training images."""
        reference = (self if like is None else like).pixels
        mean, deviation = reference.mean(axis=(0, 1, 2)), reference.std(axis=(0, 1, 2))
        return (self.pixels - mean.astype(dtype)) / deviation.astype(dtype)

    def __repr__(self) -> str:
        return f"{len(self.labels)} images of {len(np.unique(self.labels))} classes"


def read_cifar(path: str | os.PathLike, split: str = "train", *, classes: int = 10) -> Images:
    """Images of CIFAR-10 or CIFAR-100.

    Parameters
    ----------
    path : str or path
        A folder with the official binary files, one of these files (one label byte, or two for CIFAR-100, of which the fine
        label is taken, then 3,072 bytes, channels first), or an .npz with ``X_train`` and ``X_test`` (N, 32, 32, 3) uint8 and
        ``y_train``, ``y_test``.
    split : str
        ``"train"`` or ``"test"``; of no importance for a single binary file.
    classes : int
        10 or 100.

    Returns
    -------
    Images

    Raises
    ------
    ValueError
        A file that is cut off, has labels out of range, or is something else.
    FileNotFoundError
        There is none.

    Examples
    --------
    >>> import numpy as np, pathlib, tempfile, pitsolve as ps
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "test_batch.bin"
    ...     size = path.write_bytes(bytes([7]) + bytes(3072) + bytes([2]) + bytes(3072))
    ...     ps.networks.read_cifar(path)
    2 images of 2 classes
    """
    check.choice("split", split, ("train", "test"))
    if classes not in (10, 100):
        raise ValueError(f"classes must be 10 or 100, got {classes!r}")
    path = Path(path)
    if path.suffix == ".npz":
        images = _read_npz(path, split)
    else:
        files = [path / name for name in _FOLDER[classes, split]] if path.is_dir() else [path]
        parts = [_read_binary(file, classes) for file in files]
        images = Images(np.concatenate([part.pixels for part in parts]), np.concatenate([part.labels for part in parts]))
    for index in np.flatnonzero((images.labels < 0) | (images.labels >= classes)):
        raise ValueError(f"{path}: the label of image {index} is {images.labels[index]}, not one of {classes} classes")
    return images


def _read_binary(path: Path, classes: int) -> Images:
    content = np.fromfile(path, np.uint8)
    labels = 1 if classes == 10 else 2
    if content.size == 0 or content.size % (labels + _PIXELS):
        raise ValueError(f"{path} has {content.size} bytes, not a multiple of {labels + _PIXELS} as the binary files of "
                         f"CIFAR-{classes} have: it is cut off, or not such a file")
    records = content.reshape(-1, labels + _PIXELS)
    pixels = records[:, labels:].reshape(-1, _CHANNELS, _SIDE, _SIDE).transpose(0, 2, 3, 1)
    return Images(np.ascontiguousarray(pixels), records[:, labels - 1].astype(np.int64))


def _read_npz(path: Path, split: str) -> Images:
    names = f"X_{split}", f"y_{split}"
    with open(path, "rb") as file:
        try:
            with zipfile.ZipFile(file):  # np.load would take other kinds of files too
                file.seek(0)
            with np.load(file, allow_pickle=False) as archive:
                missing = [name for name in names if name not in archive.files]
                pixels, labels = (None, None) if missing else (archive[name] for name in names)
        except Exception as error:  # zipfile, its decompressors and the reader of headers each have their own
            raise ValueError(f"{path} is cut off, or not an .npz archive: {error}") from None
    if missing:
        raise ValueError(f"{path} has no {' and no '.join(missing)}")
    if pixels.dtype != np.uint8 or pixels.shape[1:] != (_SIDE, _SIDE, _CHANNELS):
        raise ValueError(f"{path}: {names[0]} must be (N, 32, 32, 3) of uint8, got {check.describe(pixels)}")
    if labels.shape != pixels.shape[:1] or labels.dtype.kind not in "iu":
        raise ValueError(f"{path}: {names[1]} must be {pixels.shape[0]} integers, got {check.describe(labels)}")
    return Images(pixels, labels.astype(np.int64))


def crop_and_flip(images: np.ndarray, random: np.random.Generator, padding: int = 4) -> np.ndarray:
    """Each image cut out at a random place after padding with zeros, and mirrored with probability one half.

    Parameters
    ----------
    images : ndarray (B, H, W, C)
        A batch.
    random : numpy.random.Generator
        Where the places come from.
    padding : int
        Pixels on each side.

    Returns
    -------
    ndarray (B, H, W, C)

    References
    ----------
    He, Zhang, Ren and Sun, "Deep residual learning for image recognition", CVPR 2016, section 4.2.

    Examples
    --------
    >>> import numpy as np, pitsolve as ps
    >>> ps.networks.crop_and_flip(np.ones((2, 8, 8, 3)), np.random.default_rng(5)).shape
    (2, 8, 8, 3)
    """
    batch, height, width, _ = images.shape
    places, flipped = random.integers(0, 2 * padding + 1, (batch, 2)), random.integers(0, 2, batch)
    padded = np.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    out = np.empty_like(images)
    for b, ((row, column), flip) in enumerate(zip(places, flipped, strict=True)):
        cut = padded[b, row:row + height, column:column + width]
        out[b] = cut[:, ::-1] if flip else cut
    return out
