"""Allows models by how their names begin."""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.policy_api import Settlement, Verdict, Verdict_Allow, Verdict_Deny
from wit_world.imports.evidence import note
from wit_world.imports.types import Attribute, Body, Call, Refusal, RefusalKind_NotEntitled

models: list = []


class Configurable(exports.Configurable):
    def configure(self, config: str) -> None:
        """Runs before the first call: check what you were given. What is raised as Err is shown to the admin, and the
        policy does not become active."""
        given = json.loads(config)
        unknown = set(given) - {"models"}
        if unknown:
            raise Err(f"unknown key {sorted(unknown)[0]}")
        starts = given.get("models")
        if not isinstance(starts, list) or not starts or not all(isinstance(start, str) for start in starts):
            raise Err("models is a list of how names of models begin")
        models[:] = starts


class PolicyApi(exports.PolicyApi):
    def check(self, call: Call, body: Body) -> Verdict:
        """Runs for every call, each time in a fresh sandbox. `body` is there to be read."""
        if "admin" in call.principal.roles or call.model.startswith(tuple(models)):
            return Verdict_Allow()
        note(Attribute("refused_model", call.model))
        reason = f"the model {call.model} is not for you"
        return Verdict_Deny(Refusal("model_not_listed", reason, None, RefusalKind_NotEntitled()))

    def settle(self, call: Call, spent: Settlement) -> None:
        """Runs after the call, where component.toml asks for the capability "settle"."""
