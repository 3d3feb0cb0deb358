import { showStream } from "./badge.js";
import { showCommand } from "./command.js";
import { at, openStream } from "./helpers.js";

const stream = openStream("clock/updates", 1); // with the last update at once

stream.addEventListener("update", (event) => {
  const [, time] = /T(\d\d:\d\d:\d\d)/.exec(JSON.parse(event.data).data);
  at("now").textContent = time;
  at("now").classList.remove("idle");
});

showCommand(`curl -N ${new URL("events", document.baseURI)}`);
showStream(stream);
