"""Energy is what a counter says, over its end too; without a counter it is unknown."""

from __future__ import annotations

import sys

from streamingvlm.base.paths import repository_root

sys.path.insert(0, str(repository_root() / "bench"))

import energy


def test_a_counter_that_starts_anew_and_cores_that_are_part_of_their_package(tmp_path):
    for name, now in (("intel-rapl:0", 9_000_000), ("intel-rapl:1", 1_000_000), ("intel-rapl:0:0", 5_000_000)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(f"{now}\n")
        (tmp_path / name / "max_energy_range_uj").write_text("10000000\n")
    with energy.metered(tmp_path) as spent:
        (tmp_path / "intel-rapl:0" / "energy_uj").write_text("500000\n")  # 1.5 J on, past its range
        (tmp_path / "intel-rapl:1" / "energy_uj").write_text("3000000\n")
        (tmp_path / "intel-rapl:0:0" / "energy_uj").write_text("9000000\n")
    assert spent.of(7) == {"joules": 3.5, "joules_each": 0.5, "source": "RAPL, whole packages"}


def test_without_a_counter_it_is_unknown_and_says_why(tmp_path):
    with energy.metered(tmp_path) as spent:
        pass
    told = spent.of(10)
    assert told["joules"] is None and told["joules_each"] is None and told["source"].startswith("unknown: no RAPL counter")
