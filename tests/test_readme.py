"""The README's Python blocks run as they stand, in order."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_every_python_block_runs(tmp_path, monkeypatch, capsys):
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.S)
    assert len(blocks) >= 6
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)
    assert "co-smoothing" in capsys.readouterr().out
    assert (tmp_path / "runs/readme/best").is_dir()


def test_the_commands_that_ci_runs_are_marked():
    marks = re.findall(r"<!-- ci: (\w+) -->\n```bash\n(.*)\n```", README.read_text())
    assert [name for name, _ in marks] == ["demo", "tests"]
