"""What is configured: nothing. The calls are in provider_api.py, which is named like the interface that it implements."""

import json

from componentize_py_types import Err
from wit_world import exports


class Configurable(exports.Configurable):
    def configure(self, config: str) -> None:
        """There is nothing to configure."""
        unknown = sorted(json.loads(config))
        if unknown:
            raise Err(f"unknown key {unknown[0]}")
