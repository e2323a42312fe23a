// Stops tools whose input contains certain words.

import { note } from "sallyport:gateway/evidence@{{world}}";

let config;

// Runs before the first event: check what you were given. What is thrown here is shown to the admin, and the hook does not
// become active.
export const configurable = {
  configure(json) {
    const given = JSON.parse(json);
    const unknown = Object.keys(given).find((key) => !["tools", "words", "reason"].includes(key));
    if (unknown != null) throw `unknown key ${unknown}`;
    const isTexts = (value) => Array.isArray(value) && value.every((item) => typeof item === "string");
    if (!isTexts(given.tools) || given.tools.length === 0) throw "tools is a list of names of tools";
    if (!isTexts(given.words)) throw "words is a list of texts";
    if (typeof given.reason !== "string") throw "reason is what the user is told";
    config = given;
  },
};

// Runs for every event that component.toml names, each time in a fresh sandbox: nothing is remembered.
export const hookApi = {
  onEvent({ event }) {
    // Variants are { tag, val }, names are in camel case, and an option without a value is null or undefined.
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
