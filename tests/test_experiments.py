"""Every experiment runs from the command line to its end on a few made-up data, and writes what it says."""

import importlib
import json

import numpy as np
import pytest

pytest.importorskip("matplotlib")


def worms(random):
    return {"X": random.standard_normal((9, 70, 6)).astype(np.float32), "y": np.arange(9) % 5,
            "split": np.array(["train", "train", "test"] * 3)}


def human_activity(random):
    return {f"{name}_{part}": value for part in ("train", "test") for name, value in
            (("X", random.standard_normal((12, 64, 9)).astype(np.float32)), ("y", np.arange(12) % 6))}


def long_activity(random):
    lengths = np.array([80, 50, 70, 60])
    steps = lengths.sum()
    return {"X": random.integers(-700, 700, (steps, 3)).astype(np.int16), "y": random.integers(0, 13, steps),
            "offsets": np.concatenate([[0], np.cumsum(lengths)]), "exp_user": np.array([[1, 1], [2, 2], [3, 23], [4, 24]])}


def images(random):
    return {f"{name}_{part}": value for part in ("train", "test") for name, value in
            (("X", random.integers(0, 256, (6, 8, 8)).astype(np.uint8)), ("y", np.arange(6)))}


def run(name, tmp_path, *more):
    main = importlib.import_module(f"bench.experiments.{name}").main
    main([*map(str, more), "--quick", "--output", str(tmp_path)])
    assert (tmp_path / f"experiment-{name}.png").read_bytes()[:4] == b"\x89PNG"
    return json.loads((tmp_path / f"experiment-{name}.json").read_text())


@pytest.mark.parametrize("made", [worms, human_activity, long_activity, images], ids=lambda made: made.__name__)
def test_an_experiment_on_data_runs_to_its_end(made, tmp_path, capsys):
    path = tmp_path / "data.npz"
    np.savez(path, **made(np.random.default_rng(3)))
    result = run(made.__name__, tmp_path, path)
    assert result["machine"]["cores"] and result["arguments"]["quick"]
    for history in result["runs"].values():
        assert len(history["loss"]) == result["arguments"]["epochs"]
        assert all(0 < loss < 10 for loss in history["loss"])
    assert capsys.readouterr().out.count("| --- |") >= 1


def test_solvers_learn_the_same_side_by_side(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, **worms(np.random.default_rng(3)))
    losses = [history["loss"] for history in run("worms", tmp_path, path)["runs"].values()]
    assert len(losses) == 3
    np.testing.assert_allclose(losses[1:], [losses[0]] * 2, rtol=1e-5)


def test_solvers_are_tried_while_a_network_learns_to_remember(tmp_path):
    result = run("long_memory", tmp_path, "--cells", "gru", "--tasks", "copy")
    tries = result["tries"]["copy gru T=40"]
    assert [each["epoch"] for each in tries] == [0, 1, 2]
    assert all(each["deer"]["iterations"] >= 1 and 0 <= each["deer"]["fallbacks"] <= 1 for each in tries)


def test_an_interrupted_experiment_goes_on_from_its_checkpoints(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, **images(np.random.default_rng(3)))
    first = run("images", tmp_path, path, "--checkpoints", tmp_path / "kept")
    files = list((tmp_path / "kept").iterdir())
    assert len(files) == 1
    again = run("images", tmp_path, path, "--checkpoints", tmp_path / "kept")
    assert again["runs"]["seed 3"] == first["runs"]["seed 3"]


def test_another_file_is_refused_in_a_sentence(tmp_path):
    path, flat = tmp_path / "data.npz", worms(np.random.default_rng(3)) | {"X": np.ones((9, 70))}
    for arrays, message in (({}, "data.npz must be an .npz file with arrays X, y, split: .*No such file"),
                            ({"X_train": np.ones(3)}, "with arrays X, y, split: .*X is not a file"),
                            (flat, r"X should have 3 axes, got shape \(9, 70\)")):
        if arrays:
            np.savez(path, **arrays)
        with pytest.raises(SystemExit, match=message):
            importlib.import_module("bench.experiments.worms").main([str(path)])
