// Keyboard, questions before dangerous acts, copying, light and dark. Pages work without it.
"use strict";

const isTyping = (target) =>
  target instanceof HTMLElement && (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName));

// --- rows ---------------------------------------------------------------------------------------

const rows = () => [...document.querySelectorAll("[data-rows] > tbody > tr")];

function moveRow(step) {
  const all = rows();
  if (!all.length) return;
  const present = all.findIndex((row) => row.classList.contains("is-current"));
  makeCurrent(all, all[Math.min(Math.max(present + step, 0), all.length - 1)]);
}

function makeCurrent(all, row) {
  all.forEach((other) => other.classList.remove("is-current"));
  row.classList.add("is-current");
  row.scrollIntoView({ block: "nearest" });
  if (isTyping(document.activeElement)) return;
  (row.querySelector("a[data-open-row]") ?? row.querySelector("a, button"))?.focus({ preventScroll: true });
}

// A list that is drawn anew under somebody's hands keeps its current row.
const addressOf = (row) => row?.querySelector("a[data-open-row]")?.getAttribute("href");
let kept = null;
document.addEventListener("htmx:before:swap", () => {
  kept = addressOf(document.querySelector("tr.is-current")) ?? kept;
});
document.addEventListener("htmx:after:swap", () => {
  const all = rows();
  const row = kept && all.find((one) => addressOf(one) === kept);
  if (row) makeCurrent(all, row);
});

// Whoever leaves the search field has searched already: the list is not drawn anew for it, since a
// key that is pressed at that moment would meet a row that is just being replaced.
document.addEventListener(
  "change",
  (event) => {
    if (event.target instanceof Element && event.target.matches("[data-search]")) event.stopPropagation();
  },
  true,
);

const openRow = () => document.querySelector("tr.is-current a[data-open-row]")?.click();

// --- keys ---------------------------------------------------------------------------------------

const KEYS = {
  j: () => moveRow(1),
  k: () => moveRow(-1),
  "/": () => document.querySelector("[data-search]")?.focus(),
  n: () => document.querySelector("[data-new]")?.click(),
  "?": () => document.querySelector("#keys")?.showModal(),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (isTyping(event.target)) {
    if (event.key === "Escape") {
      // A browser would empty a search field, and the list that was found with it would be gone.
      event.preventDefault();
      event.target.blur();
    }
    // Whoever asks for the search field and is in it already does not mean the letter.
    if (event.key === "/" && event.target.matches("[data-search]") && !event.target.value) event.preventDefault();
    return;
  }
  if (document.querySelector("dialog[open]")) return;
  if (event.key === "Enter" && event.target === document.body) {
    openRow();
    return;
  }
  // A link or button may name its key; that of the current row comes first.
  const named = /^[a-z]$/.test(event.key) && !KEYS[event.key]
    ? document.querySelector(`tr.is-current [data-key="${event.key}"], .head [data-key="${event.key}"]`)
    : null;
  if (named) {
    event.preventDefault();
    named.click();
    return;
  }
  const act = KEYS[event.key];
  if (act) {
    event.preventDefault();
    act();
  }
});

// --- questions ----------------------------------------------------------------------------------

document.addEventListener("submit", (event) => {
  const form = event.target;
  const question = form.dataset.ask;
  if (!question || form.dataset.answered) return;
  event.preventDefault();
  const dialog = document.querySelector("#confirm");
  dialog.querySelector("#confirm-words").textContent = question;
  dialog.returnValue = "no";
  dialog.addEventListener(
    "close",
    () => {
      if (dialog.returnValue !== "yes") return;
      form.dataset.answered = "yes";
      form.requestSubmit();
    },
    { once: true },
  );
  dialog.showModal();
});

// A form that is on its way is not sent a second time by a second click.
document.addEventListener("submit", (event) => {
  if (event.defaultPrevented || event.target.method === "dialog") return;
  const button = event.submitter;
  if (button) {
    button.setAttribute("aria-busy", "true");
    setTimeout(() => button.removeAttribute("aria-busy"), 8000);
  }
});

// --- headers ------------------------------------------------------------------------------------

// A long table that is on the page as a whole is searched where it is.
document.addEventListener("input", (event) => {
  const field = event.target;
  if (!(field instanceof HTMLInputElement) || !field.dataset.filter) return;
  const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const row of document.querySelectorAll(`${field.dataset.filter} > tbody > tr`)) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every((word) => text.includes(word));
  }
});

// A picture that cannot be drawn gives its place to a word. Errors do not bubble.
document.addEventListener(
  "error",
  (event) => {
    if (event.target instanceof HTMLImageElement) sayInstead(event.target);
  },
  true,
);
// A copy: the collection lives, and would leave out the one behind each that is replaced.
for (const picture of [...document.images]) {
  // Some failed before this script was there to hear of it.
  if (picture.complete && !picture.naturalWidth) sayInstead(picture);
}

function sayInstead(picture) {
  if (!picture.dataset.else) return;
  const words = document.createElement("span");
  words.className = `${picture.className} none`;
  words.textContent = picture.dataset.else;
  picture.replaceWith(words);
}

// --- small things -------------------------------------------------------------------------------

document.addEventListener("click", async (event) => {
  const target = event.target instanceof Element ? event.target.closest("[data-copy], [data-theme-switch], [data-open]") : null;
  if (!target) return;
  if (target.dataset.open) document.querySelector(target.dataset.open)?.showModal();
  if ("themeSwitch" in target.dataset) switchTheme();
  if ("copy" in target.dataset) {
    const words = target.textContent;
    try {
      await navigator.clipboard.writeText(target.dataset.copy);
      target.textContent = "Copied";
    } catch {
      // Browsers allow it on secure addresses only: mark the text, for Ctrl+C.
      getSelection().selectAllChildren(target.previousElementSibling);
      target.textContent = "Press Ctrl+C";
    }
    setTimeout(() => (target.textContent = words), 2000);
  }
});

function switchTheme() {
  const root = document.documentElement;
  const isDark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = isDark ? "light" : "dark";
  try {
    localStorage.setItem("theme", root.dataset.theme);
  } catch {
    // It then lasts until the next page.
  }
}
