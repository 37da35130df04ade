"""Sampling and probing say how far they are; whoever listens can show it, or end the work."""

import pytest
import torch

from atmanrl import pulse
from atmanrl.callbacks import UpdateProgress, progress
from atmanrl.probe import AdaptiveSolver, MaskProbe, PaperSolver
from atmanrl.probe.target import Target
from atmanrl.rollouts import HFSampler, SamplingOptions


@pytest.fixture
def beats():
    heard = []
    listener = lambda *beat: heard.append(beat)  # noqa: E731
    pulse.listen(listener)
    yield heard
    pulse.stop_listening(listener)


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_sampling_beats(tiny_policy, beats, cache):
    HFSampler(cache).sample(tiny_policy, [[5, 6, 7]], torch.rand(1, 2, 40), SamplingOptions(40))
    assert len(beats) > 1 and {(work, total) for work, _, total in beats} == {("sampling", 40)}
    assert [done for _, done, _ in beats] == sorted(done for _, done, _ in beats)


@pytest.mark.parametrize("solver", [PaperSolver(steps=5), AdaptiveSolver(steps=5, first_interval=1)])
def test_probing_beats(tiny_policy, beats, solver):
    MaskProbe(solver=solver).solve_targets(tiny_policy, [Target((5, 6), (7, 8, 9), (10,), (11,))])
    assert ("probing", 0, 5) in beats and all(work == "probing" and done < 5 for work, done, _ in beats)


def test_a_listener_ends_the_work(tiny_policy):
    def end(*beat):
        raise KeyboardInterrupt

    pulse.listen(end)
    try:
        with pytest.raises(KeyboardInterrupt):
            HFSampler().sample(tiny_policy, [[5, 6, 7]], torch.rand(1, 2, 4), SamplingOptions(4))
    finally:
        pulse.stop_listening(end)


def test_what_is_changed_as_a_whole_is_marked():
    assert not pulse.is_changing()
    with pulse.changing(), pulse.changing():
        assert pulse.is_changing()
    assert not pulse.is_changing()


def test_a_long_update_has_a_bar_of_its_own(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    bar = UpdateProgress()
    bar._start("train", 10, 0)
    try:
        pulse.beat("sampling", 1, 64)
        assert bar.work is None
        now[0] = 61.0
        pulse.beat("probing", 30, 200)
        assert bar.work is not None and "probing 30/200" in capsys.readouterr().out
        bar._advance(1, "")
        assert bar.work is None
    finally:
        bar._stop()
    pulse.beat("probing", 31, 200)
    assert "31/200" not in capsys.readouterr().out
