// Reads JSON texts with JSON.parse, one a line, and prints what each says.
//
// Usage: node reader.mjs < texts. Prints for each line its canonical text (see src/canon.rs), or `!`
// where the text is refused.

const double = Buffer.alloc(8);

function string(text) {
  return "s" + Buffer.from(text, "utf16le").swap16().toString("hex");
}

function canonical(value) {
  if (value === null) return "n";
  if (value === true) return "t";
  if (value === false) return "f";
  if (typeof value === "number") {
    // Minus zero is zero.
    double.writeDoubleBE(value + 0);
    return "d" + double.toString("hex");
  }
  if (typeof value === "string") return string(value);
  if (Array.isArray(value)) return "[" + value.map(canonical).join(",") + "]";
  const keys = Object.keys(value).map((key) => [string(key), key]);
  keys.sort(([one], [other]) => (one < other ? -1 : one > other ? 1 : 0));
  return "{" + keys.map(([text, key]) => text + ":" + canonical(value[key])).join(",") + "}";
}

function read(text) {
  try {
    return canonical(JSON.parse(text.toString("utf8")));
  } catch {
    return "!";
  }
}

let rest = Buffer.alloc(0);
for await (const chunk of process.stdin) {
  const bytes = Buffer.concat([rest, chunk]);
  let out = "";
  let begin = 0;
  for (let end; (end = bytes.indexOf(10, begin)) >= 0; begin = end + 1) {
    out += read(bytes.subarray(begin, end)) + "\n";
  }
  rest = bytes.subarray(begin);
  if (!process.stdout.write(out)) await new Promise((resolve) => process.stdout.once("drain", resolve));
}
