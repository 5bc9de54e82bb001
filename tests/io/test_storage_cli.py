"""URLs where commands take files."""

import pytest
from typer.testing import CliRunner

from avatar3d.cli.commands import app
from avatar3d.cli.sources import default_output, local_source
from avatar3d.errors import UserError


def test_commands_take_urls_of_what_was_published(bucket, tmp_path):
    (tmp_path / "me.csv").write_text("not a motion")
    runner = CliRunner()
    url = f"{bucket}/library/me.csv"
    assert runner.invoke(app, ["storage", "publish", str(tmp_path / "me.csv"), url]).exit_code == 0
    listed = runner.invoke(app, ["storage", "list", f"{bucket}/library"]).output
    assert listed.split()[-1] == "me.csv"
    copy = local_source(url)
    assert copy.read_text() == "not a motion"
    assert default_output(copy, ".json").parent.name == "", "not into the cache"
    result = runner.invoke(app, ["export", url, "-o", str(tmp_path / "x.json")])
    assert isinstance(result.exception, UserError)
    assert "me.csv" in str(result.exception), "the command got the file, and says what is wrong"
    with pytest.raises(UserError, match="Nothing is published"):
        local_source(f"{bucket}/library/you.csv")
    forgotten = runner.invoke(app, ["forget", url])
    assert "avatar3d storage remove" in str(forgotten.exception)
    assert runner.invoke(app, ["storage", "remove", url]).exit_code == 0
    swept = runner.invoke(app, ["storage", "sweep", f"{bucket}/library", "--grace", "0"])
    assert swept.output.startswith("removed 1 objects")
