// A list that keeps its newest rows on top. Shared by every page that shows a log.

const KEPT = 200; // rows: more than users scroll through, and few enough for a phone

export class Rows {
  #list;
  #empty;
  #wanted = "";

  /** Fills `list`; `empty` is shown while there is nothing in it. */
  constructor(list, empty) {
    this.#list = list;
    this.#empty = empty;
  }

  /** Adds a row of cells, each a pair of a class name and a text. */
  add(cells, className = "") {
    const row = document.createElement("li");
    row.className = className;
    for (const [name, text] of cells) {
      const cell = document.createElement("span");
      cell.className = name;
      cell.textContent = text; // always text, never markup
      row.append(cell);
    }
    row.hidden = !this.#isWanted(row);
    this.#list.prepend(row);
    while (this.#list.childElementCount > KEPT) this.#list.lastElementChild.remove();
    this.#empty.hidden = true;
  }

  /** Shows only rows that contain a text. */
  filter(text) {
    this.#wanted = text.toLowerCase();
    for (const row of this.#list.children) row.hidden = !this.#isWanted(row);
  }

  #isWanted(row) {
    return !this.#wanted || row.textContent.toLowerCase().includes(this.#wanted);
  }

  clear() {
    this.#list.replaceChildren();
    this.#empty.hidden = false;
  }
}
