"""CIFAR files, written here in the official format, and the augmentation of their images."""

import numpy as np
import pytest

from pitsolve.networks import Images, crop_and_flip, read_cifar


def images(count, classes, seed=5):
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (count, 32, 32, 3), np.uint8), random.integers(0, classes, count)


def write_binary(path, pixels, labels, coarse=None):
    """One label byte, or a coarse and a fine one, then red, green and blue, row by row."""
    with open(path, "wb") as file:
        for i, (image, label) in enumerate(zip(pixels, labels)):
            file.write(bytes([label]) if coarse is None else bytes([coarse[i], label]))
            for channel in range(3):
                file.write(image[:, :, channel].tobytes())


def assert_equal(found, pixels, labels):
    assert found.labels.dtype == np.int64 and found.pixels.flags.c_contiguous
    np.testing.assert_array_equal(found.pixels, pixels)
    np.testing.assert_array_equal(found.labels, labels)


def test_cifar10_folder(tmp_path):
    batches = [images(3, 10, seed) for seed in range(6)]
    for k, (pixels, labels) in enumerate(batches):
        write_binary(tmp_path / (f"data_batch_{k}.bin" if k else "test_batch.bin"), pixels, labels)
    train = read_cifar(tmp_path)
    assert_equal(train, *(np.concatenate([batch[i] for batch in batches[1:]]) for i in (0, 1)))
    assert_equal(read_cifar(tmp_path, "test"), *batches[0])
    assert_equal(read_cifar(tmp_path / "data_batch_4.bin"), *batches[4])
    assert "15 images" in repr(train)


def test_cifar100_folder_has_fine_labels(tmp_path):
    pixels, labels = images(4, 100)
    write_binary(tmp_path / "train.bin", pixels, labels, coarse=[19, 18, 17, 16])
    assert_equal(read_cifar(tmp_path, classes=100), pixels, labels)
    with pytest.raises(FileNotFoundError, match=r"test\.bin"):
        read_cifar(tmp_path, "test", classes=100)


def test_npz(tmp_path):
    pixels, labels = images(4, 10)
    few = {"X_test": pixels[:2], "y_test": labels[:2].astype(np.uint8)}
    np.savez_compressed(tmp_path / "x.npz", X_train=pixels, y_train=labels, **few)
    assert_equal(read_cifar(tmp_path / "x.npz"), pixels, labels)
    assert_equal(read_cifar(tmp_path / "x.npz", "test"), pixels[:2], labels[:2])


def test_files_that_are_cut_off(tmp_path):
    pixels, labels = images(2, 10)
    binary, archive = tmp_path / "data_batch_1.bin", tmp_path / "x.npz"
    write_binary(binary, pixels, labels)
    np.savez(archive, X_train=pixels, y_train=labels)
    for path in (binary, archive):
        whole = path.read_bytes()
        for size in (0, 1, 3073 + 17, len(whole) - 1):
            path.write_bytes(whole[:size])
            with pytest.raises(ValueError, match=r"cut off"):
                read_cifar(path)


def test_an_archive_with_a_changed_byte_is_refused_or_read_as_it_was(tmp_path):
    pixels, labels = images(1, 10)
    pixels //= 64  # compresses to blocks with tables, which a changed byte can break in many ways
    path = tmp_path / "x.npz"
    np.savez_compressed(path, X_train=pixels, y_train=labels)
    whole, refused = path.read_bytes(), 0
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1:])
        try:
            assert_equal(read_cifar(path), pixels, labels)
        except ValueError:
            refused += 1
    assert refused > len(whole) / 2


def test_files_that_are_something_else(tmp_path):
    pixels, labels = images(3, 10)
    np.savez(tmp_path / "a.npz", X_train=pixels)
    np.savez(tmp_path / "b.npz", X_train=pixels.astype(np.float32), y_train=labels)
    np.savez(tmp_path / "c.npz", X_train=pixels, y_train=labels[:2])
    np.savez(tmp_path / "d.npz", X_train=pixels, y_train=[0, 10, 3])
    write_binary(tmp_path / "e.bin", pixels, [0, 1, 255])
    write_binary(tmp_path / "f.bin", pixels, labels, coarse=labels)
    for name, message in (("a.npz", "has no y_train"), ("b.npz", "of uint8, got an array of dtype float32"),
                          ("c.npz", "must be 3 integers"), ("d.npz", "label of image 1 is 10, not one of 10"),
                          ("e.bin", "label of image 2 is 255"), ("f.bin", "not a multiple of 3073")):
        with pytest.raises(ValueError, match=message):
            read_cifar(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        read_cifar(tmp_path / "g.npz")
    with pytest.raises(ValueError, match="classes must be 10 or 100"):
        read_cifar(tmp_path / "a.npz", classes=20)


def test_standardised_colours():
    train, test = (Images(*images(20, 10, seed)) for seed in (1, 2))
    values = train.standardised()
    assert values.dtype == np.float32
    np.testing.assert_allclose(values.mean(axis=(0, 1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(values.std(axis=(0, 1, 2)), 1, rtol=1e-4)
    colour = test.pixels[..., 1]
    expected = (colour - train.pixels[..., 1].mean()) / train.pixels[..., 1].std()
    np.testing.assert_allclose(test.standardised(like=train)[..., 1], expected, rtol=1e-4, atol=1e-5)


def shifted(image, rows, columns):
    """The image moved within its frame, zeros moving in."""
    size = len(image)
    padded = np.zeros((3 * size, 3 * size, image.shape[-1]), image.dtype)
    padded[size:2 * size, size:2 * size] = image
    return padded[size + rows:2 * size + rows, size + columns:2 * size + columns]


def test_augmented_images_are_shifted_by_up_to_4_pixels_and_perhaps_mirrored():
    pixels = np.random.default_rng(3).random((200, 6, 6, 2))
    seen = set()
    for image, augmented in zip(pixels, crop_and_flip(pixels, np.random.default_rng(5))):
        matches = [(rows, columns, mirrored) for rows in range(-4, 5) for columns in range(-4, 5) for mirrored in (False, True)
                   if np.array_equal(augmented[:, ::-1] if mirrored else augmented, shifted(image, rows, columns))]
        assert len(matches) == 1
        seen.add(matches[0])
    assert {rows for rows, _, _ in seen} == {columns for _, columns, _ in seen} == set(range(-4, 5))
    assert {mirrored for _, _, mirrored in seen} == {False, True}


def test_augmentation_is_a_function_of_the_generator():
    pixels = np.random.default_rng(3).random((20, 6, 6, 2))
    first, again, other = (crop_and_flip(pixels, np.random.default_rng(seed)) for seed in ((5, 0), (5, 0), (5, 1)))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
