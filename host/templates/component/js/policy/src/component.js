// Allows models by how their names begin.

import { note } from "sallyport:gateway/evidence@{{world}}";

let models;

// Runs before the first call: check what you were given. What is thrown here is shown to the admin, and the policy does not
// become active.
export const configurable = {
  configure(json) {
    const given = JSON.parse(json);
    const unknown = Object.keys(given).find((key) => key !== "models");
    if (unknown != null) throw `unknown key ${unknown}`;
    const isTexts = (value) => Array.isArray(value) && value.every((item) => typeof item === "string");
    if (!isTexts(given.models) || given.models.length === 0) throw "models is a list of how names of models begin";
    models = given.models;
  },
};

export const policyApi = {
  // Runs for every call, each time in a fresh sandbox. `body` is there to be read: `body.texts()`, `body.read(offset, len)`.
  check(call, body) {
    // Variants are { tag, val }, names are in camel case, and an option without a value is null or undefined.
    if (call.principal.roles.includes("admin") || models.some((start) => call.model.startsWith(start))) {
      return { tag: "allow" };
    }
    // A note goes to the call's row in the audit trail.
    note({ name: "refused_model", value: call.model });
    const reason = `the model ${call.model} is not for you`;
    return { tag: "deny", val: { kind: { tag: "not-entitled" }, code: "model_not_listed", reason } };
  },

  // Runs after the call, where component.toml asks for the capability "settle".
  settle(call, spent) {},
};
