"""Free memory within the limits of control groups."""

import pytest

from diffusion_framework.data.loading.memory import free_memory


def test_free_memory_respects_the_limits_of_all_control_groups(tmp_path):
    def limited(folder, limit, usage, reclaimable):
        folder = tmp_path / folder
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in (
            (files[0], limit),
            (files[1], usage),
            ("memory.stat", f"anon 5\n{files[2]} {reclaimable}"),
        ):
            (folder / name).write_text(f"{text}\n")

    groups = tmp_path / "groups"
    groups.write_text("4:cpu:/job\n3:memory:/job/step\n0::/slice/job/step\n")
    unlimited = free_memory(tmp_path / "none", groups)
    assert unlimited == pytest.approx(free_memory(tmp_path, tmp_path / "none"), rel=0.2)
    files = "memory.max", "memory.current", "inactive_file"
    limited("slice/job/step", "max", 800, 300)
    assert free_memory(tmp_path, groups) > 10_000
    limited("slice/job", 10_000, 1000, 400)
    assert free_memory(tmp_path, groups) == 9400
    files = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
    limited("memory", 2**63 - 4096, 10_000, 0)
    assert free_memory(tmp_path, groups) == 9400
    limited("memory/job/step", 5000, 1000, 200)
    assert free_memory(tmp_path, groups) == 4200
