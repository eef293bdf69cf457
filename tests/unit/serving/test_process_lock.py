import os
import stat

import pytest

from app.platform.errors import ConfigurationError
from app.serving.process_lock import locked_data_directory


def test_a_data_directory_serves_one_at_a_time(tmp_path):
    root = tmp_path / "deep" / "data"
    held = pytest.raises(ConfigurationError, match=f"process {os.getpid()}")
    with locked_data_directory(root), held, locked_data_directory(root):
        pass
    with locked_data_directory(root):
        assert stat.S_IMODE(root.stat().st_mode) == 0o700


def test_a_data_directory_that_cannot_be_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot be used"), locked_data_directory(tmp_path / "file"):
        pass
