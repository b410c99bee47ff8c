"use strict";
// One player for a page of rows. A row (`.row`) is a prompt, a cell (`.cell`) is a model or a recording. A cell has its sounds in
// `data-sounds`: takes and legs, of which one is shown. The player keeps the position in time when another sound is chosen.
// Levels are set by the volume of the audio elements: Web Audio is silent for the sounds of a page that is opened as a file.
const byId = (id) => document.getElementById(id);
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const FAR_BELOW = 20;  // dB
const NEAR_END = 0.02;  // s
const MOST = 16;  // sounds that are loaded at a time; browsers on phones play from no more than forty elements

// What is kept in the browser.
function recall(key) { try { return JSON.parse(localStorage.getItem(key)); } catch (error) { console.info(key, "is not kept:", error.name); return null; } }
function keep(key, value) { try { localStorage.setItem(key, JSON.stringify(value)); } catch (error) { console.info(key, "is kept until the page is closed:", error.name); } }

const player = {
  row: null, cell: null, audio: null, position: 0, request: 0, take: 1, legs: {}, audios: new Map(), waiting: false,
  rows: () => [...document.querySelectorAll(".row")].filter((row) => !row.hidden),
  changed: () => {},  // called when another row, cell, take or leg is chosen
};
const isPressed = (id) => byId(id).getAttribute("aria-pressed") === "true";
const rowOf = (element) => element?.closest?.(".row") ?? null;
const cellsOf = (row) => [...row.querySelectorAll(".cell")].filter((cell) => !cell.hidden).sort((a, b) => (a.style.order || 0) - (b.style.order || 0));
const labelOf = (cell) => cell.dataset.label ?? cell.dataset.name;
const soundsOf = (cell) => cell.sounds ??= JSON.parse(cell.dataset.sounds);
const decibels = (gain) => (Math.abs(gain) < 0.05 ? "0.0" : gain.toFixed(1).replace("-", "−")) + " dB";
const isPlaying = () => player.waiting || Boolean(player.audio && !player.audio.paused);

// The sound of a cell for the chosen take and leg. A recording has one for all.
function soundOf(cell) {
  const sounds = soundsOf(cell), opens = sounds[cell.dataset.opens ?? 0];
  const leg = player.legs[cell.dataset.name] ?? opens.leg;
  return sounds.find((sound) => sound.leg === leg && sound.take === player.take) ?? sounds.find((sound) => sound.leg === leg) ?? opens;
}

// Put the chosen sound of a cell on the page.
function show(cell) {
  const sound = soundOf(cell);
  if (cell.shown === sound || (!cell.shown && sound === soundsOf(cell)[cell.dataset.opens ?? 0])) { cell.shown = sound; return; }
  cell.shown = sound;
  const image = cell.querySelector("img");
  if (image) image.src = sound.picture;
  const list = cell.querySelector("dl");
  if (list) list.replaceChildren(...sound.figures.flatMap(([name, value]) => [text("dt", name), text("dd", value)]));
  for (const old of cell.querySelectorAll(".odd")) old.remove();
  for (const warning of sound.warnings) cell.append(Object.assign(text("p", warning), { className: "odd" }));
}
function text(tag, words) { const element = document.createElement(tag); element.textContent = words; return element; }

// Rows near the window follow the choice of take and leg.
const nearRows = new Set();
const near = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (isIntersecting) { nearRows.add(target); for (const cell of target.querySelectorAll(".cell")) show(cell); } else nearRows.delete(target);
  }
}, { rootMargin: "600px" });

// Loudness: each sound is lowered to the quietest of its row, and none is raised, so nothing clips. A sound that is far below the
// loudest one lowers no other: it would make them all too soft to hear.
const canLower = (() => { const probe = new Audio(); probe.volume = 0.5; return probe.volume === 0.5; })();
const known = (cell) => cellsOf(cell.closest(".row")).map((other) => soundOf(other).loudness).filter((loudness) => loudness !== null);
const tooQuiet = (cell) => soundOf(cell).loudness < Math.max(...known(cell)) - FAR_BELOW;
function gainOf(cell) {
  const own = soundOf(cell).loudness;
  if (!canLower || !isPressed("match") || own === null || tooQuiet(cell)) return 0;
  const heard = known(cell), loudest = Math.max(...heard);
  return Math.min(...heard.filter((loudness) => loudness >= loudest - FAR_BELOW)) - own;
}

function trouble(words) { byId("trouble").textContent = words; }
function audioOf(sound) {
  let audio = player.audios.get(sound.sound);
  if (!audio) {
    audio = new Audio();
    audio.preload = "auto";
    audio.src = sound.sound;
    audio.loop = isPressed("loop");
    audio.addEventListener("timeupdate", () => { if (audio === player.audio) follow(); });
    audio.addEventListener("loadedmetadata", () => { if (player.row) follow(); });
    audio.addEventListener("play", tell);
    audio.addEventListener("pause", tell);
    audio.addEventListener("ended", () => { if (audio === player.audio) { player.position = audio.duration; follow(); } });
    audio.addEventListener("error", () => {
      trouble("cannot play " + decodeURIComponent(sound.sound));
      if (audio === player.audio) { player.waiting = false; tell(); }
    });
    byId("sounds").append(audio);
    for (const [source, old] of player.audios) if (player.audios.size >= MOST && old !== player.audio) release(source, old);
    player.audios.set(sound.sound, audio);
  }
  return audio;
}
function lengthOf(cell) {
  const sound = soundOf(cell), known = player.audios.get(sound.sound)?.duration;
  return Number.isFinite(known) ? known : sound.seconds;
}

function release(source, audio) {
  audio.pause();
  audio.removeAttribute("src");
  audio.load();
  audio.remove();
  player.audios.delete(source);
}

// Make a row the one that is heard. Its sounds are loaded, and those of the row before are let go.
function open(row) {
  if (row === player.row) return;
  player.audio?.pause();
  for (const [source, audio] of player.audios) release(source, audio);
  player.row?.classList.remove("current");
  Object.assign(player, { row, cell: null, audio: null, position: 0 });
  row.classList.add("current");
}

// Choose a cell: the sound goes on at the same position in time, or from `position` in s.
function choose(cell, { play = isPlaying(), position = null } = {}) {
  const row = cell.closest(".row"), last = row === player.row ? player.audio : null;
  open(row);
  cellsOf(row).forEach((other, place) => { show(other); if (place < MOST / 2) audioOf(soundOf(other)); });  // the others load meanwhile
  const audio = audioOf(soundOf(cell)), request = ++player.request;
  if (last && position === null) player.position = last.currentTime || player.position;
  if (position !== null) player.position = position;
  Object.assign(player, { cell, audio, waiting: play });
  trouble("");
  const begin = () => {
    if (request !== player.request) return;
    if (play && position === null && last && last !== audio && !last.paused) player.position = last.currentTime;
    if (player.position > audio.duration - NEAR_END) player.position = play ? 0 : audio.duration;
    if (audio !== last || Math.abs(audio.currentTime - player.position) > NEAR_END) audio.currentTime = player.position;
    audio.volume = 10 ** (gainOf(cell) / 20);
    player.waiting = false;
    if (play) audio.play().catch((error) => { if (error.name !== "AbortError") trouble("cannot play " + decodeURIComponent(soundOf(cell).sound) + ": " + error.message); });
    for (const other of player.audios.values()) if (other !== audio) other.pause();
    tell();
  };
  if (audio.readyState >= 2) begin(); else { audio.addEventListener("loadeddata", begin, { once: true }); if (!play) last?.pause(); }
  tell();
}
function pause() { player.request++; player.waiting = false; for (const audio of player.audios.values()) audio.pause(); tell(); }
function toggle(cell = player.cell) {
  const row = player.row ?? player.rows()[0];
  if (!cell) { if (row) choose(cellsOf(row)[0], { play: true }); } else if (cell === player.cell && isPlaying()) pause(); else choose(cell, { play: true });
}
function seek(position) {
  const cell = player.cell ?? (player.row && cellsOf(player.row)[0]);
  if (cell) choose(cell, { position: Math.max(0, Math.min(position, lengthOf(cell))) });
}
// Another row, with the same model if it has it.
function move(by) {
  const rows = player.rows(), row = rows[player.row && rows.includes(player.row) ? rows.indexOf(player.row) + by : 0];
  if (!row) return;
  const cells = cellsOf(row), play = isPlaying();
  const same = cells.find((cell) => player.cell && labelOf(cell) === labelOf(player.cell)) ?? cells[0];
  choose(same, { play, position: 0 });
  row.scrollIntoView({ block: "nearest" });
  same.querySelector("button").focus({ preventScroll: true });
}

// What the page says about what is heard.
let moving = false;
function follow() {
  if (player.audio?.readyState && !player.waiting) player.position = player.audio.currentTime;
  const heard = player.cell ?? (player.row && cellsOf(player.row)[0]), length = heard ? lengthOf(heard) : 0;
  for (const cell of player.row ? player.row.querySelectorAll(".cell") : []) {
    const head = cell.querySelector(".picture i");
    if (head) head.style.left = Math.min(100 * player.position / lengthOf(cell), 100) + "%";
  }
  const seconds = (value) => (Number.isFinite(value) ? value : 0).toFixed(1);
  byId("seek").max = length || 1;
  if (document.activeElement !== byId("seek") || isPlaying()) byId("seek").value = player.position;
  byId("seek").setAttribute("aria-valuetext", seconds(player.position) + " s of " + seconds(length) + " s");
  byId("time").textContent = seconds(player.position) + " / " + seconds(length) + " s";
  if (!moving && isPlaying() && !calm.matches) { moving = true; requestAnimationFrame(() => { moving = false; follow(); }); }
}
function tell() {
  const { cell, row } = player, playing = isPlaying();
  byId("play").firstElementChild.classList.toggle("pause", playing);
  byId("play").setAttribute("aria-label", playing ? "Pause" : "Play");
  for (const old of document.querySelectorAll(".cell.playing")) if (old !== cell || !playing) old.classList.remove("playing");
  for (const old of document.querySelectorAll(".track[aria-pressed=true]")) old.setAttribute("aria-pressed", "false");
  if (cell) { cell.classList.toggle("playing", playing); cell.querySelector(".track").setAttribute("aria-pressed", "true"); }
  byId("title").textContent = row ? (row.dataset.prompt || "(no prompt)") : "";
  const choices = row ? cellsOf(row) : [], made = [...byId("tracks").children];
  if (made.length !== choices.length || made.some((button, at) => button.cell !== choices[at] || button.textContent !== labelOf(choices[at]))) {
    byId("tracks").replaceChildren(...choices.map((choice) => Object.assign(text("button", labelOf(choice)), { type: "button", cell: choice, onclick: () => choose(choice, { play: true }) })));
  }
  for (const button of byId("tracks").children) {
    button.setAttribute("aria-pressed", button.cell === cell);
    if (button.cell === cell) button.scrollIntoView({ block: "nearest", inline: "nearest" });
  }
  tellGain();
  follow();
  player.changed();
}
function tellGain() {
  const { cell } = player;
  const hidden = document.body.classList.contains("blind");  // a number would say which model it is
  for (const choice of player.row ? player.row.querySelectorAll(".cell") : []) choice.querySelector(".track small").textContent = "";
  if (!canLower) { byId("match").disabled = true; byId("gain").textContent = "this browser leaves the volume to the device"; return; }
  if (!cell) { byId("gain").textContent = ""; return; }
  for (const choice of cellsOf(player.row)) if (isPressed("match") && !hidden) choice.querySelector(".track small").textContent = gainText(choice);
  byId("gain").textContent = hidden || !isPressed("match") ? "" : labelOf(cell) + ": " + gainText(cell);
}
function gainText(cell) {
  if (soundOf(cell).loudness === null) return "level unknown";
  return tooQuiet(cell) ? "too quiet" : decibels(gainOf(cell));
}

// Takes and legs.
function setTake(take) {
  player.take = take;
  for (const button of byId("takes").querySelectorAll("button")) button.setAttribute("aria-pressed", Number(button.textContent) === take);
  renew();
}
function setLeg(name, leg) { player.legs[name] = leg; renew(); }
function renew() {
  for (const row of nearRows) for (const cell of row.querySelectorAll(".cell")) show(cell);
  if (player.cell) choose(player.cell); else tell();
}
function offerTakes(count) {
  byId("takes").hidden = count < 2;
  byId("takes").append("take ", ...Array.from({ length: count }, (_, at) => Object.assign(text("button", at + 1), { type: "button", onclick: () => setTake(at + 1) })));
  for (const button of byId("takes").querySelectorAll("button")) button.setAttribute("aria-pressed", button.textContent === "1");
}
// A slider for each model with several legs, by name: its legs in order, and the one that the page opens with.
function offerLegs(legs) {
  for (const [name, { all, opens }] of Object.entries(legs)) {
    const slider = Object.assign(document.createElement("input"), { type: "range", min: 0, max: all.length - 1, step: 1 });
    slider.value = slider.defaultValue = all.indexOf(opens);
    const told = Object.assign(text("span", opens), { className: "leg" }), label = text("label", name);
    slider.setAttribute("aria-valuetext", opens);
    slider.addEventListener("input", () => { told.textContent = all[slider.value]; slider.setAttribute("aria-valuetext", all[slider.value]); setLeg(name, all[slider.value]); });
    label.append(slider, told);
    byId("legs").append(label);
  }
  byId("legs").hidden = !Object.keys(legs).length;
}

document.addEventListener("click", ({ target, clientX }) => {
  const cell = target.closest(".cell"), picture = target.closest(".picture");
  if (target.closest(".track")) toggle(cell);
  else if (picture) {
    const box = picture.getBoundingClientRect();
    choose(cell, { play: true, position: lengthOf(cell) * (clientX - box.left) / box.width });
  }
});
byId("play").addEventListener("click", () => toggle());
byId("seek").addEventListener("input", () => seek(Number(byId("seek").value)));
byId("loop").addEventListener("click", () => {
  byId("loop").setAttribute("aria-pressed", !isPressed("loop"));
  for (const audio of player.audios.values()) audio.loop = isPressed("loop");
});
byId("match").addEventListener("click", () => {
  byId("match").setAttribute("aria-pressed", !isPressed("match"));
  if (player.cell) player.audio.volume = 10 ** (gainOf(player.cell) / 20);
  tellGain();
});

// Keys. A page may add its own to `keys`.
const steps = (by) => player.cell && seek(player.position + by * lengthOf(player.cell) / 20);
const keys = {
  " ": () => toggle(), ArrowLeft: () => steps(-1), ArrowRight: () => steps(1), ArrowUp: () => move(-1), ArrowDown: () => move(1),
  l: () => byId("loop").click(), m: () => byId("match").click(),
  t: () => { const all = byId("takes").querySelectorAll("button"); if (all.length) setTake(player.take % all.length + 1); },
  "[": () => stepLeg(-1), "]": () => stepLeg(1),
};
function resetLegs() {
  for (const slider of byId("legs").querySelectorAll("input")) { slider.value = slider.defaultValue; slider.dispatchEvent(new Event("input")); }
}
function stepLeg(by) {
  for (const slider of byId("legs").hidden ? [] : byId("legs").querySelectorAll("input")) { slider.value = Number(slider.value) + by; slider.dispatchEvent(new Event("input")); }
}
document.addEventListener("keydown", (event) => {
  const { target, key } = event, range = target.matches("input[type=range]");
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || "noKeys" in document.body.dataset) return;
  if (target.matches("input, select, textarea") && !range) return;  // there, keys write
  if (key.startsWith("Arrow") && (range || target.closest(".scroll"))) return;  // there, arrows move or scroll
  if (key === " " && target.matches("button, a, summary")) return;  // it presses the button
  const row = player.row ?? player.rows()[0], number = "123456789".indexOf(key);
  if (number >= 0 && row && cellsOf(row)[number]) {
    choose(cellsOf(row)[number], { play: true });
    player.cell.scrollIntoView({ block: "nearest", inline: "nearest" });
  }
  else if (key in keys) keys[key](event);
  else return;
  event.preventDefault();
});
