"use strict";
(() => {
// The form: a question is posted, its lines are shown as they come, and the answer has
// a page of its own. Texts only ever become text nodes or values.
const KEY = "iglens-theme";
try {
  const known = localStorage.getItem(KEY);
  if (known === "light" || known === "dark") document.documentElement.dataset.theme = known;
} catch { /* no storage: the system's theme */ }

addEventListener("DOMContentLoaded", () => {
  const $ = (id) => document.getElementById(id);
  const form = $("ask"), found = document.querySelector("[data-code]");
  let running = null;

  // ---- light and dark ---------------------------------------------------------
  const isDark = () => {
    const t = document.documentElement.dataset.theme;
    return t === "dark" || (t === "auto" && matchMedia("(prefers-color-scheme: dark)").matches);
  };
  if (!found) $("theme").onclick = () => { document.documentElement.dataset.theme = isDark() ? "light" : "dark"; };
  $("theme").addEventListener("click", () => {
    try { localStorage.setItem(KEY, document.documentElement.dataset.theme); } catch { /* none */ }
  });
  if (!form) return;

  // ---- what is asked ----------------------------------------------------------
  const value = (name) => form.elements[name].value;
  function question() {
    const asked = { prompt: value("prompt") };
    if (form.elements.model.options.length > 1) asked.model = { id: value("model") };
    for (const name of ["by", "positions", "layers", "lens"]) asked[name] = value(name);
    for (const name of ["answer", "contrast", "system", "unit"]) if (value(name)) asked[name] = value(name);
    for (const name of ["max_new_tokens", "top"]) asked[name] = number(name);
    const targets = value("target").split("\n").filter((line) => line !== "");
    if (targets.length) asked.target = targets.length === 1 ? targets[0] : targets;
    asked.baseline = value("baseline") === "prompt" ? `prompt:${value("other")}` : value("baseline");
    if (form.elements.chat.checked) asked.chat = true;
    if (form.elements.sample.checked) Object.assign(asked, { sample: true, temperature: number("temperature"), top_p: number("top_p"), seed: number("seed") });
    return asked;
  }
  const number = (name) => (value(name) === "" ? Number(form.elements[name].dataset.usual) : Number(value(name)));
  const other = () => { $("other").hidden = value("baseline") !== "prompt"; };
  form.elements.baseline.onchange = other;
  other();

  // ---- asking -----------------------------------------------------------------
  function show(on) {
    $("progress").hidden = !on;
    for (const one of document.querySelectorAll("#run, .try")) one.disabled = on;
    $("stop").hidden = !on;
  }
  function problem(text, word = "Not answered.") {
    const said = $("problem");
    said.hidden = !text;
    const strong = document.createElement("b");
    strong.textContent = `${word} `;
    said.replaceChildren(...(text ? [strong, text] : []));
  }
  function told(line) {
    const bar = $("bar");
    if (line.event === "waiting") {
      $("stage").textContent = line.ahead ? `Waiting: ${line.ahead} ${line.ahead === 1 ? "question" : "questions"} before this one.` : "Waiting for the model.";
      bar.removeAttribute("value");
    } else if (line.event === "running") {
      $("stage").textContent = `${line.stage[0].toUpperCase()}${line.stage.slice(1)} …`;
      if (line.done === null || line.of === null) bar.removeAttribute("value");
      else { bar.max = line.of; bar.value = line.done; }
    }
  }
  function arrive(line) {
    const there = new URL(line.page, location.href);
    if (there.pathname === location.pathname) {
      history.replaceState(null, "", there);
      location.reload();
    } else location.assign(there);
  }
  async function* lines(body) {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value: piece, done } = await reader.read();
      if (done) return;
      const parts = (rest + piece).split("\n");
      rest = parts.pop();
      for (const part of parts) if (part) yield JSON.parse(part);
    }
  }
  async function ask(asked) {
    if (running) return;
    running = new AbortController();
    problem("");
    show(true);
    told({ event: "waiting", ahead: 0 });
    let last = null;
    try {
      const answer = await fetch("/api/explain", {
        method: "POST", signal: running.signal, body: JSON.stringify(asked),
        headers: { "Content-Type": "application/json", Accept: "application/x-ndjson" },
      });
      if (!answer.ok) { problem((await answer.json()).error.message); return; }
      for await (const line of lines(answer.body)) { last = line; told(line); }
      if (last?.event === "done") { arrive(last); return; }
      problem(last?.error?.message ?? "The server went away before it answered. Is it still running?");
    } catch (error) {
      if (error.name === "AbortError") problem("Nothing more is computed; change the question or run it again.", "Cancelled.");
      else problem("The server cannot be reached. Is it still running?");
    } finally {
      running = null;
      if (last?.event !== "done") show(false);
      if (!$("problem").hidden) form.elements.prompt.focus();
    }
  }
  form.addEventListener("submit", (event) => { event.preventDefault(); ask(question()); });
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); form.requestSubmit(); }
    if (event.key === "Escape" && running) running.abort();
  });
  for (const button of document.querySelectorAll(".try")) button.onclick = () => {
    const chosen = value("model");
    form.reset();
    form.elements.model.value = chosen;
    for (const [name, given] of Object.entries(JSON.parse(button.dataset.question))) {
      const field = form.elements[name];
      if (typeof given === "boolean") field.checked = given;
      else field.value = given;
    }
    form.requestSubmit();
  };
  $("stop").onclick = () => running?.abort();

  // ---- links that ask again ---------------------------------------------------
  function replayed(code) {
    try {
      const bytes = Uint8Array.from(atob(code.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));
      return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
    } catch { return null; }
  }
  const code = location.hash.slice(1);
  if (found) history.replaceState(null, "", `#${found.dataset.code}`);
  else if (location.pathname.startsWith("/r/") && code) {
    const asked = replayed(code);
    if (asked) ask(asked);
    else problem("The link is not whole: what follows its # cannot be read.");
  }
  if ($("link")) $("link").onclick = async () => {
    try {
      await navigator.clipboard.writeText(location.href);
      $("link").textContent = "Link copied";
    } catch { $("link").textContent = "Copy it from the address bar"; }
  };
  if ($("forget")) $("forget").onclick = async () => {
    await fetch("/api/results", { method: "DELETE" });
    location.assign("/");
  };
});
})();
