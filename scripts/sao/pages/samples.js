// The page of samples: filter, sort and the blind test. player.js comes before it.
const list = byId("clips"), clips = [...list.children], page = document.documentElement;
const STEP = 10;  // prompts that are shown at first, as in the template, and twice as many more at a time
const FORMAT = "stable-audio-snakemake votes 1";  // scripts/sao/evaluation/votes.py reads it
const TEST = "blind test " + list.dataset.version, COLOURS = "colours", KEYS = "keys";
let limit = STEP;
for (const clip of clips) near.observe(clip);

// Sorting and filtering.
function arrange() {
  const words = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean), split = byId("split").value, corpus = byId("corpus").value;
  const given = byId("sort").value, key = given.replace(/^-/, ""), odd = isPressed("warnings");
  const sign = (given.startsWith("-") ? -1 : 1) * (isPressed("descending") ? -1 : 1);
  const keyOf = (clip, place) => key === "" ? place : key === "prompt" ? clip.dataset.prompt.toLowerCase() : key === "seconds" ? Number(clip.dataset.seconds) : JSON.parse(clip.dataset.figures)[key];
  const rows = clips.map((clip, place) => [clip, keyOf(clip, place)]);
  const missing = ([, value]) => value === undefined || value === null;
  rows.sort((a, b) => missing(a) || missing(b) ? missing(a) - missing(b) : sign * (a[1] < b[1] ? -1 : a[1] > b[1] ? 1 : 0));
  let found = 0;
  for (const [clip] of rows) {
    const { prompt, clip: id, split: own, corpus: from } = clip.dataset, text = (prompt + " " + id).toLowerCase();
    const fits = words.every((word) => text.includes(word)) && (!split || own === split) && (!corpus || from === corpus) && (!odd || "odd" in clip.dataset);
    clip.hidden = !fits || ++found > limit;
  }
  const gone = player.row?.hidden;
  if (gone) pause();
  if (rows.some(([clip], place) => clip !== list.children[place])) list.append(...rows.map(([clip]) => clip));
  if (gone && player.rows().length) { open(player.rows()[0]); tell(); }
  const shown = Math.min(limit, found);
  byId("shown").textContent = shown < found ? shown + " of " + found + " prompts" : found + " of " + clips.length + " prompts";
  byId("more").hidden = shown === found;
  byId("further").textContent = "Show " + Math.min(2 * STEP, found - shown) + " more";
  byId("further").hidden = found - shown <= 2 * STEP;
  byId("every").textContent = "Show all " + found;
}
const anew = () => { limit = STEP; arrange(); };
for (const id of ["search", "split", "corpus", "sort"]) byId(id).addEventListener("input", anew);
for (const id of ["descending", "warnings"]) byId(id).addEventListener("click", () => { byId(id).setAttribute("aria-pressed", !isPressed(id)); anew(); });
byId("further").addEventListener("click", () => { const last = player.rows().at(-1); limit += 2 * STEP; arrange(); focusAfter(last); });
byId("every").addEventListener("click", () => { const last = player.rows().at(-1); limit = Infinity; arrange(); focusAfter(last); });
function focusAfter(row) { const rows = player.rows(); cellsOf(rows[rows.indexOf(row) + 1] ?? row)[0].querySelector("button").focus(); }
// At the last prompt that is shown, the next ones come.
keys.ArrowDown = () => { if (player.row === player.rows().at(-1) && !byId("more").hidden) { limit += 2 * STEP; arrange(); } move(1); };

byId("details").addEventListener("click", () => byId("details").setAttribute("aria-pressed", list.classList.toggle("figures-shown")));
for (const button of document.querySelectorAll(".opener")) button.addEventListener("click", () => {
  const part = byId(button.getAttribute("aria-controls"));
  part.hidden = !part.hidden;
  button.setAttribute("aria-expanded", !part.hidden);
});
byId("keys").addEventListener("click", () => useKeys(!isPressed("keys")));
function useKeys(on) {
  byId("keys").setAttribute("aria-pressed", on);
  if (on) delete document.body.dataset.noKeys; else document.body.dataset.noKeys = "";
  keep(KEYS, on);
}

// The blind test: two models of each prompt, called A and B in an order drawn by lot. What was drawn and judged is kept, so that a
// test can go on another day.
let test = recall(TEST) ?? begun();
function begun() { return { session: crypto.randomUUID?.() ?? Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join(""), orders: {}, votes: {}, saved: 0 }; }
const isBlind = () => document.body.classList.contains("blind");
const pair = () => [byId("first").value, byId("second").value];
const soundId = (clip) => clip.dataset.clip + (player.take > 1 ? "@take-" + player.take : "");
const keyOf = (clip) => [soundId(clip), ...pair().sort()].join("\n");
const namedCell = (clip, name) => [...clip.querySelectorAll(".model")].find((cell) => cell.dataset.name === name);
const comparable = (clip) => pair()[0] !== pair()[1] && pair().every((name) => namedCell(clip, name));

function rename(cell, name, number) {
  if (name === null) delete cell.dataset.label; else cell.dataset.label = name;
  cell.querySelector(".track span").textContent = labelOf(cell);
  cell.querySelector("kbd").textContent = number;
  const image = cell.querySelector("img");
  image.alt = "Spectrogram of " + labelOf(cell);
}
function draw(clip) {
  const key = keyOf(clip), can = comparable(clip);
  if (can && !test.orders[key]) test.orders[key] = crypto.getRandomValues(new Uint8Array(1))[0] & 1 ? pair() : pair().reverse();
  let number = 0;
  for (const cell of clip.querySelectorAll(".cell:not(.model)")) { cell.style.order = 0; rename(cell, null, ++number); }
  for (const cell of clip.querySelectorAll(".model")) cell.hidden = true;
  for (const [place, name] of can ? test.orders[key].entries() : []) {
    const cell = namedCell(clip, name);
    cell.hidden = false;
    cell.style.order = place + 1;
    rename(cell, "AB"[place], ++number);
  }
  clip.querySelector(".vote").hidden = !can;
  const vote = test.votes[key];
  for (const button of clip.querySelectorAll("[data-vote]")) button.setAttribute("aria-pressed", Boolean(vote) && button.dataset.vote === (vote.better ?? "n"));
}
function reveal(clip) {
  [...clip.querySelectorAll(".cell")].forEach((cell, place) => { cell.hidden = false; cell.style.order = ""; rename(cell, null, place + 1); });
}
function vote(clip, choice) {
  if (!comparable(clip)) return;
  const key = keyOf(clip), heard = test.orders[key].map((name) => ({ run: name, sha256: soundOf(namedCell(clip, name)).sha256 }));
  const order = test.votes[key]?.order ?? Object.keys(test.votes).length + 1;
  test.votes[key] = { order, clip_id: soundId(clip), split: clip.dataset.split, prompt: clip.dataset.prompt, a: heard[0], b: heard[1], better: choice === "n" ? null : choice, loudness_matched: canLower && isPressed("match"), at: new Date().toISOString() };
  keep(TEST, test);
  draw(clip);
  tally();
}
function tally() {
  const cast = Object.values(test.votes), mine = new Set(cast.filter(({ a, b }) => [a.run, b.run].sort().join() === pair().sort().join()).map((vote) => vote.clip_id.replace(/@take-\d+$/, ""))).size;
  const open = isBlind() ? clips.filter(comparable).length : 0, unsaved = cast.length - test.saved;
  // Which model is ahead stays hidden while one listens.
  const counts = {};
  for (const { a, b, better } of cast) for (const [side, { run }] of [["a", a], ["b", b]]) counts[run] = (counts[run] ?? 0) + (side === better);
  const told = isBlind() ? mine + " of " + open + " prompts judged" : "Your blind test: " + Object.keys(counts).sort().map((run) => run + " better " + counts[run] + "×").join(", ") + ", neither " + cast.filter(({ better }) => better === null).length + "×";
  byId("tally").textContent = isBlind() || cast.length ? told + (unsaved > 0 ? ". Not saved: " + unsaved : "") + "." : "";
  byId("progress").hidden = !isBlind();
  byId("progress").max = Math.max(open, 1);
  byId("progress").value = mine;
  byId("save").disabled = !cast.length;
  byId("forget").hidden = !cast.length;
}
function redraw() {
  pause();
  for (const clip of clips) (isBlind() ? draw : reveal)(clip);
  if (isBlind()) keep(TEST, test);
  player.cell = player.row ? cellsOf(player.row)[0] : null;
  if (player.cell) choose(player.cell, { position: 0 });
  tell();
  tally();
}
byId("blind").addEventListener("click", () => {
  const on = document.body.classList.toggle("blind");
  byId("blind").setAttribute("aria-pressed", on);
  byId("test").hidden = !on;
  if (on) { resetLegs(); if (!isPressed("match")) byId("match").click(); }
  redraw();
});
for (const id of ["first", "second"]) byId(id).addEventListener("input", redraw);
list.addEventListener("click", ({ target }) => { const button = target.closest("[data-vote]"); if (button) vote(button.closest(".clip"), button.dataset.vote); });
for (const key of ["a", "b", "n"]) keys[key] = () => {
  const row = player.row ?? player.rows()[0];
  if (!isBlind() || !row) return;
  vote(row, key);
  keys.ArrowDown();
};
let drawnTake = player.take;
player.changed = () => { if (drawnTake !== player.take) { drawnTake = player.take; if (isBlind()) { clips.forEach(draw); tally(); } } };
byId("save").addEventListener("click", () => {
  const saved = new Date().toISOString(), votes = Object.values(test.votes).sort((a, b) => a.order - b.order);
  const text = JSON.stringify({ format: FORMAT, page: list.dataset.version, session: test.session, saved, votes }, null, 1);
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(new Blob([text], { type: "application/json" })), download: "votes-" + test.session.slice(0, 8) + ".json" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  test.saved = votes.length;
  keep(TEST, test);
  tally();
  byId("tally").textContent += " Put " + link.download + " into results/votes and run Snakemake again.";
});
byId("forget").addEventListener("click", () => { if (test.saved < Object.keys(test.votes).length && !confirm("Forget the votes that are not saved?")) return; test = begun(); keep(TEST, test); redraw(); });

function colour() { page.dataset.colours = byId("colours").value; }
byId("colours").value = recall(COLOURS) ?? "";
byId("colours").addEventListener("input", () => { keep(COLOURS, byId("colours").value); colour(); });
useKeys(recall(KEYS) ?? true);
colour();
tally();
arrange();
if (player.rows().length) open(player.rows()[0]);
tell();
