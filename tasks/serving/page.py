"""The page at /: try the model by hand. Self-contained, no address outside the server."""

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Visionloop</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 40rem; margin: 3rem auto; padding: 0 1rem }
table { border-collapse: collapse; width: 100% } td, th { text-align: left; padding: .3rem }
tr + tr td { border-top: 1px solid #ddd } .error { color: #a00 }
</style></head><body>
<h1>Visionloop</h1>
<p id="model">…</p>
<form id="form"><label>Images: <input type="file" name="file" accept="image/*" multiple required>
</label> <button>Classify</button></form>
<p id="error" class="error" role="alert"></p>
<table id="answers"></table>
<p><a href="docs">API</a> · <a href="v1/model">model</a> · <a href="metrics">metrics</a> ·
<a href="health/ready">health</a></p>
<script>
const at = id => document.getElementById(id);
fetch("v1/model").then(r => r.json()).then(m => {
  at("model").textContent = m.error ??
    `Version ${m.model_version} (${m.architecture}, ${m.technique}): ` +
    `${m.classes.length} classes, test accuracy ${(100 * m.measurements.accuracy).toFixed(1)} %, ` +
    `on ${m.runs_on}`;
});
at("form").onsubmit = async event => {
  event.preventDefault();
  at("answers").replaceChildren();
  const body = new FormData(event.target);
  const answer = await (await fetch("v1/predict", {method: "POST", body})).json();
  at("error").textContent = answer.error ?? "";
  for (const one of answer.predictions ?? []) {
    const row = at("answers").insertRow();
    const said = one.abstain ? `not sure: ${one.prediction_set.join(" or ")}` : one.label;
    const label = one.strange ? `${said} (a strange image)` : said;
    for (const text of [one.filename, label, (100 * one.probability).toFixed(1) + " %"])
      row.insertCell().textContent = text;
  }
};
</script></body></html>
"""
