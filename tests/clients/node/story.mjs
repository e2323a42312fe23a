// What a user of the TypeScript SDK does, through the gateway: throws where anything is not as with the vendor.
import assert from "node:assert/strict";
import Anthropic from "@anthropic-ai/sdk";

const [url, token] = process.argv.slice(2);
const client = new Anthropic({ baseURL: url, authToken: token, apiKey: null, maxRetries: 0, timeout: 30_000 });
const question = { model: "claude-sonnet-4-5", max_tokens: 64, messages: [{ role: "user", content: "Hello" }] };

const message = await client.messages.create(question);
assert.equal(message.content[0].text, "Hello from upstream.");
assert.equal(message.usage.output_tokens, 7);

for (const model of ["claude-sonnet-4-5", "gpt-5"]) {
  const final = await client.messages.stream({ ...question, model }).finalMessage();
  assert.equal(final.content[0].text, "Hello from upstream.");
  assert.equal(final.stop_reason, "end_turn");
}

assert.ok((await client.messages.countTokens({ model: question.model, messages: question.messages })).input_tokens > 0);

const listed = [];
for await (const model of client.models.list({ limit: 2 })) listed.push(model.id);
assert.deepEqual(listed, ["claude-sonnet-4-5", "claude-opus-4-5", "claude-haiku-4-5"]);

const stranger = new Anthropic({ baseURL: url, authToken: "wrong", apiKey: null, maxRetries: 0 });
await assert.rejects(stranger.messages.create(question), (error) => error.status === 401);
