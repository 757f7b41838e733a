// The page: one photo at a time, its mask, and what a person does to it.

import * as again from "./again.js";
import * as api from "./api.js";
import { PhotoList } from "./list.js";
import { Pen } from "./pen.js";
import { View, drawLine, drawPoint } from "./view.js";

const byId = (id) => document.getElementById(id);
const canvas = byId("canvas");
const state = {
  run: null, photo: null, mask: null, document: null, tool: "paint", label: 1, opacity: 0.55, hidden: false,
  panes: new Map(), wanted: new Set(), waiting: [], busy: false, asked: 0,
};
const others = new BroadcastChannel(`hintseg ${location.pathname}`);

const redraw = () => { if (!redraw.due) { redraw.due = true; requestAnimationFrame(draw); } };
const view = new View(redraw);
const pen = new Pen(canvas, view, { tool: () => state.tool, drawn, changed: redraw });
const list = new PhotoList(byId("rows"), byId("space"),
  { byClass: byId("by-class"), byState: byId("by-state"), byOrder: byId("by-order") }, byId("count"), open);

const colour = (label) => state.run.colours[label];
const say = (text) => { byId("status").textContent = text; };
const width = () => Number(byId("width").value);

// ---- showing ----

function draw() {
  redraw.due = false;
  const opacity = state.hidden ? 0 : state.opacity;
  view.draw(canvas, state.photo, state.mask, opacity, (context, pixel) => {
    for (const action of state.waiting) if (action.id === state.document?.id) preview(context, action.action, pixel);
    for (const mark of state.document?.drawn ?? []) drawMark(context, mark, pixel);
    if (pen.points) preview(context, { kind: state.tool, label: state.label, points: pen.points, width: penWidth() }, pixel);
    if (pen.cross) cross(context, ...pen.cross, pixel);
  });
  for (const pane of state.panes.values()) view.draw(pane.canvas, state.photo, pane.mask, Math.max(opacity, pane.least));
}

const penWidth = () => (state.tool === "stroke" ? 3 : width());

function preview(context, { kind, label, points, width: wide }, pixel) {
  if (!points) return;
  context.globalAlpha = 0.6;
  if (kind === "fill" && points.length === 4) {
    context.lineWidth = 2 * pixel;
    context.strokeStyle = colour(label);
    context.strokeRect(points[0], points[1], points[2] - points[0], points[3] - points[1]);
  } else if (kind === "click") drawPoint(context, points[0], points[1], colour(label), pixel);
  else if (kind !== "fill") drawLine(context, points, wide, kind === "erase" ? "#fff" : colour(label));
  context.globalAlpha = 1;
}

function drawMark(context, mark, pixel) {
  if (mark.points.length === 2) return drawPoint(context, ...mark.points, colour(mark.label), pixel);
  drawLine(context, mark.points, mark.width + 2 * pixel, "#fff");
  return drawLine(context, mark.points, mark.width, colour(mark.label));
}

function cross(context, x, y, pixel) {
  for (const [wide, ink] of [[3, "#000"], [1, "#fff"]]) {
    context.lineWidth = wide * pixel;
    context.strokeStyle = ink;
    context.beginPath();
    context.moveTo(x - 9 * pixel, y); context.lineTo(x + 9 * pixel, y);
    context.moveTo(x, y - 9 * pixel); context.lineTo(x, y + 9 * pixel);
    context.stroke();
  }
}

// ---- a photo ----

async function open(id) {
  const asked = ++state.asked;
  canvas.setAttribute("aria-busy", "true"); // until all of the photo is there
  list.select(id);
  say("");
  history.replaceState(null, "", `#photo=${encodeURIComponent(id)}`);
  try {
    const [found, photo] = await Promise.all([known(id), api.picture(id)]);
    const mask = await api.layer(id, "mask", found.revision);
    if (asked !== state.asked) return; // another photo was chosen meanwhile
    Object.assign(state, { photo, document: found, mask });
    view.size = found.size;
    view.fit();
    pen.points = pen.cross = null;
    await shown();
    problem("");
  } catch (error) {
    if (asked !== state.asked) return;
    Object.assign(state, { photo: null, document: null, mask: null });
    await shown();
    say(error.message);
  }
  redraw();
  canvas.dataset.shown = id;
  canvas.setAttribute("aria-busy", "false");
  fetched.clear();
  for (const step of [1, -1]) { // the next is there before it is asked for
    const next = list.neighbour(step);
    if (next === null || next === id) continue;
    fetched.set(next, api.photo(next));
    fetched.get(next).then((found) => Promise.all([api.picture(next), api.layer(next, "mask", found.revision)])).catch(() => {});
  }
}

const fetched = new Map();
const known = (id) => (fetched.get(id) ?? api.photo(id));

async function shown() {
  const found = state.document;
  byId("photo-name").textContent = found?.id ?? "No photo";
  byId("why").replaceChildren(...(found?.why ?? []).map((text) => Object.assign(document.createElement("li"), { textContent: text })));
  byId("undo").disabled = !found?.undo;
  byId("redo").disabled = !found?.redo;
  for (const button of document.querySelectorAll("[data-decide]")) {
    const done = { accept: "accepted", reject: "rejected", skip: "skipped" }[button.dataset.decide];
    button.setAttribute("aria-pressed", String(found?.state === done));
    button.disabled = !found;
  }
  byId("caption").textContent = found?.mended ? "mask, mended" : "mask";
  canvas.setAttribute("aria-label", found ? `Photo ${found.id} with its mask, ${found.state}` : "No photo");
  choices(byId("layers"), found ? ["run", ...found.layers] : [], (name) => (name === "run" ? "as the run made it" : name));
  choices(byId("maps"), (found?.maps ?? []).map((name) => `map:${name}`), (name) => name.slice(4));
  canvas.dataset.revision = found?.revision ?? "";
  await panes();
}

function choices(fieldset, names, title) {
  fieldset.hidden = !names.length;
  for (const old of fieldset.querySelectorAll("label")) old.remove();
  for (const name of names) {
    const label = document.createElement("label"), box = Object.assign(document.createElement("input"), { type: "checkbox", checked: state.wanted.has(name) });
    box.addEventListener("change", () => { state.wanted[box.checked ? "add" : "delete"](name); panes(); });
    label.append(box, title(name));
    fieldset.append(label);
  }
}

async function panes() {
  const found = state.document;
  const here = found ? ["run", ...found.layers, ...found.maps.map((name) => `map:${name}`)] : [];
  const names = [...state.wanted].filter((name) => here.includes(name));
  for (const [name, pane] of state.panes) if (!names.includes(name)) { pane.figure.remove(); state.panes.delete(name); }
  await Promise.all(names.map(async (name) => {
    if (!state.panes.has(name)) state.panes.set(name, makePane(name));
    state.panes.get(name).mask = await api.layer(found.id, name, found.trained).catch(() => null);
  }));
  redraw();
}

function makePane(name) {
  const figure = document.createElement("figure"), drawn = document.createElement("canvas"), caption = document.createElement("figcaption");
  figure.className = "pane";
  caption.textContent = name === "run" ? "as the run made it" : name.replace(/^map:/, "class map: ");
  drawn.setAttribute("role", "img");
  drawn.setAttribute("aria-label", caption.textContent);
  figure.append(drawn, caption);
  byId("panes").append(figure);
  new ResizeObserver(redraw).observe(drawn);
  return { figure, canvas: drawn, mask: null, least: name.startsWith("map:") ? 0.8 : 0 };
}

// ---- changing it ----

function drawn(points) {
  const kind = state.tool;
  if (kind === "fill" && (points.length !== 4 || Math.abs(points[2] - points[0]) < 2 || Math.abs(points[3] - points[1]) < 2)) {
    say("Draw a box around the object.");
    return;
  }
  act({ kind, label: kind === "erase" ? 0 : state.label, points: points.map((one) => Math.round(one * 100) / 100), width: penWidth() });
}

function act(action) {
  if (!state.document) return Promise.resolve();
  return new Promise((done) => {
    state.waiting.push({ id: state.document.id, action, done });
    redraw();
    work();
  });
}

const DRAWN = ["paint", "erase", "fill", "stroke", "click"];

async function work() {
  if (state.busy) return;
  state.busy = true;
  while (state.waiting.length) {
    const [next] = state.waiting;
    try {
      await settle(next.id, await save(next));
      problem("");
    } catch (error) {
      if ([0, 500, 507].includes(error.status)) { // it may be saved later: it is kept, and seen
        problem(`Not saved: ${error.message}`);
        break;
      }
      say(error.message);
    }
    state.waiting.shift();
    next.done();
    redraw();
  }
  state.busy = false;
}

async function save({ id, action }) {
  const at = state.document?.id === id ? state.document : await api.photo(id);
  try {
    return await api.act(id, at.revision, action);
  } catch (error) {
    if (error.status !== 409) throw error;
    const now = await api.photo(id); // another tab was here: what is drawn goes on top, a decision is asked for again
    await settle(id, now);
    if (DRAWN.includes(action.kind)) return api.act(id, now.revision, action);
    throw error;
  }
}

async function settle(id, found) {
  fetched.delete(id);
  standing(id, found);
  others.postMessage({ id, revision: found.revision });
  await take(id, found);
}

async function take(id, found) {
  if (state.document?.id !== id) return;
  const mask = await api.layer(id, "mask", found.revision);
  if (state.document?.id !== id) return;
  Object.assign(state, { document: found, mask });
  await shown();
}

function standing(id, { state: decided, mended, marks, revision }) {
  list.update(id, { state: decided, mended, marks, revision });
  progress();
}

others.addEventListener("message", async ({ data }) => {
  fetched.delete(data.id);
  const found = await api.photo(data.id).catch(() => null);
  if (!found) return;
  standing(data.id, found);
  if (!state.waiting.some((one) => one.id === data.id)) await take(data.id, found);
});

async function decide(kind) {
  const found = state.document;
  if (!found) return;
  const now = { accept: "accepted", reject: "rejected", skip: "skipped" }[kind];
  if (found.state === now) return act({ kind: "reopen" });
  await act({ kind });
  if (state.document?.id === found.id && state.document.state === now) list.move(1);
}

function problem(text) {
  byId("problem").hidden = !text;
  byId("problem").firstElementChild.textContent = text;
}

// ---- controls ----

function choose(tool) {
  state.tool = tool;
  pen.points = null;
  for (const button of document.querySelectorAll("[data-tool]")) button.setAttribute("aria-pressed", String(button.dataset.tool === tool));
}

function pick(label) {
  const input = byId("classes").querySelector(`input[value="${label}"]`);
  if (!input) return;
  input.checked = true;
  state.label = label;
  say(`Class: ${input.dataset.name}`);
}

function classes() {
  const names = [...state.run.classes.map((name, at) => [at + 1, name])];
  if (state.run.background) names.push([0, "background"]);
  for (const [label, name] of names) {
    const line = document.createElement("label");
    const input = Object.assign(document.createElement("input"), { type: "radio", name: "class", value: label, checked: label === state.label });
    input.dataset.name = name;
    input.addEventListener("change", () => { state.label = label; });
    const swatch = Object.assign(document.createElement("span"), { className: "swatch" });
    swatch.style.background = colour(label);
    line.append(input, swatch, name);
    if (label < 10) line.append(" ", Object.assign(document.createElement("kbd"), { textContent: label }));
    byId("classes").append(line);
    if (label) byId("by-class").append(Object.assign(document.createElement("option"), { value: name, textContent: name }));
  }
}

function progress() {
  const done = list.all.filter((row) => row.state === "accepted" || row.state === "rejected").length;
  const mended = list.all.filter((row) => row.mended).length;
  byId("progress").textContent = `${done} of ${list.all.length} photos decided, ${mended} mended`;
}

const KEYS = {
  n: () => list.move(1), p: () => list.move(-1), a: () => decide("accept"), r: () => decide("reject"), s: () => decide("skip"),
  b: () => choose("paint"), e: () => choose("erase"), f: () => choose("fill"), t: () => choose("stroke"), c: () => choose("click"),
  h: () => choose("pan"), z: () => act({ kind: "undo" }), Z: () => act({ kind: "redo" }), y: () => act({ kind: "redo" }),
  "[": () => { byId("width").value = width() - Math.max(1, width() / 5); }, "]": () => { byId("width").value = width() + Math.max(1, width() / 5); },
  "+": () => view.zoomBy(1.3, canvas), "=": () => view.zoomBy(1.3, canvas), "-": () => view.zoomBy(1 / 1.3, canvas), ".": () => view.fit(),
  m: () => { state.hidden = !state.hidden; redraw(); }, d: () => canvas.focus(), "?": () => byId("keys").showModal(),
};

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("select, input[type=text], dialog");
  const sliding = event.target.closest("input[type=range], input[type=radio]") && event.key.startsWith("Arrow");
  if (event.altKey || typing || sliding || event.defaultPrevented) return;
  if ((event.ctrlKey || event.metaKey) && !/^[zy]$/i.test(event.key)) return;
  const key = event.key.length === 1 && !KEYS[event.key] ? event.key.toLowerCase() : event.key;
  if (/^[0-9]$/.test(key)) pick(Number(key));
  else if (KEYS[key]) KEYS[key]();
  else return;
  event.preventDefault();
});

function connect() {
  for (const button of document.querySelectorAll("[data-tool]")) button.addEventListener("click", () => choose(button.dataset.tool));
  for (const button of document.querySelectorAll("[data-decide]")) button.addEventListener("click", () => decide(button.dataset.decide));
  for (const [id, does] of Object.entries({
    undo: KEYS.z, redo: KEYS.Z, reset: () => act({ kind: "reset" }), larger: KEYS["+"], smaller: KEYS["-"], fit: KEYS["."], help: KEYS["?"], retry: work,
  })) byId(id).addEventListener("click", does);
  byId("opacity").addEventListener("input", (event) => { state.opacity = event.target.value / 100; state.hidden = false; redraw(); });
  new ResizeObserver(redraw).observe(canvas);
  window.addEventListener("beforeunload", (event) => { if (state.waiting.length) event.preventDefault(); });
  window.addEventListener("hashchange", () => { const id = asked(); if (id && id !== list.current) open(id); });
  again.setUp(() => {
    fetched.clear(); // photos have another layer now
    if (state.document) api.photo(state.document.id).then((found) => take(found.id, found));
  });
}

const asked = () => (location.hash.startsWith("#photo=") ? decodeURIComponent(location.hash.slice(7)) : null);

async function begin() {
  try {
    state.run = await api.list();
  } catch (error) {
    problem(error.message);
    return;
  }
  byId("title").textContent = `${state.run.name}: ${state.run.kind}s to review`;
  document.title = `${state.run.name}: hintseg review`;
  byId("report").hidden = !state.run.report;
  classes();
  connect();
  list.set(state.run.photos);
  progress();
  const first = asked() ?? list.neighbour(0);
  if (first !== null) await open(first);
}

begin();
