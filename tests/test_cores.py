"""Which cores a process may use, and how several divide them."""

import math
import os

import pytest

from atmanrl import cores


def cgroup(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, math.inf),
        ({"cpu.max": "max 100000\n"}, math.inf),
        ({"cpu.max": "250000 100000\n"}, 2.5),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, math.inf),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4.0),
    ],
)
def test_a_containers_quota_is_read_in_both_versions(tmp_path, files, quota):
    assert cores.cpu_quota(cgroup(tmp_path, files)) == quota


def test_cores_are_those_of_affinity_quota_and_topology(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3, 8, 9}, raising=False)
    monkeypatch.setattr(cores, "CGROUPS", tmp_path)
    monkeypatch.setattr(cores, "TOPOLOGY", tmp_path / "cpu")
    assert cores.usable_cores() == 6  # nothing tells of hardware threads
    siblings = {
        f"cpu/cpu{cpu}/topology/thread_siblings_list": f"{cpu % 8},{cpu % 8 + 8}\n" for cpu in (0, 1, 2, 3, 8, 9)
    }
    cgroup(tmp_path, siblings)
    assert cores.usable_cores() == 4  # 8 and 9 are the second threads of 0 and 1
    cgroup(tmp_path, {"cpu.max": "250000 100000"})
    assert cores.usable_cores() == 2
    cgroup(tmp_path, {"cpu.max": "50000 100000"})
    assert cores.usable_cores() == 1


def test_processes_share_the_cores_unless_the_user_has_chosen(monkeypatch):
    monkeypatch.setattr(cores, "usable_cores", lambda: 7)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert "OMP_NUM_THREADS" not in cores.shared_environment(1)
    assert [cores.shared_environment(n)["OMP_NUM_THREADS"] for n in (2, 3, 7, 20)] == ["3", "2", "1", "1"]
    monkeypatch.setenv("OMP_NUM_THREADS", "6")
    assert (
        cores.shared_environment(3)["OMP_NUM_THREADS"] == "6"
        and cores.shared_environment(3)["PATH"] == os.environ["PATH"]
    )
