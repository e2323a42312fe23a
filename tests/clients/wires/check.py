"""Holds the golden cases of providers against software that is not ours: the types of OpenAI's and Google's SDKs, and the validator and the
event stream reader of AWS's. Exits with an error that names each case that does not fit."""

import base64
import json
import pathlib
import sys

from botocore.eventstream import EventStreamBuffer
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.validate import ParamValidator
from google.genai import types as google
from openai.types.chat import completion_create_params
from openai.types.responses import ResponseStreamEvent, response_create_params
from openai.types.responses.input_token_count_params import InputTokenCountParams
from pydantic import TypeAdapter

root = pathlib.Path(sys.argv[1]) / "guest-providers"
wrong, checked = [], {}


def cases(folder):
    for path in sorted((root / folder).glob("*.request.json")):
        name = path.name.removesuffix(".request.json")
        yield name, json.loads(path.read_text()), json.loads((path.parent / f"{name}.response.json").read_text()), path.parent


def check(what, name, test):
    checked[what] = checked.get(what, 0) + 1
    try:
        test()
    except Exception as error:  # what a validator raises is its own
        wrong.append(f"{what} {name}: {str(error)[:400]}")


def known(sent, *shapes):
    keys = set().union(*(shape.__annotations__ for shape in shapes))
    assert set(sent) <= keys, f"unknown: {set(sent) - keys}"


# === OpenAI ===

chat = TypeAdapter(completion_create_params.CompletionCreateParamsStreaming)
responses = TypeAdapter(response_create_params.ResponseCreateParamsStreaming)
counts = TypeAdapter(InputTokenCountParams)
events = TypeAdapter(ResponseStreamEvent)


def openai_chat(sent):
    # What some servers take besides: their own fields are not OpenAI's to know.
    sent = {key: value for key, value in sent.items() if key not in ("top_k",)}
    known(sent, completion_create_params.CompletionCreateParamsBase, completion_create_params.CompletionCreateParamsStreaming)
    chat.validate_python({**sent, "stream": True})


def openai_responses(sent, path):
    if path.endswith("/input_tokens"):
        known(sent, InputTokenCountParams)
        counts.validate_python(sent)
    else:
        known(sent, response_create_params.ResponseCreateParamsBase, response_create_params.ResponseCreateParamsStreaming)
        responses.validate_python({**sent, "stream": True})


for folder in ("openai/golden", "azure/golden"):
    for name, _, response, _ in cases(folder):
        if "sent" in response:
            check(folder, name, lambda: openai_chat(response["sent"]))

# Streams that are meant to be odd.
ODD = {"half-characters", "done-line-and-unknown-events", "reasoning-in-full"}
for name, _, response, folder in cases("openai/golden-responses"):
    if "sent" in response:
        check("openai/golden-responses", name, lambda: openai_responses(response["sent"], response["path"]))
    stream = folder / f"{name}.upstream.sse"
    lines = stream.read_text().splitlines() if stream.exists() and name not in ODD else []
    lines = [line[6:] for line in lines if line.startswith("data: ")]
    # One event alone is that of a case about its request.
    for line in lines if len(lines) > 1 else []:
        check("events of responses", name, lambda: events.validate_json(line))


# === Google ===


def gemini(sent):
    request = sent.get("generateContentRequest", sent)
    readers = {
        "systemInstruction": google.Content,
        "contents": google.Content,
        "tools": google.Tool,
        "toolConfig": google.ToolConfig,
        "generationConfig": google.GenerationConfig,
    }
    for key, value in request.items():
        if key == "model":
            continue
        for one in value if isinstance(value, list) else [value]:
            readers[key].model_validate(one)


def google_answer(text):
    for line in text.splitlines():
        if line.startswith("data: "):
            google.GenerateContentResponse.model_validate_json(line[6:])


for folder, ours in (("gemini/golden", lambda name: True), ("vertex/golden", lambda name: name.startswith("gemini"))):
    for name, _, response, place in cases(folder):
        if "sent" in response and ours(name):
            check(folder, name, lambda: gemini(response["sent"]))
for name, _, _, place in cases("vertex/golden"):
    stream = place / f"{name}.upstream.sse"
    if name.startswith("gemini") and stream.exists():
        check("answers of vertex", name, lambda: google_answer(stream.read_text()))

# === AWS ===

service = ServiceModel(Loader().load_service_model("bedrock-runtime", "service-2"))
blobs = {"bytes", "redactedContent"}


def decoded(value, key=""):
    if isinstance(value, dict):
        return {name: decoded(one, name) for name, one in value.items()}
    if isinstance(value, list):
        return [decoded(one) for one in value]
    return base64.b64decode(value, validate=True) if key in blobs else value


def converse(sent, path):
    operation = "ConverseStream" if path.endswith("converse-stream") else "Converse"
    report = ParamValidator().validate({**decoded(sent), "modelId": "m"}, service.operation_model(operation).input_shape)
    assert not report.has_errors(), report.generate_report()


def event_stream(data, operation):
    buffer = EventStreamBuffer()
    buffer.add_data(data)
    members = service.shape_for(operation).members
    for message in buffer:
        kind = message.headers.get(":event-type") or message.headers.get(":exception-type")
        assert kind in members, f"no member {kind}"


# Streams that are meant to be odd.
ODD_FRAMES = {"unknown-exception", "converse-unknown-event", "anthropic-error-event"}
for name, _, response, place in cases("bedrock/golden"):
    if "sent" in response and name.startswith("converse"):
        check("bedrock converse", name, lambda: converse(response["sent"], response["path"]))
    stream = place / f"{name}.upstream.bin"
    if stream.exists() and name not in ODD_FRAMES:
        operation = "ConverseStreamOutput" if name.startswith("converse") else "ResponseStream"
        check("event streams", name, lambda: event_stream(stream.read_bytes(), operation))

for line in wrong:
    print(line)
print(", ".join(f"{what}: {count}" for what, count in checked.items()))
sys.exit(1 if wrong or min(checked.values()) == 0 else 0)
