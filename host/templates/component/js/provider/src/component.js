// Talks to an upstream that speaks the Messages API itself: the client's bytes go up, the answer comes down.

// There is nothing to configure.
export const configurable = {
  configure(json) {
    const unknown = Object.keys(JSON.parse(json))[0];
    if (unknown != null) throw `unknown key ${unknown}`;
  },
};

// What ends the call with an error of the Messages API.
const fail = (status, errorType, message, retryable) => [
  { tag: "fail", val: { status, errorType, message, retryable } },
];

// One client call, in a fresh sandbox: a state machine that is told what happened and says what to do. The gateway does all input
// and output, and adds address and credential; the provider sees neither.
export const providerApi = {
  // Runs once, first.
  begin(request) {
    return [
      {
        tag: "send",
        val: {
          method: "POST",
          path: request.target,
          headers: [{ name: "content-type", value: "application/json" }],
          body: { tag: "original" },
          auth: { tag: "credential" },
        },
      },
    ];
  },

  // Runs whenever something happened, with all of it: an answer's head often comes together with its first bytes.
  next(inputs) {
    const [first] = inputs;
    switch (first?.tag) {
      case "head":
        if (first.val.status === 503) return fail(529, "overloaded_error", "the upstream has no room", true);
        // From here on the gateway pumps the bytes, and the provider is done.
        return [{ tag: "forward", val: first.val }];
      case "failed":
        return fail(502, "api_error", "the upstream did not answer", true);
      default:
        return fail(502, "api_error", "the provider was told of something that it did not wait for", false);
    }
  },
};
