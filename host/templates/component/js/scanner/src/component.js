// Finds words that must not leave the house. A scanner imports nothing: the same text must give the same findings.

let words;

// Runs before the first text: check what you were given. What is thrown here is shown to the admin, and the scanner does not
// become active.
export const configurable = {
  configure(json) {
    const given = JSON.parse(json);
    const unknown = Object.keys(given).find((key) => key !== "words");
    if (unknown != null) throw `unknown key ${unknown}`;
    const isTexts = Array.isArray(given.words) && given.words.every((item) => typeof item === "string");
    if (!isTexts || given.words.includes("")) throw "words is a list of texts, none of them empty";
    words = given.words;
  },
};

// How many bytes a text takes in UTF-8. Findings are told in bytes, and JavaScript counts otherwise.
function bytes(text) {
  let count = 0;
  for (const char of text) {
    const code = char.codePointAt(0);
    count += code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
  }
  return count;
}

export const scannerApi = {
  // Runs for every text that the gateway has not seen yet.
  scan(kind, text) {
    const findings = [];
    for (const word of words) {
      for (let at = text.indexOf(word); at !== -1; at = text.indexOf(word, at + word.length)) {
        const start = bytes(text.slice(0, at));
        const action = { tag: "deny" };
        findings.push({ rule: "word", action, start, end: start + bytes(word), replacement: "" });
      }
    }
    return findings;
  },
};
