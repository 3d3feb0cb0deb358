// The page of the chat: the topics of the current room, and forms that send messages.

import { showStream } from "./badge.js";
import { Conversation } from "./conversation.js";
import { at, fit, hasKeyboard, make, onSubmit, postJson, queue } from "./helpers.js";
import { Members } from "./members.js";
import { Outbox } from "./outbox.js";
import { openStream } from "./session.js";
import { signIn } from "./sign-in.js";

const TYPING_INTERVAL = 2_500; // milliseconds between two typing notices: two tabs stay below the rate limit
const RETRY = 2_000; // milliseconds until the page loads the room again after a failure
const HISTORY_TIME = 400; // milliseconds after which screen readers announce new messages

const text = at("text");
const HINT = hasKeyboard ? "Enter sends, Shift+Enter starts a new line" : "";

const me = await signIn(at("sign-in"));
const { rooms, max_text: maxText } = await load("rooms");
const outbox = new Outbox(me);
const members = new Members({ list: at("names"), count: at("count"), typing: at("typing"), me });
const conversation = new Conversation(
  { scroller: at("scroller"), messages: at("messages"), pending: at("pending"), newer: at("newer"), empty: at("empty") },
  { me, onResend: (entry) => outbox.resend(entry), onDiscard: (entry) => outbox.discard(entry) },
);
const drafts = new Map(); // texts by room
const shown = new Set(); // keys of the messages of the current room
let room = "";
let stream = null;
let lastTyping = -TYPING_INTERVAL;
let unread = 0; // messages received while the page was hidden

// Rooms.

async function load(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(response.status);
  return response.json();
}

function roomInAddress() {
  return new URLSearchParams(location.search).get("room") ?? rooms[0].name;
}

function showRooms() {
  at("rooms").replaceChildren(
    ...rooms.map(({ name }) => {
      const link = make("a", "", `#${name}`, make("span", "room-count"));
      Object.assign(link, { href: `?room=${encodeURIComponent(name)}`, id: `room-${name}` });
      link.addEventListener("click", (event) => {
        if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return; // opens a new tab or window
        event.preventDefault();
        if (name === room) return;
        history.pushState(null, "", link.href);
        enter(name);
      });
      return make("li", "", link);
    }),
  );
}

function showCount(name, present) {
  const count = at(`room-${name}`).querySelector(".room-count");
  count.textContent = present || "";
  count.title = `${present} here`;
}

function enter(name, notice = "") {
  drafts.set(room, text.value);
  stream?.close();
  room = name;
  const known = rooms.find((entry) => entry.name === name);
  at("room").textContent = known ? `#${name}` : "No such room";
  at("about").textContent = known?.about ?? "";
  at("composer").inert = !known;
  at("connection").hidden = !known;
  for (const { name } of rooms) {
    const link = at(`room-${name}`);
    if (name === room) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  at(`room-${name}`)?.classList.remove("unread");
  showNotice(known ? notice : `There is no room “${name}”. Choose another room.`);
  showTitle();
  conversation.clear();
  shown.clear();
  at("empty").hidden = !known;
  at("show-people").hidden = !known;
  members.set([]);
  outbox.forgetSent();
  for (const entry of outbox.of(name)) conversation.showPending(entry);
  setText(drafts.get(name) ?? "");
  if (known) listen();
  if (known && hasKeyboard) text.focus(); // on a phone, this would open the keyboard
}

/** Reads the topics of the current room. All tabs of the user share one stream; while it has the room, the user is a member. */
function listen() {
  const here = (stream = openStream([`chat/${room}/messages`, `chat/${room}/presence`, "chat/rooms"]));
  // Events wait while the page loads past messages. If that fails, it loads them again.
  const inTurn = queue((error) => error && setTimeout(() => here === stream && update(), RETRY));
  const on = (type, listener) =>
    here.addEventListener(type, (event) => inTurn(() => here === stream && listener(JSON.parse(event.data))));
  const update = () => inTurn(() => here === stream && showRoom());
  on("message", showMessage);
  on("join", ({ name }) => showChange(name, "joined"));
  on("leave", ({ name }) => showChange(name, "left"));
  on("typing", ({ name }) => members.startTyping(name));
  on("count", ({ room, present }) => showCount(room, present));
  on("activity", ({ room }) => showActivity(room));
  // "reset": the server was started, and the rooms are empty.
  for (const type of ["open", "gap", "reset"]) here.addEventListener(type, update);
  at("messages").parentElement.setAttribute("aria-busy", "true");
  showStream(here);
}

// What the server has.

/** Shows the members of all rooms, and the messages of this one that the page does not have. */
async function showRoom() {
  const [{ rooms }, { messages }] = await Promise.all([load("rooms"), load(`messages?room=${encodeURIComponent(room)}`)]);
  members.set(rooms.find(({ name }) => name === room).names);
  for (const { name, names } of rooms) showCount(name, names.length);
  if (shown.size && !messages.some((message) => shown.has(keyOf(message)))) {
    enter(room, "Some messages that you missed are no longer available. These are the last messages.");
    return;
  }
  for (const message of messages) showMessage(message);
  setTimeout(() => at("messages").parentElement.setAttribute("aria-busy", "false"), HISTORY_TIME);
  outbox.resendWaiting();
}

// Received events.

const keyOf = ({ name, key }) => `${name} ${key}`;

function showMessage(message) {
  if (shown.has(keyOf(message))) return;
  shown.add(keyOf(message));
  if (message.name === me) outbox.delivered(message.key);
  else if (document.hidden) showTitle((unread += 1));
  members.stopTyping(message.name);
  conversation.add(message);
}

function showChange(name, what) {
  const isNews = what === "joined" ? members.join(name) : members.leave(name);
  if (isNews && name !== me) conversation.note(`${name} ${what}`);
}

function showActivity(name) {
  if (name !== room) at(`room-${name}`).classList.add("unread");
}

function showTitle() {
  document.title = `${unread ? `(${unread}) ` : ""}#${room} · tickertape`;
}

function showNotice(sentence) {
  at("notice-text").textContent = sentence;
  at("notice").hidden = !sentence;
}

// The composer.

function setText(value) {
  text.value = value;
  showText();
}

/** Adapts the height of the field to its text, and shows the remaining number of characters. */
function showText() {
  fit(text);
  const left = maxText - [...text.value.trim()].length;
  const count = Math.abs(left).toLocaleString("en");
  at("said").textContent = left < 0 ? `${count} characters too long` : "";
  at("hint").textContent = left < maxText / 10 && left >= 0 ? `${count} characters left` : HINT;
}

function send() {
  const value = text.value.trim();
  if (!value) at("said").textContent = "Write a message first.";
  if (!value || [...value].length > maxText) return;
  setText("");
  conversation.toEnd();
  outbox.add(room, value);
}

async function notifyTyping() {
  if (!text.value.trim() || stream.state !== "open" || performance.now() - lastTyping < TYPING_INTERVAL) return;
  lastTyping = performance.now();
  try {
    await postJson("typing", { room });
  } catch {
    // A lost typing notice does no harm.
  }
}

text.addEventListener("input", () => {
  showText();
  notifyTyping();
});
onSubmit(at("composer"), text, send);
at("composer").addEventListener("submit", () => text.focus()); // a phone keeps its keyboard open
outbox.addEventListener("change", ({ detail: entry }) => {
  if (entry.room === room) conversation.showPending(entry);
  else if (entry.state === "sent") outbox.discard(entry); // the history of that room contains it
});
at("show-people").addEventListener("click", () => {
  const isShown = at("people").classList.toggle("shown");
  at("show-people").setAttribute("aria-expanded", isShown);
});
at("notice-close").addEventListener("click", () => {
  showNotice("");
  text.focus();
});
addEventListener("online", () => outbox.resendWaiting());
addEventListener("popstate", () => enter(roomInAddress()));
document.addEventListener("visibilitychange", () => {
  unread = 0;
  showTitle();
});

at("chat").hidden = false;
at("sign-in").classList.remove("card");
at("me").append(at("sign-in"));
showRooms();
enter(roomInAddress());
