// The page of the assistant: the answers, the topic of the answer that is being written, and a form.

import { Answer } from "./answer.js";
import { showStream } from "./badge.js";
import { at, fit, hasKeyboard, make, makeButton, onSubmit, postJson, randomKey } from "./helpers.js";
import { explain } from "./problem.js";
import { openStream } from "./session.js";

const QUESTIONS = ["What is an event stream?", "How does a reader resume?", "Please fail in the middle"];
const UNREACHABLE = "The server cannot be reached. Your question is still here: send it again.";
const NEAR_THE_END = 120; // pixels
const READING_TIME = 20_000; // milliseconds after which screen readers have read the last sentence

const field = at("question");
const tabs = new BroadcastChannel("assistant"); // the other tabs of this browser
const answers = new Map(); // by run
let current = null; // the answer that is being written
let stream = null;
let sentence = ""; // the words that screen readers have not read yet
let maxQuestion = Infinity; // characters
let sent = { question: "", key: "" }; // a question that is sent again keeps its key, so that it has one answer
let isSending = false;

// Answers.

function answerOf(run) {
  if (!answers.has(run)) {
    const answer = new Answer(run, ask);
    answers.set(run, answer);
    at("answers").append(answer.element);
    at("empty").hidden = true;
  }
  return answers.get(run);
}

function showTheEnd() {
  document.documentElement.scrollTop = document.documentElement.scrollHeight;
}

/** Runs `change`, and shows the end of the page if it was shown before. */
function keepTheEnd(change) {
  const root = document.documentElement;
  const distance = root.scrollHeight - root.clientHeight - root.scrollTop;
  change();
  if (distance < NEAR_THE_END) showTheEnd();
}

/** Shows the answers that the server has. Throws if it cannot be reached. */
async function load() {
  const response = await fetch("answers");
  if (!response.ok) throw new Error(await explain(response));
  const { answers: known, max_question } = await response.json();
  maxQuestion = max_question;
  for (const { run, topic, state, question, text, error } of known) {
    if (state === "active") {
      follow(run, topic);
    } else if (answerOf(run).state === "active") {
      if (question) answerOf(run).ask(question); // the log may have lost the beginning
      answerOf(run).set(text);
      end(answerOf(run), state, error);
    }
  }
  if (current && !known.some(({ run }) => run === current.run)) end(current, "gone");
  at("empty").hidden = answers.size > 0;
}

/** Reads an answer from its first word, and then as it is written. */
function follow(run, topic) {
  if (answers.has(run)) return;
  const answer = answerOf(run);
  current = answer;
  sentence = "";
  at("announced").replaceChildren();
  // The id of a run is the position before its first word, so a tab that joins later gets all words.
  stream = openStream(topic, { lastEventId: run });
  stream.addEventListener("question", (event) => keepTheEnd(() => answer.ask(JSON.parse(event.data).text)));
  stream.addEventListener("run:text", (event) => keepTheEnd(() => add(answer, event.data)));
  stream.addEventListener("run:end", (event) => {
    const { state, error } = JSON.parse(event.data);
    keepTheEnd(() => end(answer, state, error));
  });
  stream.addEventListener("gap", () => answer.add(" […] "));
  // The server may be another one now, without this answer.
  stream.addEventListener("error", () => answer.state === "active" && load().catch(() => {}));
  showStream(stream);
  showComposer();
}

function add(answer, words) {
  answer.add(words);
  sentence += words;
  if (!sentence.endsWith(".")) return;
  announce(sentence);
  sentence = "";
}

function end(answer, state, message) {
  const outcome = answer.end(state, message);
  if (answer !== current) return;
  announce(sentence);
  announce(outcome);
  // Otherwise a reader that moves through the page would find the answer twice.
  setTimeout(() => current || at("announced").replaceChildren(), READING_TIME);
  stream.close();
  current = null;
  showComposer();
}

/** Lets screen readers read a sentence. The answer itself is not announced: it changes word by word. */
function announce(text) {
  if (text) at("announced").append(make("p", "", text));
}

// The form.

function showComposer() {
  at("stop").hidden = !current;
  at("ask").hidden = Boolean(current);
  at("connection").hidden = !current;
  at("said").textContent = "";
}

async function ask(question) {
  if (isSending) return;
  if (current) {
    at("said").textContent = "Wait for the end of this answer, or stop it.";
    return;
  }
  if (question !== sent.question) sent = { question, key: randomKey() };
  isSending = true;
  at("said").textContent = "";
  try {
    const response = await postJson("answers", sent);
    if (!response.ok) {
      at("said").textContent = await explain(response);
      if (response.status === 409) await load(); // another tab was faster
      return;
    }
    const { run, topic } = await response.json();
    sent = { question: "", key: "" };
    if (field.value.trim() === question) field.value = "";
    fit(field);
    follow(run, topic);
    tabs.postMessage({ run, topic });
    showTheEnd();
  } catch {
    at("said").textContent = UNREACHABLE;
    if (!field.value) field.value = question;
  } finally {
    isSending = false;
  }
}

async function stop() {
  try {
    const response = await postJson(`answers/${current.run}/stop`, {});
    if (!response.ok) at("said").textContent = await explain(response);
  } catch {
    at("said").textContent = "The server cannot be reached.";
  }
  if (hasKeyboard) field.focus(); // the button disappears
}

function submit() {
  const question = field.value.trim();
  const length = [...question].length;
  if (!question) at("said").textContent = "Write a question first.";
  else if (length > maxQuestion) at("said").textContent = `${length - maxQuestion} characters too long`;
  else ask(question);
}

field.addEventListener("input", () => fit(field));
onSubmit(at("composer"), field, submit);
at("composer").addEventListener("submit", () => hasKeyboard && field.focus()); // the button disappears
at("stop").addEventListener("click", stop);
at("suggestions").append(
  ...QUESTIONS.map((question) => {
    const button = makeButton(question, "quiet small");
    button.addEventListener("click", () => ask(question));
    return button;
  }),
);
tabs.addEventListener("message", ({ data: { run, topic } }) => follow(run, topic));
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && !current) load().catch(() => {}); // the browser may have frozen this tab
});

showComposer();
try {
  await load();
  if (answers.size) showTheEnd();
} catch (error) {
  at("said").textContent = error.message;
}
if (hasKeyboard) field.focus();
