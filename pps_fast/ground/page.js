// Seeks the player when an answer or a timeline is used, and moves the cursors while it plays.
// Positions are shares of a video, from 0 to 1; the page has seconds where the length is known.
"use strict";

const player = document.querySelector("#player");
const told = document.querySelector("#told");
const cards = [...document.querySelectorAll(".card")];
const answers = [...document.querySelectorAll(".answer")];
// where a moment that is being played ends, in seconds
let stop = null;

function clock(seconds) {
  const tenths = Math.round(10 * seconds);
  const [hours, minutes, rest] = [Math.floor(tenths / 36000), Math.floor(tenths / 600) % 60, (tenths % 600) / 10];
  const tail = rest.toFixed(1).padStart(4, "0");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${tail}` : `${minutes}:${tail}`;
}

function holds(card) {
  return player !== null && card.dataset.src !== undefined && player.getAttribute("src") === card.dataset.src;
}

function lengthOf(card) {
  return Number(card.dataset.length) || (holds(card) && player.duration) || 0;
}

function written(card, share) {
  const length = lengthOf(card);
  return length ? clock(share * length) : `${Math.round(100 * share)} %`;
}

// shows a position in every timeline of the video
function mark(card, share) {
  for (const other of cards) {
    if (other.dataset.video !== card.dataset.video) continue;
    other.style.setProperty("--at", share);
    const slider = other.querySelector("input");
    slider.value = share;
    slider.setAttribute("aria-valuetext", written(other, share));
  }
}

function load(card) {
  if (player === null || holds(card)) return;
  player.hidden = card.dataset.src === undefined;
  if (player.hidden) {
    player.removeAttribute("src");
    player.load();
  } else {
    player.src = card.dataset.src;
  }
}

function seek(card, share) {
  load(card);
  stop = null;
  mark(card, share);
  if (!holds(card)) return;
  const go = () => {
    if (holds(card)) player.currentTime = share * lengthOf(card);
  };
  if (lengthOf(card)) go();
  else player.addEventListener("loadedmetadata", go, { once: true });
}

function tell(card, text) {
  const name = card.querySelector("h3 bdi").textContent;
  const isKnown = card.dataset.src !== undefined;
  const problem = isKnown ? (holds(card) && player.error ? "; this file cannot be played" : "") : "; no video file is known";
  told.textContent = `${name}, ${text}${problem}`;
}

// the first use of an answer goes to its start, the next one plays it to its end
function choose(answer) {
  const card = answer.closest(".card");
  const isAgain = answer.getAttribute("aria-current") === "true";
  for (const other of answers) {
    other.toggleAttribute("aria-current", false);
    document.getElementById(other.dataset.bar).classList.remove("chosen");
  }
  answer.setAttribute("aria-current", "true");
  document.getElementById(answer.dataset.bar).classList.add("chosen");
  if (player !== null) player.pause();
  seek(card, Number(answer.dataset.start));
  tell(card, answer.querySelector(".when").textContent);
  if (isAgain && holds(card)) {
    stop = Number(answer.dataset.end) * lengthOf(card) || null;
    player.play().catch(() => {});
  }
}

function follow() {
  const card = cards.find(holds);
  if (card === undefined || !lengthOf(card) || !player.readyState) return;
  mark(card, Math.min(player.currentTime / lengthOf(card), 1));
  if (stop !== null && player.currentTime >= stop) {
    player.pause();
    stop = null;
  }
}

function animate() {
  follow();
  if (!player.paused) requestAnimationFrame(animate);
}

for (const answer of answers) answer.addEventListener("click", () => choose(answer));
for (const card of cards) {
  const slider = card.querySelector("input");
  slider.addEventListener("input", () => seek(card, Number(slider.value)));
  for (const plot of card.querySelectorAll(".plot")) {
    plot.addEventListener("click", (event) => {
      const box = plot.getBoundingClientRect();
      seek(card, Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1));
    });
  }
}

// up and down go from answer to answer
document.addEventListener("keydown", (event) => {
  const at = answers.indexOf(document.activeElement);
  const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: answers.length - 1 }[event.key];
  if (at < 0 || to === undefined || !answers[to]) return;
  event.preventDefault();
  answers[to].focus();
});

if (player !== null) {
  player.addEventListener("play", animate);
  for (const name of ["seeked", "timeupdate"]) player.addEventListener(name, follow);
  player.addEventListener("seeking", () => {
    if (stop !== null && player.currentTime >= stop) stop = null;
  });
  player.addEventListener("error", () => {
    if (!player.getAttribute("src")) return;
    told.textContent = "This file cannot be played: it is gone, or of a kind that this browser does not know. The timeline works without it.";
  });
}

// what is folded is printed, too
let folded = [];
addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details:not([open])")];
  for (const details of folded) details.open = true;
});
addEventListener("afterprint", () => {
  for (const details of folded) details.open = false;
});
