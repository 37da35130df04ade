"""An update's peak memory by phase against `atmanrl plan`, by the checklist's own step."""

from dataclasses import replace

import pytest

pytestmark = pytest.mark.gpu
MEDIUM = {
    "vocab_size": 32_000, "hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 8,
    "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 128, "max_position_embeddings": 1024,
}  # fmt: skip


def test_peak_memory_is_within_a_third_of_the_plan(device, tmp_path):
    from experiments.gpu.record import Record
    from experiments.gpu.scene import Scene
    from experiments.gpu.update import fit

    scene = Scene.of(device.type, True, 989.0, 3.35)
    if scene.cuda:
        scene = replace(scene, shape=MEDIUM, queries=4, group=4, prompt=120, completion=200)
    record = Record(tmp_path / "record.json")
    fit(scene, record)
    assert not record.errors
    found = record.metrics["against the plan"]
    for name in ("weights_gib", "optimizer_gib"):
        assert found[name]["predicted/measured"] == pytest.approx(1, abs=0.02)
    for phase in ("sampling", "probing", "update"):
        ratio = found[f"peak_of_{phase}_gib"]["predicted/measured"]
        assert ratio == pytest.approx(1, abs=0.34) if scene.cuda else ratio is None
