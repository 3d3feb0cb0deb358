// One question with its answer: the words, and the state in words.

import { make, makeButton } from "./helpers.js";

const STATES = {
  done: "Complete",
  cancelled: "Stopped",
  error: "Failed",
  orphaned: "Not complete: the server stopped while it wrote this answer",
  gone: "Not complete: the server no longer has this answer",
};

export class Answer {
  #question = make("p", "answer-question");
  #text = document.createTextNode("");
  #state = make("span", "", "Writing");
  #foot = make("p", "answer-state", this.#state);
  #onAskAgain;

  state = "active";
  element = make("li", "answer", this.#question, make("p", "answer-text", this.#text), this.#foot);

  /** `onAskAgain` is a function of the question. */
  constructor(run, onAskAgain) {
    this.run = run;
    this.#onAskAgain = onAskAgain;
    this.element.dataset.state = this.state;
  }

  ask(question) {
    this.#question.replaceChildren(make("span", "unseen", "You asked: "), question);
  }

  add(words) {
    this.#text.appendData(words);
  }

  /** Replaces the text, for an answer that came whole. */
  set(text) {
    this.#text.data = text;
  }

  /** Shows the end, and returns it as a sentence. */
  end(state, message) {
    const words = this.#text.data.split(/\s+/).filter(Boolean).length;
    const sentence = state === "error" && message ? `Failed: ${message}` : STATES[state];
    this.state = this.element.dataset.state = state;
    this.#state.textContent = state === "done" || state === "cancelled" ? `${sentence} · ${words} ${words === 1 ? "word" : "words"}` : sentence;
    if (state !== "done" && this.#question.hasChildNodes()) {
      const again = makeButton("Ask again", "quiet small");
      again.addEventListener("click", () => this.#onAskAgain(this.#question.lastChild.textContent));
      this.#foot.append(again);
    }
    return sentence;
  }
}
