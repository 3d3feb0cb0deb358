import { showStream } from "./badge.js";
import { at } from "./helpers.js";
import { EventStream } from "./tickertape.js";

const stream = new EventStream("events");

stream.addEventListener("update", (event) => {
  const [, time] = /T(\d\d:\d\d:\d\d)/.exec(JSON.parse(event.data).data);
  at("now").textContent = time;
  at("now").classList.remove("idle");
});

at("command").textContent = `curl -N ${new URL("events", document.baseURI)}`;
showStream(stream);
