"""What is found out before the first cent: key, models, and room on the disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchgen.errors import SettingsError
from batchgen.session.preflight import check_space
from tests.support import rig


def test_refused_key_is_reported_before_the_first_payment(
    tmp_path: Path,
) -> None:
    with rig.endpoint(tmp_path / "state", "--key", "sk-the-right-one") as served:
        path = rig.manifest(tmp_path, served.base_url, ["a"])
        refused = rig.batchgen("run", path, cwd=tmp_path, code=3)
        assert "the endpoint refuses the key; nothing was sent" in refused.stderr
        assert served.judge("stats")["posts"] == 0


@pytest.mark.fault("A04")
def test_missing_model_is_reported_with_the_nearest_name(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path / "state", "--fast-images") as served:
        path = rig.manifest(tmp_path, served.base_url, ["a"])
        text = path.read_text(encoding="utf-8")
        path.write_text(
            text.replace("options:", "model: gpt-image-22\noptions:").replace(
                "name: local,", "name: local, price: '0.04',"
            ),
            encoding="utf-8",
        )
        refused = rig.batchgen("run", path, cwd=tmp_path, code=3)
        assert "does not see the model 'gpt-image-22'" in refused.stderr
        assert "did you mean 'gpt-image-2'?" in refused.stderr
        assert served.judge("stats")["posts"] == 0
        rig.batchgen("run", path, "--yes", cwd=tmp_path, code=None)
        assert served.judge("stats")["posts"] == 1


@pytest.mark.fault("D02")
def test_a_disk_without_room_is_found_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_space(tmp_path / "not" / "there" / "yet", 8)
    monkeypatch.setattr("batchgen.system.disk_space.KEPT_FREE_BYTES", 1 << 60)
    with pytest.raises(SettingsError, match=r"MiB free, .* nothing was sent"):
        check_space(tmp_path / "not" / "there" / "yet", 8)


def test_unusable_bucket_of_a_reference_is_reported(served: rig.Endpoint, tmp_path: Path) -> None:
    extra = "images: ['s3://shop/mug.png']\n"
    path = rig.manifest(tmp_path, served.base_url, ["one", "two"], extra=extra)
    sent = served.judge("stats")["posts"]
    shown = rig.run_changed("import sys\nsys.modules['obstore'] = None", path, code=2)
    assert "s3://shop: needs obstore, which is not installed" in shown
    assert "Traceback" not in shown
    assert served.judge("stats")["posts"] == sent
    assert not (tmp_path / "batchgen.db").exists()
