"use strict";
(() => {
// The page: one state (token, layer), and every view drawn from it. Texts only ever
// become text nodes or Vega data; nothing here makes markup from them.
const { data: D, specs: SPECS } = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const N = D.rows.length, S = D.names.length;
const MOST = 120;
const zoom = () => Math.max(1, parseFloat(getComputedStyle(document.documentElement).fontSize) / 15);
const CELL = () => 15 * zoom(), NUMBER = () => 44 * zoom(), MARGIN = () => 74 * zoom();
const LARGEST = D.rows.reduce((most, row) => Math.max(most, row.scale), 0);
const state = { row: 0, seg: S - 1, first: 0, only: false };
const views = {}, turn = {};
const oddCredit = new Map(D.odd.map(([r, s, why]) => [r * S + s, why]));
const oddLevel = new Map(D.oddLevels.map(([r, p, why]) => [r * (S + 1) + p, why]));

const isDark = () => {
  const t = document.documentElement.dataset.theme;
  return t === "dark" || (t === "auto" && matchMedia("(prefers-color-scheme: dark)").matches);
};
const minus = (text) => text.replaceAll("-", "−");
function credit(v, unit) {
  if (v === null) return "no number";
  let text = v.toFixed(unit === "probability" ? 3 : 2);
  if (v !== 0 && Number(text) === 0) text = v.toExponential(0);
  return minus(v < 0 ? text : "+" + text);
}
function level(v, unit) {
  if (v === null) return "no number";
  if (unit !== "probability") return minus(v.toFixed(2));
  return v >= 0.01 || v === 0 ? v.toFixed(2) : minus(v.toExponential(0));
}
// where the page has bounds, what lies below them is told as such, without a sign
const small = (r, p) => D.prunedBelow > 0 && D.rows[r].unit === "probability" && D.levels[r][p] !== null && D.levels[r][p] < D.prunedBelow;
const below = () => "< " + level(D.prunedBelow, "probability");
const levelAt = (r, p) => (p > 0 && p < S && small(r, p) ? below() : level(D.levels[r][p], D.rows[r].unit));
const creditAt = (r, s) => (S > 1 && small(r, s) && small(r, s + 1) ? below() : credit(D.credits[r][s], D.rows[r].unit));
function node(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}
function table(box, heads, lines) {
  const whole = node("table"), top = node("tr"), body = node("tbody"), head = node("thead");
  heads.forEach((h) => top.append(node("th", h, { scope: "col" })));
  for (const line of lines) {
    const tr = node("tr");
    line.forEach((cell, i) => tr.append(i ? node("td", cell) : node("th", cell, { scope: "row" })));
    body.append(tr);
  }
  head.append(top); whole.append(head, body); box.replaceChildren(whole);
}
function whenOpen(id, fill) {
  const details = $(id);
  details.ontoggle = () => details.open && fill(details.querySelector(".scroll"));
  if (details.open) fill(details.querySelector(".scroll"));
}

// ---- charts ---------------------------------------------------------------------
async function draw(id, spec, size, words) {
  const mine = (turn[id] = (turn[id] || 0) + 1), box = $(id);
  spec.autosize = { type: "fit-x", contains: "padding", resize: true };
  spec.width = Math.max(120, Math.min(size.most ?? Infinity, box.parentElement.clientWidth));
  spec.height = size.height * zoom();
  enlarge(spec, zoom());
  spec.description = words;
  const made = await vegaEmbed(box, spec, {
    mode: "vega-lite", actions: false, ast: true, renderer: size.canvas ? "canvas" : "svg",
    tooltip: { theme: isDark() ? "dark" : "light" }, loader: { target: "_blank" },
  });
  if (mine !== turn[id]) { made.finalize(); return null; }
  views[id]?.finalize();
  views[id] = made;
  return made.view;
}
function enlarge(part, factor) {
  // type and marks grow with the page's own, on a wall as on a desk
  if (part === null || typeof part !== "object") return;
  for (const [key, value] of Object.entries(part)) {
    if (key === "datasets") continue;
    if (typeof value === "number" && /^(\w*fontSize|padding|dx)$/i.test(key)) part[key] = value * factor;
    else enlarge(value, factor);
  }
}
function spec(name, lines, unit) {
  const made = structuredClone(SPECS[isDark() ? "dark" : "light"][name]);
  made.datasets = { lines };
  if (unit) retitle(made, unit);
  return made;
}
function places(made, columns, rows, what) {
  // every name has its place, also where there is no number to draw
  for (const layer of made.layer) {
    const { x, y } = layer.encoding ?? {};
    if (x?.field === "x") Object.assign(x, { scale: { ...x.scale, domain: columns }, title: what === "token" ? null : what });
    for (const tip of layer.encoding?.tooltip ?? []) if (tip.field === "x") tip.title = what;
    if (y?.field === "y") y.scale = { ...y.scale, domain: rows };
  }
  return made;
}
function retitle(made, unit) {
  for (const layer of made.layer) {
    const x = layer.encoding?.x;
    if (x && x.title !== undefined) x.title = unit;
  }
}
function box(name) {
  // an outline on what is chosen, as one more layer with data of its own
  return {
    data: { name: "chosen" },
    mark: { type: "rect", fill: null, stroke: isDark() ? "#fff" : "#000", strokeWidth: 2, aria: false },
    encoding: { y: { field: "y", type: "nominal", sort: null }, ...(name === "map" ? { x: { field: "x", type: "nominal", sort: null } } : {}) },
  };
}

// ---- map ------------------------------------------------------------------------
function columns() {
  const room = $("map-box").clientWidth - MARGIN();
  return Math.max(4, Math.min(MOST, N, Math.floor(room / CELL())));
}
function mapLines(rows) {
  const wide = ($("map-box").clientWidth - MARGIN()) / rows.length >= NUMBER();
  const lines = [];
  for (const r of rows) {
    const row = D.rows[r], scale = D.mixed ? row.scale : LARGEST;
    for (let s = 0; s < S; s++) {
      const v = D.credits[r][s], share = v === null ? null : v / scale;
      lines.push({ x: row.label, y: D.names[s], value: share, text: creditAt(r, s), odd: oddCredit.get(r * S + s) ?? null,
        shown: wide && Math.abs(share) >= 0.005, column: r, row: s });
    }
  }
  return lines;
}
const pageRows = () => {
  const n = columns();
  if (state.row < state.first || state.row >= state.first + n) state.first = Math.floor(state.row / n) * n;
  state.first = Math.max(0, Math.min(state.first, N - n));
  return Array.from({ length: Math.min(n, N - state.first) }, (_, i) => state.first + i);
};
let drawnFirst = -1;
async function drawMap() {
  const rows = pageRows(), made = spec("map", mapLines(rows));
  drawnFirst = state.first;
  made.layer.push(box("map"));
  made.datasets.chosen = chosenCell();
  places(made, rows.map((r) => D.rows[r].label), D.names, "token");
  const height = Math.max(120, Math.min(S * 15, 1100));
  const words = `Heat map of credits: ${rows.length} tokens across, ${S} steps down. The table below has every number.`;
  const view = await draw("map", made, { height, canvas: rows.length * S > 1500, most: MARGIN() + 90 * zoom() * rows.length }, words);
  view?.addEventListener("click", (_, item) => {
    const d = item?.datum;
    if (d && d.column !== undefined) choose(d.column, d.row);
  });
  $("pager").hidden = rows.length === N;
  $("prev").disabled = state.first === 0;
  $("next").disabled = state.first + rows.length >= N;
  $("range").textContent = `tokens ${state.first + 1} to ${state.first + rows.length} of ${N}`;
  whenOpen("map-table", (into) => table(into, ["layer", ...rows.map((r) => D.rows[r].label)], [
    [D.start, ...rows.map((r) => level(D.levels[r][0], D.rows[r].unit))],
    ...D.names.map((name, s) => [name, ...rows.map((r) => creditAt(r, s) + (oddCredit.has(r * S + s) ? " ⚠" : ""))]),
    ["= readout", ...rows.map((r) => level(D.levels[r][S], D.rows[r].unit))],
  ]));
}
const chosenCell = () => [{ x: D.rows[state.row].label, y: D.names[state.seg] }];
const chosenStep = () => [{ y: D.names[state.seg] }];
function mark() {
  for (const [id, what] of [["map", chosenCell], ["waterfall", chosenStep]]) {
    const view = views[id]?.view;
    if (view) view.data("chosen", what()).runAsync();
  }
}

// ---- one token ------------------------------------------------------------------
function steps(r) {
  const { unit } = D.rows[r], zero = unit === "probability" ? 0 : null;
  const end = (label, p) => ({ y: label, start: zero ?? D.levels[r][p], end: D.levels[r][p], credit: null, kind: "level",
    text: level(D.levels[r][p], unit), odd: oddLevel.get(r * (S + 1) + p) ?? null, step: null });
  const largest = Math.max(...D.credits[r].map((c) => Math.abs(c ?? 0))) || 1;
  const lines = [end(D.start, 0)];
  let at = D.levels[r][0];
  for (let s = 0; s < S; s++) {
    const c = D.credits[r][s], known = c !== null, from = at;
    at = D.observed || !known ? D.levels[r][s + 1] : from + c;
    lines.push({ y: D.names[s], start: known ? from : null, end: known ? at : null, credit: c, kind: known ? (c >= 0 ? "adds" : "takes") : "odd",
      text: known && Math.abs(c) >= 0.005 * largest ? creditAt(r, s) : "", odd: oddCredit.get(r * S + s) ?? null, step: s });
  }
  lines.push(end("= readout", S));
  return lines;
}
async function drawWaterfall() {
  const r = state.row, row = D.rows[r], lines = steps(r), made = spec("waterfall", lines, row.axis);
  made.layer.push({ ...box("waterfall"), mark: { type: "rect", color: isDark() ? "#fff" : "#000", opacity: 0.09, aria: false } });
  made.datasets.chosen = chosenStep();
  places(made, [], lines.map((line) => line.y));
  $("fall-hint").textContent = `${row.name} at position ${row.at}: from ${row.base} to ${row.final}, ${row.axis}.`;
  $("depths").textContent = "Depths: " + Object.entries(row.depths).map(([k, v]) => `${k}: ${v}`).join("; ") + ".";
  const words = `Waterfall of ${row.name}: ${row.says} The table below has every number.`;
  const view = await draw("waterfall", made, { height: Math.min(lines.length * 15, 1200) }, words);
  view?.addEventListener("click", (_, item) => {
    const s = item?.datum?.step;
    if (s !== undefined && s !== null) choose(r, s);
  });
  const wrote = D.lens ? ["written by the block"] : [];
  whenOpen("waterfall-table", (into) => table(into, ["layer", "level before", "credit", "level after", ...wrote, "note"],
    D.names.map((name, s) => [name, levelAt(r, s), creditAt(r, s), levelAt(r, s + 1),
      ...(D.lens ? [credit(D.writes[r][s], row.unit)] : []), oddCredit.get(r * S + s) ?? ""])));
}
async function drawRivals() {
  const lines = D.rivals[state.row];
  if (!lines) return;
  const labels = ["start", ...D.names];
  const points = lines.flatMap(([name, values], i) => values.map((value, p) => ({ x: labels[p], name, value, target: i === 0 })));
  const peaks = lines.map(([name, values]) => `${name} up to ${Math.max(...values.map((v) => v ?? 0)).toPrecision(2)}`).join(", ");
  const made = spec("rivals", points), names = lines.map(([name]) => name);
  for (const layer of made.layer)
    for (const what of ["color", "strokeDash"])
      if (layer.encoding[what]?.field) layer.encoding[what].scale.domain = names;
  const narrow = $("rivals").parentElement.clientWidth < 520;
  for (const layer of made.layer)
    if (narrow && layer.encoding.color?.legend) delete layer.encoding.color.legend.orient;
  if (narrow) made.config.legend = { ...made.config.legend, orient: "bottom", columns: 2 };
  await draw("rivals", made, { height: 260 }, `Lines of probability after every layer: ${peaks}.`);
  whenOpen("rivals-table", (into) => table(into, ["after layer", ...lines.map(([name]) => name)],
    labels.map((label, p) => [label, ...lines.map(([, values]) => (values[p] === null ? "" : values[p].toPrecision(3)))])));
}
async function drawBars() {
  const inside = D.inside, whole = inside.by ? inside.whole[state.row] : null;
  if (!inside.by) return;
  const own = inside.layers?.[state.row]?.[state.seg];
  $("scope").hidden = !inside.layers;
  $("scope").setAttribute("aria-pressed", String(state.only));
  const list = (state.only && own) || whole || [], where = state.only && own ? `in ${D.names[state.seg]}` : "over the whole path";
  let hint = `By ${inside.by}, ${where}.`;
  if (state.only && !own) hint = `Layer ${D.names[state.seg]} was not opened alone, or has next to no credit: the whole path is shown.`;
  if (inside.short) hint += " Some lists are left out to keep this page small; the saved result has them.";
  $("bars-hint").textContent = hint;
  const lines = list.map(([y, value, text]) => ({ y, credit: value, kind: value >= 0 ? "adds" : "takes", text: minus(text) }));
  const words = `Bars of credit by ${inside.by}, ${where}: ${list.slice(0, 6).map(([y, , t]) => `${y} ${t}`).join(", ")}.`;
  await draw("bars", spec("bars", lines, `credit, ${D.rows[state.row].axis}`), { height: Math.max(40, lines.length * 19) }, words);
  whenOpen("bars-table", (into) => table(into, ["part", "credit"], list.map(([y, , text]) => [y, text])));
}
async function drawGrid(id, names) {
  const found = D.inside[id]?.[state.row];
  if (!found) return;
  const { layers, values } = found, unit = D.rows[state.row].unit;
  const labels = names(values.length), room = ($(id).parentElement.clientWidth - MARGIN()) / values.length;
  const largest = Math.max(...values.flat().map((v) => Math.abs(v ?? 0))) || 1;
  const lines = values.flatMap((column, c) => column.map((v, s) => ({ x: labels[c], y: layers[s], value: v === null ? null : v / largest,
    text: v === null ? "not listed" : credit(v, unit), odd: null, shown: room >= NUMBER() && Math.abs(v) >= 0.02 * largest })));
  const order = lines.filter((l) => l.value !== null).sort((a, b) => Math.abs(b.value) - Math.abs(a.value)).slice(0, 5);
  const words = `Heat map, largest: ${order.map((l) => `${l.x} in layer ${l.y} ${l.text}`).join(", ")}.`;
  await draw(id, places(spec("map", lines), labels, layers, id === "heads" ? "head" : "token"), { height: Math.max(80, Math.min(900, layers.length * 14)), canvas: lines.length > 1500, most: MARGIN() + 90 * zoom() * values.length }, words);
  whenOpen(`${id}-table`, (into) => table(into, ["layer", ...labels],
    layers.map((layer, s) => [layer, ...values.map((column) => (column[s] === null ? "" : credit(column[s], unit)))])));
}

// ---- the text -------------------------------------------------------------------
const buttons = [];
function drawStrip() {
  const at = new Map();
  D.rows.forEach((row, r) => at.set(row.at, [...(at.get(row.at) ?? []), r]));
  const pieces = document.createDocumentFragment();
  for (let i = 0; i <= Math.max(D.text.length, ...at.keys()); i++) {
    const here = at.get(i) ?? [];
    if (i < D.text.length && !here.some((r) => D.rows[r].inText)) pieces.append(node("span", D.text[i].replaceAll("␣", " "), { class: "ctx" }));
    for (const r of here) pieces.append(tokenButton(r));
  }
  $("strip").replaceChildren(pieces);
  if (D.rows.some((row) => row.unit === "probability")) $("shade-key").textContent = "The stronger the colour, the likelier to the model.";
}
function tokenButton(r) {
  const row = D.rows[r], made = node("button", row.inText ? D.text[row.at].replaceAll("␣", " ") : row.token.replaceAll("␣", " "), { type: "button", tabindex: "-1",
    "aria-pressed": "false", "aria-label": `${row.name} at position ${row.at}, ${row.final}${row.flags.length ? ", flagged: " + row.flags.join("; ") : ""}` });
  if (!row.inText) made.classList.add("next");
  if (row.flags.length) { made.classList.add("flagged"); made.title = row.flags.join("; "); }
  const p = D.levels[r][S];
  if (row.unit === "probability" && p !== null) made.style.background = `rgba(var(--shade), ${(0.3 * Math.max(0, Math.min(1, p))).toFixed(3)})`;
  made.onclick = () => choose(r, best(r));
  buttons[r] = made;
  return made;
}
const best = (r) => D.credits[r].reduce((b, c, s) => (Math.abs(c ?? 0) > Math.abs(D.credits[r][b] ?? 0) ? s : b), S - 1);

// ---- choosing -------------------------------------------------------------------
function say() {
  const row = D.rows[state.row], s = state.seg;
  const why = oddCredit.get(state.row * S + s);
  $("cell").textContent = `${row.name} at ${row.at}, layer ${D.names[s]}: ${creditAt(state.row, s)} ${row.axis}, from ` +
    `${levelAt(state.row, s)} to ${levelAt(state.row, s + 1)}.${why ? " Flagged: " + why + "." : ""}`;
}
function head() {
  const row = D.rows[state.row];
  $("name").textContent = row.title;
  $("says").textContent = row.says;
}
function choose(row, seg, focus = false) {
  const r = Math.max(0, Math.min(N - 1, row)), s = Math.max(0, Math.min(S - 1, seg)), moved = r !== state.row, layer = s !== state.seg;
  buttons[state.row]?.setAttribute("aria-pressed", "false");
  buttons[state.row]?.setAttribute("tabindex", "-1");
  state.row = r; state.seg = s;
  buttons[r].setAttribute("aria-pressed", "true");
  buttons[r].setAttribute("tabindex", "0");
  if (focus) buttons[r].focus();
  say();
  if (moved) {
    head(); pageRows(); unveil();
    buttons[r].scrollIntoView({ block: "nearest" });
    if (state.first !== drawnFirst) drawMap();
    drawWaterfall(); drawRivals(); drawBars(); drawInside();
  } else if (layer && state.only) drawBars();
  mark();
}
function unveil() {
  // before anything is measured: which views there are for this token
  $("rivals-section").hidden = !D.rivals[state.row];
  $("bars-section").hidden = !D.inside.by;
  for (const id of ["heads", "sources"]) $(`${id}-section`).hidden = !D.inside[id]?.[state.row];
  if ($("column")) $("column").hidden = !D.rivals[state.row] && !D.inside.by;
}
function drawInside() {
  drawGrid("heads", (n) => Array.from({ length: n }, (_, i) => String(i)));
  drawGrid("sources", (n) => D.inside.tokens.slice(0, n));
}
const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
function keys(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const inStrip = event.currentTarget === $("strip");
  let [dr, ds] = KEYS[event.key] ?? [0, 0];
  if (event.key === "Home") dr = -state.row;
  else if (event.key === "End") dr = N - 1 - state.row;
  else if (event.key === "PageUp") dr = -columns();
  else if (event.key === "PageDown") dr = columns();
  else if (!KEYS[event.key]) return;
  event.preventDefault();
  choose(state.row + dr, inStrip && dr ? best(Math.max(0, Math.min(N - 1, state.row + dr))) : state.seg + ds, inStrip);
}
for (const id of ["strip", "map-box", "waterfall-box"]) $(id).addEventListener("keydown", keys);
$("prev").onclick = () => turnPage(-1);
$("next").onclick = () => turnPage(1);
function turnPage(direction) {
  const r = Math.max(0, Math.min(N - 1, state.first + direction * columns()));
  choose(r, best(r));
}
$("scope").onclick = () => { state.only = !state.only; drawBars(); };
$("theme").onclick = () => { document.documentElement.dataset.theme = isDark() ? "light" : "dark"; drawAll(); };
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawAll());

// ---- saving ---------------------------------------------------------------------
for (const place of document.querySelectorAll(".save")) {
  for (const kind of ["svg", "png"]) {
    const made = node("button", `save ${kind.toUpperCase()}`, { type: "button" });
    made.onclick = async () => {
      const url = await views[place.dataset.chart].view.toImageURL(kind, 2);
      node("a", undefined, { href: url, download: `${place.dataset.chart}.${kind}` }).click();
    };
    place.append(made);
  }
}

function drawKey() {
  const ends = D.mixed ? ["most", "most, each in its unit,"] : [-1, 1].map((sign) => credit(sign * LARGEST, D.rows[0].unit));
  const ramp = node("span", undefined, { class: "ramp" });
  $("key").replaceChildren(node("span", `takes ${ends[0]}`), ramp, node("span", `${ends[1]} adds`), node("span", D.odd.length ? "× flagged or no number" : ""));
  $("group").textContent = D.group > 1 ? `To keep this page small, credits of ${D.group} neighbouring layers are added up; the saved result has each.` : "";
}
function drawAll() {
  document.body.classList.toggle("dark-drawn", isDark());
  return Promise.all([drawMap(), drawWaterfall(), drawRivals(), drawBars(), drawInside()]);
}
let width = innerWidth, waiting;
addEventListener("resize", () => {
  if (innerWidth === width) return;
  width = innerWidth;
  clearTimeout(waiting);
  waiting = setTimeout(drawAll, 150);
});
if (N) {
  drawStrip(); drawKey();
  state.row = D.first;
  state.seg = best(D.first);
  buttons[D.first].setAttribute("aria-pressed", "true");
  buttons[D.first].setAttribute("tabindex", "0");
  head(); say(); unveil();
  if (N === 1) {
    // a map of one token says what its waterfall says: the rivals take its place
    $("map-section").hidden = true;
    $("fall-section").insertBefore($("cell"), $("depths"));
    const column = node("div", undefined, { id: "column" });
    column.append($("rivals-section"), $("bars-section"));
    $("fall-section").parentElement.append(column);
    unveil();
  }
  drawAll().then(() => document.body.setAttribute("data-ready", "true"));
} else {
  document.querySelectorAll("main .pair").forEach((part) => part.remove());
  $("says").textContent = "This result has no rows: nothing was explained.";
  document.body.setAttribute("data-ready", "true");
}
})();
