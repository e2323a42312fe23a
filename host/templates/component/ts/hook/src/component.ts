// Stops tools whose input contains certain words. Types are removed when the component is built, not checked: an editor does
// that.

// @ts-ignore The gateway brings it.
import { note } from "sallyport:gateway/evidence@{{world}}";

interface Config {
  tools: string[];
  words: string[];
  reason: string;
}

interface ToolCall {
  id: string;
  name: string;
  input: string;
  server?: string | null;
}

// The events and outcomes that this hook knows; wit/hook.wit has the others.
type Event = { tag: "pre-tool-use"; val: ToolCall } | { tag: "other"; val: unknown };
type Outcome = { tag: "proceed" } | { tag: "block"; val: string };

let config: Config;

const isTexts = (value: unknown): value is string[] =>
  Array.isArray(value) && value.every((item) => typeof item === "string");

// Runs before the first event: check what you were given. What is thrown here is shown to the admin, and the hook does not
// become active.
export const configurable = {
  configure(json: string): void {
    const given = JSON.parse(json);
    const unknown = Object.keys(given).find((key) => !["tools", "words", "reason"].includes(key));
    if (unknown != null) throw `unknown key ${unknown}`;
    if (!isTexts(given.tools) || given.tools.length === 0) throw "tools is a list of names of tools";
    if (!isTexts(given.words)) throw "words is a list of texts";
    if (typeof given.reason !== "string") throw "reason is what the user is told";
    config = given;
  },
};

// Runs for every event that component.toml names, each time in a fresh sandbox: nothing is remembered.
export const hookApi = {
  onEvent({ event }: { event: Event }): Outcome {
    if (event.tag !== "pre-tool-use") return { tag: "proceed" };
    const { name, input } = event.val;
    if (config.tools.includes(name) && config.words.some((word) => input.includes(word))) {
      // A note goes to the call's row in the audit trail.
      note({ name: "blocked_tool", value: name });
      return { tag: "block", val: config.reason };
    }
    return { tag: "proceed" };
  },
};
