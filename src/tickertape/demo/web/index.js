import { showStream } from "./badge.js";
import { showCommand } from "./command.js";
import { at } from "./helpers.js";
import { openStream } from "./session.js";

const stream = openStream("clock/updates", { last: 1 }); // with the last update at once

stream.addEventListener("update", (event) => {
  const [, time] = /T(\d\d:\d\d:\d\d)/.exec(JSON.parse(event.data).data);
  at("now").textContent = time;
  at("now").classList.remove("idle");
});

showCommand(`curl -N ${new URL("events", document.baseURI)}`);
showStream(stream);
