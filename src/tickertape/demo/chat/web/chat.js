// The page of the chat: one stream for the room that one is in, and forms that post.

import { showConnection } from "./badge.js";
import { Log } from "./chat-log.js";
import { Outbox } from "./chat-outbox.js";
import { People } from "./chat-people.js";
import { Connection } from "./connection.js";
import { signIn } from "./sign-in.js";

const SIGN_EVERY = 2_500; // milliseconds between two signs that one is typing: two tabs together stay below what the server takes
const SETTLED = 400; // milliseconds after which what comes is news, and is read out

const at = (id) => document.getElementById(id);
const text = at("text");
const withKeyboard = matchMedia("(pointer: fine)").matches;
const HINT = withKeyboard ? "Enter sends, Shift+Enter starts a new line" : "";

showConnection(new Connection("events", {})); // none yet
const me = await signIn(at("sign-in"));
const { rooms, longest } = await (await fetch("rooms")).json(); // longest: characters of a message
const outbox = new Outbox(me);
const people = new People({ list: at("names"), count: at("count"), typing: at("typing"), me });
const log = new Log(
  { scroller: at("scroller"), messages: at("messages"), pending: at("pending"), newer: at("newer"), empty: at("empty") },
  { me, onResend: (entry) => outbox.resend(entry), onDiscard: (entry) => outbox.discard(entry) },
);
const drafts = new Map(); // texts by room
let room = "";
let connection = null;
let lastSign = -SIGN_EVERY;
let unread = 0; // messages that came while the page was hidden

// Rooms.

function roomInAddress() {
  return new URLSearchParams(location.search).get("room") ?? rooms[0].name;
}

function showRooms() {
  at("rooms").replaceChildren(
    ...rooms.map(({ name }) => {
      const link = Object.assign(document.createElement("a"), { href: `?room=${encodeURIComponent(name)}`, id: `room-${name}` });
      const count = Object.assign(document.createElement("span"), { className: "room-count" });
      link.append(`#${name}`, count);
      link.addEventListener("click", (event) => {
        if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return; // a tab of its own
        event.preventDefault();
        if (name === room) return;
        history.pushState(null, "", link.href);
        enter(name);
      });
      const item = document.createElement("li");
      item.append(link);
      return item;
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
  connection?.close();
  room = name;
  const known = rooms.find((entry) => entry.name === name);
  at("room").textContent = known ? `#${name}` : "No such room";
  at("about").textContent = known?.about ?? "";
  at("composer").inert = !known;
  for (const { name } of rooms) {
    const link = at(`room-${name}`);
    if (name === room) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  at(`room-${name}`)?.classList.remove("unread");
  tell(known ? notice : `There is no room “${name}”. Choose one of the others.`);
  showTitle();
  log.clear();
  at("empty").hidden = !known;
  at("show-people").hidden = !known;
  people.set([]);
  outbox.forgetSent();
  for (const entry of outbox.of(name)) log.showPending(entry);
  write(drafts.get(name) ?? "");
  listen(known);
  if (known && withKeyboard) text.focus(); // elsewhere, that would bring a keyboard up
}

/** Opens the stream of the room that one has entered; without its place in another, it begins with the last messages. */
function listen(isOpen) {
  const opened = new Connection(`events?room=${encodeURIComponent(room)}`, {
    message: (event) => showMessage(JSON.parse(event.data)),
    present: (event) => showPresent(JSON.parse(event.data)),
    join: (event) => showChange(JSON.parse(event.data).name, "joined"),
    leave: (event) => showChange(JSON.parse(event.data).name, "left"),
    typing: (event) => people.writes(JSON.parse(event.data).name),
    count: (event) => showCount(JSON.parse(event.data).room, JSON.parse(event.data).present),
    activity: (event) => showActivity(JSON.parse(event.data).room),
    "stream:gap": () => enter(room, "You were away for so long that not all of it is kept. These are the last messages."),
  });
  connection = opened;
  opened.addEventListener("change", () => {
    if (opened.state === "open") {
      setTimeout(() => at("messages").parentElement.setAttribute("aria-busy", "false"), SETTLED);
      outbox.resendWaiting();
    }
    if (opened.state === "lost") checkSession();
  });
  at("messages").parentElement.setAttribute("aria-busy", "true");
  showConnection(opened);
  if (isOpen) opened.open();
}

/** Asks for the name anew, if that is why the stream was refused. */
async function checkSession() {
  try {
    const response = await fetch("../session");
    if (response.ok && (await response.json()).name !== me) location.reload();
  } catch {
    // The server is not there: nobody was signed out by that.
  }
}

// What comes.

function showMessage(message) {
  if (message.name === me) outbox.delivered(message.key);
  else if (document.hidden) showTitle((unread += 1));
  people.wrote(message.name);
  log.add(message);
}

function showPresent({ names, counts }) {
  people.set(names);
  for (const [name, present] of Object.entries(counts)) showCount(name, present);
}

function showChange(name, what) {
  const isNews = what === "joined" ? people.join(name) : people.leave(name);
  if (isNews && name !== me) log.note(`${name} ${what}`);
}

function showActivity(name) {
  if (name !== room) at(`room-${name}`).classList.add("unread");
}

function showTitle() {
  document.title = `${unread ? `(${unread}) ` : ""}#${room} · tickertape`;
}

function tell(sentence) {
  at("notice-text").textContent = sentence;
  at("notice").hidden = !sentence;
}

// What one writes.

function write(value) {
  text.value = value;
  fit();
}

/** Makes the field as high as its text, and tells how much more there is place for. */
function fit() {
  text.style.height = "auto";
  text.style.height = `${text.scrollHeight + 2}px`;
  const left = longest - [...text.value.trim()].length;
  const count = Math.abs(left).toLocaleString("en");
  at("said").textContent = left < 0 ? `${count} characters too long` : "";
  at("hint").textContent = left < longest / 10 && left >= 0 ? `${count} characters left` : HINT;
}

function send() {
  const value = text.value.trim();
  if (!value) at("said").textContent = "There is nothing to send yet.";
  if (!value || [...value].length > longest) return;
  write("");
  log.toEnd();
  outbox.add(room, value);
}

async function sign() {
  if (!text.value.trim() || connection.state !== "open" || performance.now() - lastSign < SIGN_EVERY) return;
  lastSign = performance.now();
  try {
    const body = JSON.stringify({ room });
    await fetch("typing", { method: "POST", headers: { "Content-Type": "application/json" }, body });
  } catch {
    // Nobody misses it.
  }
}

text.addEventListener("input", () => {
  fit();
  sign();
});
text.addEventListener("keydown", (event) => {
  // Enter that ends the choice of a character is not for us.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  send();
});
at("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
  text.focus();
});
outbox.addEventListener("change", ({ detail: entry }) => {
  if (entry.room === room) log.showPending(entry);
  else if (entry.state === "sent") outbox.discard(entry); // it will be among the last messages there
});
at("show-people").addEventListener("click", () => {
  const isShown = at("people").classList.toggle("shown");
  at("show-people").setAttribute("aria-expanded", isShown);
});
at("notice-close").addEventListener("click", () => {
  tell("");
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
