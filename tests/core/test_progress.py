"""``progress=True``: one line on the standard error that says how far the run is."""

import pytest

import flowcore as fc


@pytest.mark.parametrize("prefetch", [0, 2])
def test_the_line_ends_with_all_that_was_done(capfd, prefetch):
    fc.Dataset(10).p.run(3, n_epochs=2, prefetch=prefetch, progress=True)
    errors = capfd.readouterr().err
    assert errors.endswith("\n")
    assert "8/8 batches, 2 epochs" in errors.rpartition("\r")[2]


def test_a_run_without_an_end_has_no_total(capfd):
    with fc.Dataset(10).p.gen_batch(5, n_epochs=None, progress=True) as run:
        next(run)
    assert "1 batches, 0 epochs" in capfd.readouterr().err


def test_without_it_nothing_is_written(capfd):
    fc.Dataset(10).p.run(3)
    assert capfd.readouterr() == ("", "")


@pytest.mark.timeout(10)
@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_standard_error_that_nobody_reads_does_not_hang_the_end(monkeypatch, prefetch):
    class Broken:
        def write(self, text):
            if text.endswith("\n"):
                raise BrokenPipeError

        def flush(self):
            pass

    monkeypatch.setattr("sys.stderr", Broken())
    assert fc.Dataset(10).p.run(3, prefetch=prefetch, progress=True).batches == 4
