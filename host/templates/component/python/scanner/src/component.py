"""Finds words that must not leave the house. A scanner imports nothing: the same text must give the same findings."""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.scanner_api import Action_Deny, Finding, TextKind

words: list = []


class Configurable(exports.Configurable):
    def configure(self, config: str) -> None:
        """Runs before the first text: check what you were given. What is raised as Err is shown to the admin, and the
        scanner does not become active."""
        given = json.loads(config)
        unknown = set(given) - {"words"}
        if unknown:
            raise Err(f"unknown key {sorted(unknown)[0]}")
        texts = given.get("words")
        if not isinstance(texts, list) or not all(isinstance(text, str) and text for text in texts):
            raise Err("words is a list of texts, none of them empty")
        words[:] = [text.encode() for text in texts]


class ScannerApi(exports.ScannerApi):
    def scan(self, kind: TextKind, text: str) -> list[Finding]:
        """Runs for every text that the gateway has not seen yet. Findings are told in bytes."""
        data = text.encode()
        findings = []
        for word in words:
            start = data.find(word)
            while start != -1:
                end = start + len(word)
                findings.append(Finding("word", Action_Deny(), start, end, ""))
                start = data.find(word, end)
        return findings
