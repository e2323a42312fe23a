// Talks to an upstream that speaks the Messages API itself: the client's bytes go up, the answer comes down.

// There is nothing to configure.
export const configurable = {
  configure(json) {
    const unknown = Object.keys(JSON.parse(json))[0];
    if (unknown != null) throw `unknown key ${unknown}`;
  },
};

// What ends the call with an error of the Messages API.
const failure = (status, errorType, message, retryable) => ({ status, errorType, message, retryable });

// One client call: a state machine that is fed what happened and says what to do. The gateway does all input and output, and
// adds address and credential; the provider sees neither.
class Exchange {
  constructor(request) {
    this.target = request.target;
  }

  next(input) {
    switch (input.tag) {
      case "start":
        return [
          {
            tag: "send",
            val: {
              method: "POST",
              path: this.target,
              headers: [{ name: "content-type", value: "application/json" }],
              body: { tag: "original" },
              auth: { tag: "header", val: "x-api-key" },
            },
          },
        ];
      case "head":
        if (input.val.status === 503) {
          throw failure(529, "overloaded_error", "the upstream has no room", true);
        }
        // From here on the gateway pumps the bytes, and the provider is done.
        return [{ tag: "forward", val: input.val }];
      case "failed":
        throw failure(502, "api_error", "the upstream did not answer", true);
      default:
        throw failure(502, "api_error", "the provider was given an event that it did not wait for", false);
    }
  }
}

export const providerApi = { Exchange };
