import { showConnection } from "./badge.js";
import { Connection } from "./connection.js";
import { at } from "./helpers.js";


const connection = new Connection("events", {
  update(event) {
    const [, time] = /T(\d\d:\d\d:\d\d)/.exec(JSON.parse(event.data).data);
    at("now").textContent = time;
    at("now").classList.remove("idle");
  },
});

at("command").textContent = `curl -N ${new URL("events", document.baseURI)}`;
showConnection(connection);
connection.open();
