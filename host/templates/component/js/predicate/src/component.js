// Takes long conversations: a route that names this predicate gets them, and leaves the others to the next route.

let moreThan;

// Runs before the first call: check what you were given. What is thrown here is shown to the admin, and the route does not
// become active.
export const configurable = {
  configure(json) {
    const given = JSON.parse(json);
    const unknown = Object.keys(given).find((key) => key !== "more_than");
    if (unknown != null) throw `unknown key ${unknown}`;
    moreThan = given.more_than ?? 0;
    if (!Number.isInteger(moreThan) || moreThan < 0) throw "more_than is a number of messages";
  },
};

export const predicateApi = {
  // Runs for every call whose model the route's pattern matches, each time in a fresh sandbox. `body` is there to be read.
  matches(call, body) {
    return call.messageCount > moreThan;
  },
};
