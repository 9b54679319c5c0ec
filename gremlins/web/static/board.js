// Keys, comments on lines, and times that go on. The pages can be read, and their forms sent, without this.
"use strict";

const choosable = () => [...document.querySelectorAll(".row")].filter((row) => row.offsetParent);

function choose(step) {
  const rows = choosable();
  const now = rows.findIndex((row) => row.classList.contains("chosen"));
  const next = rows[Math.min(rows.length - 1, Math.max(0, now + step))];
  if (!next) return;
  rows.forEach((row) => row.classList.toggle("chosen", row === next));
  (next.querySelector("a.id, summary") || next).focus({ preventScroll: true });
  next.scrollIntoView({ block: "nearest" });
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select, dialog")) return;
  const pages = { 1: "/", 2: "/beads", 3: "/money", u: "/" };
  if (event.key === "j") choose(1);
  else if (event.key === "k") choose(-1);
  else if (event.key === "?") document.getElementById("keys").showModal();
  else if (event.key in pages) location.assign(pages[event.key]);
  else return;
  event.preventDefault();
});

document.addEventListener("click", (event) => {
  const line = event.target.closest("button.say");
  if (line) {
    const row = line.closest("tr");
    if (row.nextElementSibling?.classList.contains("comment")) return row.nextElementSibling.querySelector("textarea").focus();
    row.after(document.getElementById("comment").content.cloneNode(true));
    const made = row.nextElementSibling;
    made.querySelector("[name=path]").value = line.closest("table").dataset.path;
    made.querySelector("[name=line]").value = line.dataset.line;
    made.querySelector("textarea").focus();
    count();
  } else if (event.target.closest("button.drop")) {
    event.target.closest("tr").remove();
    count();
  }
});

function count() {
  const comments = document.querySelectorAll("tr.comment").length;
  const place = document.getElementById("comment-count");
  if (place) place.textContent = comments ? `with ${comments} comment${comments === 1 ? "" : "s"} on lines` : "";
}

function ago(seconds) {
  const [m, h, d] = [Math.floor(seconds / 60), Math.floor(seconds / 3600), Math.floor(seconds / 86400)];
  const two = (n) => String(n).padStart(2, "0");
  if (seconds < 60) return `${seconds}s`;
  if (m < 60) return m < 10 ? `${m}m${two(seconds % 60)}s` : `${m}m`;
  return h < 24 ? `${h}h${two(m % 60)}m` : `${d}d${two(h % 24)}h`;
}

setInterval(() => {
  if (document.hidden) return;
  for (const place of document.querySelectorAll("time[datetime]")) {
    const text = ago(Math.max(0, Math.floor((Date.now() - Date.parse(place.dateTime)) / 1000)));
    if (place.textContent !== text) place.textContent = text;
  }
}, 5000);

// What a person has opened or typed outlives an update.
const kept = new Map();
document.addEventListener("htmx:beforeSwap", (event) => {
  kept.clear();
  for (const part of event.target.querySelectorAll("details[id]")) kept.set(part.id, part.open);
  const typing = [...event.target.querySelectorAll("textarea")].some((place) => place.value.trim());
  if (typing && event.target.id === "settled") event.detail.shouldSwap = false;
});
document.addEventListener("htmx:afterSwap", () => {
  for (const [id, open] of kept) {
    const part = document.getElementById(id);
    if (part) part.open = open;
  }
});
