"""What every command owes to someone who made a mistake."""

from patchmosaic.cli import main


def assert_one_clear_line(folder, capsys, arguments, hint):
    """The command fails with one line that holds the hint, and leaves ``folder`` as it was."""
    before = sorted(folder.rglob("*"))
    try:
        status = main(arguments)
    except SystemExit as stop:
        status = stop.code
    error = capsys.readouterr().err
    assert status not in (0, None)
    assert len(error.strip().splitlines()) == 1, error
    assert hint in error
    assert "Traceback" not in error
    assert sorted(folder.rglob("*")) == before, "a mistake leaves nothing behind"
