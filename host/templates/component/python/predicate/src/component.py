"""Takes long conversations: a route that names this predicate gets them, and leaves the others to the next route."""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports.types import Body, Call

# What every call needs, as `configure` left it.
config: dict = {}


class Configurable(exports.Configurable):
    def configure(self, text: str) -> None:
        """Runs before the first call: check what you were given. What is raised as Err is shown to the admin, and the
        route does not become active."""
        given = json.loads(text)
        unknown = set(given) - {"more_than"}
        if unknown:
            raise Err(f"unknown key {sorted(unknown)[0]}")
        more_than = given.get("more_than", 0)
        if type(more_than) is not int or more_than < 0:
            raise Err("more_than is a number of messages")
        config["more_than"] = more_than


class PredicateApi(exports.PredicateApi):
    def matches(self, call: Call, body: Body) -> bool:
        """Runs for every call whose model the route's pattern matches, each time in a fresh sandbox. `body` is there to
        be read."""
        return call.message_count > config["more_than"]
