import { DesktopAlerts, Favicon, Toasts } from "./alerts.js";
import { showStream } from "./badge.js";
import { showCommand } from "./command.js";
import { at, postJson, queue } from "./helpers.js";
import { Inbox, NotificationList } from "./inbox.js";
import { explain } from "./problem.js";
import { checkUser, openStream } from "./session.js";
import { signIn } from "./sign-in.js";
import { EventStream } from "./tickertape.js";

const RETRY = 3_000; // milliseconds until the page requests the inbox again after a failure
const TITLE = document.title;
const favicon = new Favicon();
const toasts = new Toasts(at("toasts"));
const desktop = new DesktopAlerts(at("desktop"), at("problem"));
const list = new NotificationList(at("inbox"), (id) => markRead({ ids: [id] }), at("inbox-heading"));

async function answerOf(request) {
  const response = await request;
  if (!response.ok) throw new Error(await explain(response));
  return response.json();
}

const post = (path, body) => answerOf(postJson(path, body, { keepalive: true }));

const inbox = new Inbox((query) => answerOf(fetch(`inbox?${new URLSearchParams(query)}`)));
let user = ""; // id of the user, as in notifications
let page; // the newest page of the inbox, with the position of the stream

const inTurn = queue((error) => (at("problem").textContent = error ? sentence(error) : ""));

// fetch() throws a TypeError with a different message in each browser.
const sentence = (error) => (error instanceof TypeError ? "The server cannot be reached." : error.message);

// Draw once for all events that arrive together.
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
  page = await inbox.load();
  user = page.user;
}

function receive(notification) {
  // Another user has signed in in another tab of this browser.
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

function listen() {
  const { topic, cursor: lastEventId } = page;
  const stream = topic ? openStream(topic, { lastEventId }) : openOwnStream(lastEventId);
  stream.addEventListener("notification", (event) => inTurn(() => receive(JSON.parse(event.data))));
  stream.addEventListener("read", (event) => inTurn(() => inbox.mark(JSON.parse(event.data))));
  stream.addEventListener("gap", () => inTurn(load)); // the log no longer has the missed events, but the table has the rows
  showStream(stream);
}

/** Opens the stream for notifications in PostgreSQL. Several servers share them, so they are not among the topics of this one. */
function openOwnStream(lastEventId) {
  const stream = new EventStream("events", { lastEventId, shared: name });
  stream.addEventListener("error", checkUser);
  return stream;
}

at("read-all").addEventListener("click", () => {
  markRead({ up_to: inbox.newest });
  at("inbox-heading").focus();
});
at("older").addEventListener("click", () => inTurn(async () => {
  const { size } = inbox.notifications;
  await inbox.loadOlder();
  draw();
  list.focus(size); // the button may be gone: continue at the first new row
}));

at("send").addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = event.target;
  const message = at("sent");
  const fields = Object.fromEntries(new FormData(form));
  try {
    await post("./", fields);
    message.textContent = `Sent to ${fields.user}.`;
    for (const name of ["title", "body", "link"]) form.elements[name].value = "";
    form.elements.title.focus();
  } catch (error) {
    message.textContent = sentence(error);
    message.classList.add("wrong");
    return;
  }
  message.classList.remove("wrong");
});

function showExample() {
  const example = JSON.stringify({ user: name, title: "Hello", body: "From a terminal", link: "/" });
  showCommand(`curl ${new URL("./", document.baseURI)}`, "-H 'Content-Type: application/json'", `-d '${example}'`);
}

const name = await signIn(at("sign-in"));
at("signed-in").hidden = false;
at("send").elements.user.value = name;
showExample();
for (let wait = 0; !page; wait = RETRY) {
  await new Promise((resolve) => setTimeout(resolve, wait));
  await inTurn(load);
}
listen();
