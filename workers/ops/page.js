"use strict";
// Keeps the page fresh: fetches it again and puts the parts marked data-live in place of the old
// ones. Without this script the page is complete all the same, and its forms work.

const SECONDS = 5;
const LONGEST_WAIT = 8000;
const toggle = document.getElementById("refresh");
const connection = document.getElementById("connection");

function replacePart(part, fresh) {
  const focused = part.contains(document.activeElement) ? document.activeElement.id : "";
  part.replaceChildren(...fresh.childNodes);
  if (focused) {
    document.getElementById(focused)?.focus({ preventScroll: true });
  }
}

function isBeingRead(part) {
  const selection = document.getSelection();
  return selection !== null && !selection.isCollapsed && selection.containsNode(part, true);
}

function showPage(text) {
  const fresh = new DOMParser().parseFromString(text, "text/html");
  for (const part of document.querySelectorAll("[data-live]")) {
    const next = fresh.getElementById(part.id);
    if (next !== null && !isBeingRead(part)) {
      replacePart(part, next);
    }
  }
}

function say(text) {
  if (connection.textContent !== text) {
    connection.textContent = text;
  }
  connection.hidden = text === "";
}

let silentSince = "";

async function refresh() {
  try {
    const answer = await fetch("./", { cache: "no-store", signal: AbortSignal.timeout(LONGEST_WAIT) });
    if (!answer.ok) {
      throw new Error(`status ${answer.status}`);
    }
    showPage(await answer.text());
    silentSince = "";
    say("");
  } catch {
    silentSince = silentSince || new Date().toLocaleTimeString();
    say(`The ops server has not answered since ${silentSince}. Shown is what it said before.`);
  }
}

async function refreshForEver() {
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, SECONDS * 1000));
    if (toggle.getAttribute("aria-pressed") === "true" && !document.hidden) {
      await refresh();
    }
  }
}

toggle.hidden = false;
toggle.addEventListener("click", () => {
  const wanted = toggle.getAttribute("aria-pressed") !== "true";
  toggle.setAttribute("aria-pressed", String(wanted));
  if (wanted) {
    refresh();
  }
});
// What was just done is said once, not again when the page is loaded anew.
if (location.search) {
  history.replaceState(null, "", "./");
}
refreshForEver();
