"""What a user of the Python SDK does, through the gateway: exits with an error where anything is not as with the vendor."""

import sys

import anthropic

url, token = sys.argv[1:3]
client = anthropic.Anthropic(base_url=url, auth_token=token, max_retries=0, timeout=30)
question = {"model": "claude-sonnet-4-5", "max_tokens": 64, "messages": [{"role": "user", "content": "Hello"}]}

message = client.messages.create(**question)
assert message.content[0].text == "Hello from upstream.", message
assert message.usage.output_tokens == 7, message.usage

with client.messages.stream(**question) as stream:
    assert "".join(stream.text_stream) == "Hello from upstream."
    assert stream.get_final_message().stop_reason == "end_turn"

translated = client.messages.create(**{**question, "model": "gpt-5"})
assert translated.content[0].text == "Hello from upstream.", translated
with client.messages.stream(**{**question, "model": "gpt-5"}) as stream:
    assert "".join(stream.text_stream) == "Hello from upstream."

counted = client.messages.count_tokens(model=question["model"], messages=question["messages"])
assert counted.input_tokens > 0, counted

listed = [model.id for model in client.models.list(limit=2)]
assert listed == ["claude-sonnet-4-5", "claude-opus-4-5", "claude-haiku-4-5"], listed

try:
    anthropic.Anthropic(base_url=url, auth_token="wrong", max_retries=0).messages.create(**question)
except anthropic.AuthenticationError as error:
    assert error.body["error"]["type"] == "authentication_error", error.body
else:
    sys.exit("a wrong token was accepted")

by_key = anthropic.Anthropic(base_url=url, api_key=token, max_retries=0)
assert by_key.messages.create(**question).content[0].text == "Hello from upstream."
