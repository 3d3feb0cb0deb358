import { showConnection } from "./badge.js";
import { Connection } from "./connection.js";
import { DesktopAlerts } from "./desktop.js";
import { Favicon } from "./favicon.js";
import { Inbox } from "./inbox.js";
import { NotificationList } from "./notification-list.js";
import { explain } from "./problem.js";
import { signIn } from "./sign-in.js";
import { Toasts } from "./toasts.js";

const at = (id) => document.getElementById(id);
const TITLE = document.title;
const favicon = new Favicon();
const toasts = new Toasts(at("toasts"));
const desktop = new DesktopAlerts(at("desktop"), at("trouble"));
const list = new NotificationList(at("inbox"), (id) => markRead({ ids: [id] }), at("inbox-heading"));

async function request(path, options = {}) {
  const response = await fetch(new URL(path, document.baseURI), options);
  if (!response.ok) throw new Error(await explain(response));
  return response.json();
}

const post = (path, body) =>
  request(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), keepalive: true });

const inbox = new Inbox((query) => request(`inbox?${new URLSearchParams(query)}`));
let name = ""; // as it is shown
let user = ""; // as notifications have it

// One thing after the other: an event that comes while the inbox is being loaded waits for it.
let work = Promise.resolve();
function inTurn(task) {
  work = work.then(task).then(() => (at("trouble").textContent = ""), (error) => (at("trouble").textContent = sentence(error)));
  return work;
}

// What fetch() throws itself is a TypeError, in other words in each browser.
const sentence = (error) => (error instanceof TypeError ? "The server cannot be reached." : error.message);

// Once for all that comes at one moment: after a long absence that is a lot.
let drawing = 0;
inbox.addEventListener("change", () => {
  drawing ||= setTimeout(draw);
});

function draw() {
  clearTimeout(drawing);
  drawing = 0;
  const { unread } = inbox;
  list.show([...inbox.notifications.values()]);
  at("empty").hidden = inbox.notifications.size > 0;
  at("older").hidden = !inbox.more;
  at("read-all").disabled = !unread;
  at("unread").hidden = !unread;
  at("unread").textContent = `${unread} unread`;
  document.title = unread ? `(${unread}) ${TITLE}` : TITLE;
  favicon.show(unread);
}

async function load() {
  const page = await inbox.load();
  user = page.user;
  return page.cursor;
}

function take(notification) {
  // Somebody else has signed in, in another tab of this browser: the page is theirs now.
  if (notification.user !== user) location.reload();
  else if (inbox.add(notification)) {
    toasts.show(notification);
    desktop.show(notification);
  }
}

function markRead(which) {
  const answer = post("read", which);
  answer.then(() => inTurn(() => inbox.mark(which)), (error) => inTurn(() => Promise.reject(error)));
}

const connection = new Connection("events", {
  notification: (event) => inTurn(() => take(JSON.parse(event.data))),
  read: (event) => inTurn(() => inbox.mark(JSON.parse(event.data))),
  "stream:gap": () => inTurn(load), // the log no longer has what came meanwhile; the table has
});

connection.addEventListener("change", () => {
  if (connection.state === "open" && !user) inTurn(load); // it could not be had before
  if (connection.state === "lost") checkSession();
});

// Whoever signs out in one tab, or in as somebody else, does so in all of them.
async function checkSession() {
  const session = await request("../session").catch(() => null);
  if (session && name && session.name !== name) location.reload();
}
addEventListener("visibilitychange", () => document.hidden || checkSession());

at("read-all").addEventListener("click", () => {
  markRead({ up_to: inbox.newest });
  at("inbox-heading").focus();
});
at("older").addEventListener("click", () => inTurn(async () => {
  const { size } = inbox.notifications;
  await inbox.loadOlder();
  draw();
  list.focus(size); // the button may be gone; who reads on begins here
}));

at("send").addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = event.target;
  const said = at("sent");
  const fields = Object.fromEntries(new FormData(form));
  try {
    await post("./", fields);
    said.textContent = `Sent to ${fields.user}.`;
    for (const name of ["title", "body", "link"]) form.elements[name].value = "";
    form.elements.title.focus();
  } catch (error) {
    said.textContent = sentence(error);
    said.classList.add("wrong");
    return;
  }
  said.classList.remove("wrong");
});

function showCommand() {
  const example = JSON.stringify({ user: name, title: "Hello", body: "From a terminal", link: "/" });
  const parts = [`curl ${new URL("./", document.baseURI)}`, "-H 'Content-Type: application/json'", `-d '${example}'`];
  for (const part of parts) {
    const span = document.createElement("span"); // broken between these, if anywhere
    span.textContent = part;
    at("command").append(span, " ");
  }
}

showConnection(connection);
name = await signIn(at("sign-in"));
at("signed-in").hidden = false;
at("send").elements.user.value = name;
showCommand();
await inTurn(async () => {
  connection.lastEventId = await load();
});
connection.open();
