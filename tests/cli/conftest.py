import subprocess
import sys
from collections.abc import Callable

import pytest

from avatar3d.cli import main


@pytest.fixture
def run_here(tmp_path, monkeypatch, capfd) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`avatar3d ARGUMENTS...` inside this process, which is quicker than a new one."""

    def command(*arguments: object) -> subprocess.CompletedProcess[str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["avatar3d", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main()
        said = capfd.readouterr()
        return subprocess.CompletedProcess(sys.argv, stopped.value.code, said.out, said.err)

    return command
