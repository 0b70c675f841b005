"""As many more examples as `--attacks` draws may take as much longer."""

from pathlib import Path

import attack
import pytest


def pytest_collection_modifyitems(config, items):
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(float(config.getini("timeout")) * attack.times))
