"use strict";
// The page to try a server: an image in, its text, confidences and boxes out. No library, nothing from elsewhere.

const $ = (id) => document.getElementById(id);
const stage = $("stage"), frame = $("frame"), image = $("image"), boxes = $("boxes"), selection = $("selection");
const state = { file: null, shown: false, pages: [], area: null, request: 0, models: [], chosen: {} };
const HARDLY_SURE = 0.5;

const mode = () => document.querySelector("input[name=mode]:checked").value;
const colour = (sure) => `color-mix(in srgb, var(--sure) ${Math.round(sure * 100)}%, var(--unsure))`;
const percent = (value) => `${(Math.floor(value * 1000) / 10).toFixed(value > 0.9995 ? 0 : 1)} %`;

// ---- asking the server ----------------------------------------------------------------------------------------------

async function ask(path, options = {}) {
  const key = sessionStorage.getItem("key");
  const answer = await fetch(path, { ...options, headers: key ? { "X-API-Key": key } : {} });
  if (answer.status === 401) {
    sessionStorage.setItem("key", await askForKey());
    return ask(path, options);
  }
  const values = await answer.json().catch(() => ({ error: `the server answered with status ${answer.status}` }));
  if (!answer.ok) throw new Error(values.error);
  return values;
}

function askForKey() {
  const dialog = $("key-dialog");
  dialog.showModal();
  return new Promise((done) => dialog.addEventListener("close", () => done($("key").value), { once: true }));
}

async function loadModels() {
  try {
    state.models = (await ask("models")).models;
    offerModels();
  } catch (error) {
    say(`${error.message}: reload the page in a moment`, true);
  }
}

// A page may be read by all models, every line by the surest of them; a line by one.
function offerModels() {
  const auto = mode() === "read-page" && state.models.length > 1 ? [new Option("the surest, line by line", "auto")] : [];
  const each = state.models.map((model) => new Option(`${model.name} · ${model.characters} characters`, model.name));
  $("model").replaceChildren(...auto, ...each);
  if (state.chosen[mode()]) $("model").value = state.chosen[mode()];
}

// ---- an image comes in ----------------------------------------------------------------------------------------------

function take(file) {
  if (!file) return;
  state.file = file;
  state.area = null;
  drawSelection();
  clearAnswer();
  const isPdf = file.type === "application/pdf";
  if (isPdf) {
    document.querySelector("input[value=read-page]").checked = true;
    offerModels();
  }
  if (state.url) URL.revokeObjectURL(state.url);
  state.url = URL.createObjectURL(file);
  image.onload = () => show(true);
  image.onerror = () => show(false);
  if (isPdf) show(false);
  else image.src = state.url;
}

function show(shown) {
  state.shown = shown;
  $("hint").hidden = true;
  stage.classList.add("full");
  frame.hidden = !shown;
  frame.classList.toggle("sheet", !shown);
  image.hidden = !shown;
  if (shown) {
    const enlarged = Math.max(1, Math.min(6, 300 / image.naturalHeight, 640 / image.naturalWidth));
    image.style.width = `${Math.round(image.naturalWidth * enlarged)}px`;
  }
  read();
}

async function read() {
  if (!state.file) return;
  const request = ++state.request;
  const area = state.area;
  say("Reading…");
  $("result").setAttribute("aria-busy", "true");
  try {
    const body = area ? await cut(area) : state.file;
    const began = performance.now();
    const values = await ask(`${mode()}?model=${encodeURIComponent($("model").value)}`, { method: "POST", body });
    if (request !== state.request) return; // another was asked for meanwhile
    const offset = area ? [area.left, area.top] : [0, 0];
    const pages = values.pages || [{ number: 1, width: image.naturalWidth, height: image.naturalHeight, lines: values.lines }];
    state.pages = pages.map((page) => ({ ...page, offset }));
    $("milliseconds").textContent = `${values.milliseconds.toFixed(1)} ms`;
    $("round-trip").textContent = `${(performance.now() - began).toFixed(1)} ms`;
    showPage(0);
  } catch (error) {
    if (request !== state.request) return;
    clearAnswer();
    say(error.message.charAt(0).toUpperCase() + error.message.slice(1) + ".", true);
  } finally {
    if (request === state.request) $("result").setAttribute("aria-busy", "false");
  }
}

function cut({ left, top, width, height }) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  canvas.getContext("2d").drawImage(image, left, top, width, height, 0, 0, width, height);
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}

// ---- what was read --------------------------------------------------------------------------------------------------

function say(sentence, bad = false) {
  $("status").textContent = sentence;
  $("status").hidden = !sentence;
  $("status").classList.toggle("bad", bad);
}

function clearAnswer() {
  $("answer").hidden = true;
  $("whole").hidden = !state.area;
  boxes.replaceChildren();
}

function showPage(number) {
  const page = state.pages[number];
  const isLine = mode() === "read";
  const parts = isLine ? page.lines[0].characters : page.lines;
  const text = page.lines.map((line) => line.text).join("\n");
  const lost = isLine && page.lines[0].confidence < HARDLY_SURE;
  say(!text ? "No text found." : lost ? "Hardly sure. One word or line is read here: for more, choose Page or drag over one." : "");
  $("answer").hidden = false;
  $("whole").hidden = !state.area;
  $("text").textContent = text;
  $("text").classList.toggle("long", !isLine);
  $("confidence-figure").hidden = !isLine;
  if (isLine) {
    $("meter").value = page.lines[0].confidence;
    $("confidence").textContent = percent(page.lines[0].confidence);
  }
  $("parts-title").textContent = parts.length ? (isLine ? "Characters" : `${parts.length} lines`) : "";
  $("parts").classList.toggle("lines", !isLine);
  drawBoxes(page, parts);
  $("parts").replaceChildren(...parts.map((part, index) => item(part, index)));
  $("pages").replaceChildren(...(state.pages.length > 1 ? state.pages.map((each, index) => pageButton(each, index, number)) : []));
}

function item(part, index) {
  const entry = document.createElement("li"), button = document.createElement("button"), sure = document.createElement("small");
  button.type = "button";
  button.textContent = part.text === " " ? "␣" : part.text;
  button.style.setProperty("--c", colour(part.confidence));
  sure.textContent = percent(part.confidence);
  button.append(sure);
  const light = (on) => boxes.querySelector(`[data-index="${index}"]`)?.classList.toggle("lit", on);
  for (const [event, on] of [["pointerenter", true], ["focus", true], ["pointerleave", false], ["blur", false]]) {
    button.addEventListener(event, () => light(on));
  }
  entry.append(button);
  return entry;
}

function pageButton(page, index, current) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "button small";
  button.textContent = page.number;
  button.setAttribute("aria-label", `Page ${page.number}`);
  if (index === current) button.setAttribute("aria-current", "page");
  button.addEventListener("click", () => showPage(index));
  return button;
}

function drawBoxes(page, parts) {
  const svg = (name, attributes) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };
  const drawn = [];
  if (!state.shown && !page.width) return; // a format that browsers cannot show: the text alone
  frame.hidden = false;
  boxes.setAttribute("viewBox", `0 0 ${page.width} ${page.height}`);
  if (!state.shown) { // a PDF: an empty sheet with the text where it stands
    boxes.setAttribute("width", page.width);
    boxes.setAttribute("height", page.height);
    for (const line of parts) {
      const [left, top, right, bottom] = line.box;
      const text = svg("text", { x: left, y: bottom - (bottom - top) * 0.2, "font-size": (bottom - top) * 0.8,
        textLength: right - left, lengthAdjust: "spacingAndGlyphs", fill: "#222" });
      text.textContent = line.text;
      drawn.push(text);
    }
  }
  parts.forEach((part, index) => {
    if (!part.box) return;
    const [left, top, right, bottom] = part.box, [x, y] = page.offset;
    const box = svg("rect", { class: "box", x: left + x, y: top + y, width: right - left, height: bottom - top, "data-index": index });
    box.style.stroke = colour(part.confidence);
    drawn.push(box);
  });
  boxes.replaceChildren(...drawn);
}

// ---- choosing a part of the image -----------------------------------------------------------------------------------

const clamp = (value, most) => Math.max(0, Math.min(most, value));

function drawSelection() {
  selection.hidden = !state.area;
  if (!state.area) return;
  const across = 100 / image.naturalWidth, down = 100 / image.naturalHeight, { left, top, width, height } = state.area;
  Object.assign(selection.style, { left: `${left * across}%`, top: `${top * down}%`, width: `${width * across}%`, height: `${height * down}%` });
}

function point(event) {
  const place = image.getBoundingClientRect();
  return [
    clamp(Math.round((event.clientX - place.left) / place.width * image.naturalWidth), image.naturalWidth),
    clamp(Math.round((event.clientY - place.top) / place.height * image.naturalHeight), image.naturalHeight),
  ];
}

frame.addEventListener("pointerdown", (event) => {
  if (!state.shown || event.button) return;
  const [x, y] = point(event);
  frame.setPointerCapture(event.pointerId);
  const move = (moved) => {
    const [a, b] = point(moved);
    state.area = { left: Math.min(x, a), top: Math.min(y, b), width: Math.abs(a - x), height: Math.abs(b - y) };
    drawSelection();
  };
  const end = () => {
    frame.removeEventListener("pointermove", move);
    const kept = state.area && state.area.width > 3 && state.area.height > 3;
    if (!kept) state.area = null;
    drawSelection();
    if (kept) read();
  };
  frame.addEventListener("pointermove", move);
  frame.addEventListener("pointerup", end, { once: true });
});

stage.addEventListener("keydown", (event) => {
  if (!state.shown || event.target !== stage) return;
  const [most, least] = [[image.naturalWidth, image.naturalHeight], 4];
  if (event.key === "Enter") {
    event.preventDefault();
    if (state.area) return void read();
    state.area = { left: Math.round(most[0] / 4), top: Math.round(most[1] / 4), width: Math.round(most[0] / 2), height: Math.round(most[1] / 2) };
  } else if (event.key === "Escape" && state.area) {
    state.area = null;
    read();
  } else if (event.key.startsWith("Arrow") && state.area) {
    event.preventDefault();
    const step = Math.max(1, Math.round(most[0] / 100)), area = state.area;
    const [dx, dy] = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[event.key];
    if (event.shiftKey) {
      area.width = Math.max(least, Math.min(most[0] - area.left, area.width + dx));
      area.height = Math.max(least, Math.min(most[1] - area.top, area.height + dy));
    } else {
      area.left = clamp(area.left + dx, most[0] - area.width);
      area.top = clamp(area.top + dy, most[1] - area.height);
    }
  }
  drawSelection();
});

$("whole").addEventListener("click", () => { state.area = null; drawSelection(); read(); });

// ---- the ways in ----------------------------------------------------------------------------------------------------

for (const id of ["file", "camera"]) {
  $(id).addEventListener("change", (event) => { take(event.target.files[0]); event.target.value = ""; });
}
for (const name of ["dragenter", "dragover"]) {
  document.addEventListener(name, (event) => { event.preventDefault(); stage.classList.add("over"); });
}
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) stage.classList.remove("over"); });
document.addEventListener("drop", (event) => {
  event.preventDefault();
  stage.classList.remove("over");
  take(event.dataTransfer.files[0]);
});
document.addEventListener("paste", (event) => take([...event.clipboardData.files][0]));
$("hint").addEventListener("click", () => $("file").click());
$("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText($("text").textContent);
  } catch { // without TLS, browsers have no clipboard: select it instead
    getSelection().selectAllChildren($("text"));
  }
  $("copy").textContent = "Copied";
  setTimeout(() => { $("copy").textContent = "Copy"; }, 1200);
});
$("model").addEventListener("change", () => { state.chosen[mode()] = $("model").value; read(); });
for (const input of document.querySelectorAll("input[name=mode]")) {
  input.addEventListener("change", () => { offerModels(); read(); });
}

loadModels();
