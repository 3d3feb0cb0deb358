// The user of this browser, and the one stream that all of its tabs share.

import { postJson } from "./helpers.js";
import { EventStream } from "./tickertape.js";

const SESSION = new URL("../session", import.meta.url);
const STREAM = new URL("../stream", import.meta.url);
const tabs = new BroadcastChannel("session");
let streams = []; // of this page
const paused = [];
let needsUser = false;

/** The name of the user, or "". */
export let user = await readUser("");

async function readUser(otherwise) {
  const response = await fetch(SESSION).catch(() => null);
  return response?.ok ? (await response.json()).name ?? "" : otherwise;
}

/** Reloads the page for another user. A page that needs none continues, in the stream that the tabs of this user share. */
export async function checkUser() {
  const found = await readUser(user); // a server that is not reachable does not sign out the user
  if (found !== user && needsUser) {
    location.reload();
    return;
  }
  if (found !== user) {
    pause();
    user = found;
  }
  for (const stream of paused.splice(0)) stream.open();
}

function pause() {
  const open = streams.filter(({ state }) => state !== "closed");
  for (const stream of open) stream.close();
  paused.push(...open);
}

/** Makes this page one for a user. A sign-in or a sign-out in another tab applies to it too. */
export function requireUser() {
  needsUser = true;
  addEventListener("visibilitychange", () => document.hidden || checkUser());
}

/** Signs in with a name. Returns the response. */
export async function enter(name) {
  const response = await postJson(SESSION, { name });
  if (response.ok) {
    user = (await response.clone().json()).name;
    tabs.postMessage("changed");
  }
  return response;
}

/** Signs out. The server ends the streams of the user, so no tab has one then. */
export async function leave() {
  pause();
  tabs.postMessage("pause");
  await fetch(SESSION, { method: "DELETE" }).catch(() => {});
  tabs.postMessage("changed");
  location.reload();
}

/** Opens a stream of topics, after `lastEventId` or with the `last` events first. All tabs of the user share one connection. */
export function openStream(topics, { last, lastEventId } = {}) {
  const url = new URL(STREAM);
  for (const topic of [topics].flat()) url.searchParams.append("topic", topic);
  if (last) url.searchParams.set("last", last);
  let opener; // the user when the stream was opened
  const stream = new EventStream(url, { shared: () => `for ${(opener = user)}`, lastEventId });
  // If the right to a topic of another tab has ended, the stream of all is refused.
  stream.addEventListener("error", async ({ status }) => {
    if (status !== 401 && status !== 403) return;
    await checkUser();
    if (opener !== user) stream.open();
  });
  streams = [...streams.filter(({ state }) => state !== "closed"), stream];
  return stream;
}

tabs.addEventListener("message", ({ data }) => (data === "pause" ? pause() : checkUser()));
