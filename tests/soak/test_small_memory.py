"""Half a gigabyte of batches is in flight, and there are 64 MB of shared memory with a name."""

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import flowcore as fc

BATCHES = 60
SIZE = 10_000_000  # bytes of one batch
AHEAD = 50  # batches, so 500 MB

pytestmark = [pytest.mark.usefixtures("no_leaks"), pytest.mark.timeout(300)]

# Runs in a namespace of its own, where /dev/shm is small: nobody else sees that.
PROGRAM = """
    import os
    import test_small_memory as test
    statistics = os.statvfs("/dev/shm")
    assert statistics.f_blocks * statistics.f_frsize == 64 << 20
    shared = test.check(test.half_a_gigabyte())
    print(shared, "of", test.BATCHES, "batches were shared")
    assert shared == test.BATCHES
"""


class Wide(fc.Batch):
    @fc.action
    def fill(self):
        self.data = self.empty(SIZE, np.uint8)
        self.data[...] = self.number
        return self


def half_a_gigabyte(**options):
    return (
        fc.Dataset(BATCHES, Wide)
        .p.fill()
        .gen_batch(1, executor="processes", num_workers=2, prefetch=AHEAD, **options)
    )


def check(run, name="flowcore-batches"):
    """Keep 50 batches at a time, look at each; return how many are in memory called ``name``."""
    kept, shared = [], 0
    for number, batch in enumerate(run):
        shared += is_shared(batch.data, name)
        kept.append(batch)
        del batch
        if len(kept) == AHEAD or number == BATCHES - 1:
            assert all((one.data == one.number).all() for one in kept)
            kept.clear()
    assert number == BATCHES - 1
    return shared


def is_shared(array, name):
    """Return whether an array is in memory that is mapped from a file, by its name."""
    address = array.ctypes.data
    with open("/proc/self/maps") as maps:
        for line in maps:
            first, last = (int(bound, 16) for bound in line.split()[0].split("-"))
            if first <= address < last:
                return name in line
    return False


def test_a_small_dev_shm_limits_nothing():
    if subprocess.run(
        ["unshare", "-m", "mount", "-t", "tmpfs", "-o", "size=64m", "flowcore", "/dev/shm"],
        capture_output=True,
        check=False,
    ).returncode:
        pytest.skip("it takes the right to make a namespace and mount in it")
    mount = 'mount -t tmpfs -o size=64m flowcore /dev/shm && exec "$0" -c "$1"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount, sys.executable, textwrap.dedent(PROGRAM)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"{BATCHES} of {BATCHES}" in done.stdout


def test_a_small_folder_is_filled_and_what_is_beyond_is_copied(tmp_path, caplog):
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "flowcore", tmp_path]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("it takes the right to mount a file system")
    try:
        shared = check(half_a_gigabyte(shared_memory=tmp_path), str(tmp_path))
    finally:
        subprocess.run(["umount", "--lazy", tmp_path], check=True)
    assert 0 < shared * SIZE < BATCHES * SIZE
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 1
    assert "bytes of shared memory" in warnings[0]
