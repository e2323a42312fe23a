"""Stops tools whose input contains certain words."""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.hook_api import Event_PreToolUse, Occurrence, Outcome, Outcome_Block, Outcome_Proceed
from wit_world.imports.evidence import note
from wit_world.imports.types import Attribute

settings: dict = {}


class Configurable(exports.Configurable):
    def configure(self, config: str) -> None:
        """Runs before the first event: check what you were given. What is raised as Err is shown to the admin, and the
        hook does not become active."""
        given = json.loads(config)
        unknown = set(given) - {"tools", "words", "reason"}
        if unknown:
            raise Err(f"unknown key {sorted(unknown)[0]}")
        if not is_texts(given.get("tools")) or not given["tools"]:
            raise Err("tools is a list of names of tools")
        if not is_texts(given.get("words")):
            raise Err("words is a list of texts")
        if not isinstance(given.get("reason"), str):
            raise Err("reason is what the user is told")
        settings.update(given)


class HookApi(exports.HookApi):
    def on_event(self, what: Occurrence) -> Outcome:
        """Runs for every event that component.toml names, each time in a fresh sandbox: nothing is remembered."""
        if not isinstance(what.event, Event_PreToolUse):
            return Outcome_Proceed()
        call = what.event.value
        if call.name in settings["tools"] and any(word in call.input for word in settings["words"]):
            # A note goes to the call's row in the audit trail.
            note(Attribute("blocked_tool", call.name))
            return Outcome_Block(settings["reason"])
        return Outcome_Proceed()


def is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
