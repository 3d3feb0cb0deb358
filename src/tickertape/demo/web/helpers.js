// Short functions for all pages of the demos.

import { make } from "./dom.js";

export { at, make, makeButton } from "./dom.js";

const URLS = /https?:\/\/[^\s<>"]+/gi;
const AFTER_URL = /[.,;:!?'…]+$/; // of the sentence around it

export function postJson(url, body, options = {}) {
  return fetch(url, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), ...options });
}

/** False on touch screens, where the focus on a text field opens a keyboard on the screen. */
export const hasKeyboard = matchMedia("(pointer: fine)").matches;

/** Adapts the height of a text field to its text. */
export function fit(field) {
  field.style.height = "auto";
  field.style.height = `${field.scrollHeight + 2}px`;
}

/** Calls `submit` for the button of a form and for Enter in its text field; Shift+Enter starts a new line. */
export function onSubmit(form, field, submit) {
  field.addEventListener("keydown", (event) => {
    // During input with an input method, Enter selects a character.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    submit();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
}

/** Returns a random key. Browsers provide no randomUUID() on plain HTTP pages of another machine. */
export function randomKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * Returns a function that runs tasks one after another, so that events wait while the page loads past ones. After each
 * task it calls `done`, with the error if it failed.
 */
export function queue(done) {
  let last = Promise.resolve();
  return (task) => (last = last.then(task).then(() => done(), done));
}

/** Returns a text as nodes, with links for the URLs of web pages in it. They open in a new tab, which cannot reach this one. */
export function withLinks(text) {
  const nodes = [];
  let from = 0;
  for (const { 0: found, index } of text.matchAll(URLS)) {
    let url = found.replace(AFTER_URL, "");
    if (url.endsWith(")") && !url.includes("(")) url = url.slice(0, -1).replace(AFTER_URL, "");
    if (!URL.canParse(url)) continue;
    const link = Object.assign(make("a", "", url), { href: url, target: "_blank", rel: "noopener noreferrer" });
    nodes.push(text.slice(from, index), link);
    from = index + url.length;
  }
  return [...nodes, text.slice(from)];
}

const pad = (number) => String(number).padStart(2, "0");

/** Formats a time of day, local and of 24 hours: 09:05:00, or 09:05 without seconds. */
export function timeOf(date, seconds = true) {
  const parts = [date.getHours(), date.getMinutes(), date.getSeconds()];
  return parts.slice(0, seconds ? 3 : 2).map(pad).join(":");
}

/** Formats a date and a time of day: 2025-01-31 09:05:00. */
export function dateTimeOf(date) {
  return `${date.getFullYear()}-${pad(date.getMonth() + 1)}-${pad(date.getDate())} ${timeOf(date)}`;
}
