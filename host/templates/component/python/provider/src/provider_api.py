"""Talks to an upstream that speaks the Messages API itself: the client's bytes go up, the answer comes down."""

from componentize_py_types import Err
from wit_world.exports import provider_api
from wit_world.exports.provider_api import (
    Auth_Header,
    Failure,
    Input,
    Input_Failed,
    Input_Head,
    Input_Start,
    MessagesRequest,
    Output,
    Output_Forward,
    Output_Send,
    RequestBody_Original,
    UpstreamRequest,
)
from wit_world.imports.types import Attribute


class Exchange(provider_api.Exchange):
    """One client call: a state machine that is fed what happened and says what to do. The gateway does all input and
    output, and adds address and credential; the provider sees neither."""

    def __init__(self, request: MessagesRequest) -> None:
        self.target = request.target

    def next(self, input: Input) -> list[Output]:
        if isinstance(input, Input_Start):
            headers = [Attribute("content-type", "application/json")]
            body, auth = RequestBody_Original(), Auth_Header("x-api-key")
            return [Output_Send(UpstreamRequest("POST", self.target, headers, body, auth))]
        if isinstance(input, Input_Head) and input.value.status == 503:
            raise Err(Failure(529, "overloaded_error", "the upstream has no room", True, None))
        if isinstance(input, Input_Head):
            # From here on the gateway pumps the bytes, and the provider is done.
            return [Output_Forward(input.value)]
        if isinstance(input, Input_Failed):
            raise Err(Failure(502, "api_error", "the upstream did not answer", True, None))
        raise Err(Failure(502, "api_error", "the provider was given an event that it did not wait for", False, None))
