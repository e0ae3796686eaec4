"""The README and the pages in docs/ keep their word: Python blocks run, commands are those of CI, links lead somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = ["README.md", "CONTRIBUTING.md", *(str(page.relative_to(ROOT)) for page in sorted(ROOT.glob("docs/**/*.md")))]


def blocks(page):
    return re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)])
def test_python_blocks_run(page):
    """The blocks of one page are one program."""
    names = {"__name__": page}
    for block in blocks(page):
        exec(compile(block, page, "exec"), names)
    if page == "README.md":
        assert bool(names["sol"].converged)
        assert abs(names["sol"].states - names["loop"].states).max() < 1e-5


def test_the_examples_are_short():
    assert all(len([line for line in example.splitlines() if line.strip()]) <= 15 for example in blocks("README.md"))


def test_commands_are_there():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "    pip install . && python -m pitsolve demo\n" in text
    assert '    pip install ".[test]" && pytest\n' in text


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text(encoding="utf-8")):
        assert ((ROOT / page).parent / target).exists(), target
