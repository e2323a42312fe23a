"""Talks to an upstream that speaks the Messages API itself: the client's bytes go up, the answer comes down."""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.provider_api import (
    Auth_Credential,
    Failure,
    Input,
    Input_Failed,
    Input_Head,
    MessagesRequest,
    Output,
    Output_Fail,
    Output_Forward,
    Output_Send,
    RequestBody_Original,
    UpstreamRequest,
)
from wit_world.imports.types import Attribute


class Configurable(exports.Configurable):
    def configure(self, config: str) -> None:
        """There is nothing to configure."""
        unknown = sorted(json.loads(config))
        if unknown:
            raise Err(f"unknown key {unknown[0]}")


def fail(status: int, error_type: str, message: str, retryable: bool) -> list[Output]:
    """Ends the call with an error of the Messages API."""
    return [Output_Fail(Failure(status, error_type, message, retryable, None))]


class ProviderApi(exports.ProviderApi):
    """One client call, in a fresh sandbox: a state machine that is told what happened and says what to do. The gateway does
    all input and output, and adds address and credential; the provider sees neither."""

    def begin(self, request: MessagesRequest) -> list[Output]:
        """Runs once, first."""
        headers = [Attribute("content-type", "application/json")]
        body, auth = RequestBody_Original(), Auth_Credential()
        return [Output_Send(UpstreamRequest("POST", request.target, headers, body, auth))]

    def next(self, inputs: list[Input]) -> list[Output]:
        """Runs whenever something happened, with all of it: an answer's head often comes together with its first bytes."""
        first = inputs[0] if inputs else None
        if isinstance(first, Input_Head) and first.value.status == 503:
            return fail(529, "overloaded_error", "the upstream has no room", True)
        if isinstance(first, Input_Head):
            # From here on the gateway pumps the bytes, and the provider is done.
            return [Output_Forward(first.value)]
        if isinstance(first, Input_Failed):
            return fail(502, "api_error", "the upstream did not answer", True)
        return fail(502, "api_error", "the provider was told of something that it did not wait for", False)
