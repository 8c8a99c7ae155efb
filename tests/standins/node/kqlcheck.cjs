// Check KQL with Microsoft's own parser: one JSON document in, one out.
//
// In:  {"schema": {"tables": {T: {column: type}}, "views": {V: {column: type}},
//       "functions": {F: body}}, "texts": {name: KQL}}
// Out: {name: [{"code", "severity", "message", "line", "column"}]}
"use strict";
const fs = require("fs");
const path = require("path");
const vm = require("vm");

// The package is a translation from C#: plain scripts that share one global scope.
function load() {
  const manifest = require.resolve("@kusto/language-service-next/package.json");
  for (const file of ["bridge.min.js", "Kusto.Language.Bridge.min.js"]) {
    const script = fs.readFileSync(path.join(path.dirname(manifest), file), "utf8");
    vm.runInThisContext(script, { filename: file });
  }
  return globalThis.Kusto.Language;
}

function listed(list) {
  const items = [];
  const each = Bridge.getEnumerator(list);
  while (each.moveNext()) items.push(each.Current);
  return items;
}

// Overloads bear numbers that differ between versions: the first that gives a symbol
// with its columns is the one.
function viewSymbol(type, name, columns) {
  for (const key of Object.keys(type).filter((k) => /^\$?ctor\d*$/.test(k))) {
    try {
      const symbol = new type[key](name, columns, "", null);
      if (listed(symbol.Columns)[0].Type) return symbol;
    } catch (error) {
      // Another overload.
    }
  }
  throw new Error("no constructor of MaterializedViewSymbol takes columns as text");
}

const quoted = (name) => `['${name}']`;
const asText = (columns) =>
  "(" + Object.entries(columns).map(([n, t]) => `${quoted(n)}: ${t}`).join(", ") + ")";

function globalState(kusto, schema) {
  const symbols = kusto.Symbols;
  const members = [];
  for (const [name, columns] of Object.entries(schema.tables || {}))
    members.push(symbols.TableSymbol.From(asText(columns)).WithName(name));
  for (const [name, columns] of Object.entries(schema.views || {}))
    members.push(viewSymbol(symbols.MaterializedViewSymbol, name, asText(columns)));
  for (const [name, body] of Object.entries(schema.functions || {}))
    members.push(new symbols.FunctionSymbol.$ctor16(name, "()", body, null));
  const database = new symbols.DatabaseSymbol.ctor("loop", members);
  const host = "loop.westeurope.kusto.windows.net";
  const cluster = new symbols.ClusterSymbol.ctor(host, [database]);
  return kusto.GlobalState.Default.WithCluster(cluster).WithDatabase(database);
}

function check(kusto, state, text) {
  return listed(kusto.KustoCode.ParseAndAnalyze(text, state).GetDiagnostics()).map((d) => {
    const before = text.slice(0, Math.max(d.Start, 0)).split("\n");
    return {
      code: d.Code,
      severity: d.Severity || "Error",
      message: d.Message,
      line: before.length,
      column: before[before.length - 1].length + 1,
    };
  });
}

const { schema, texts } = JSON.parse(fs.readFileSync(0, "utf8"));
const kusto = load();
const state = globalState(kusto, schema);
const found = Object.entries(texts).map(([name, text]) => [name, check(kusto, state, text)]);
process.stdout.write(JSON.stringify(Object.fromEntries(found)));
