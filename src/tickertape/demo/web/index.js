import { showConnection } from "./badge.js";
import { Connection } from "./connection.js";

const now = document.getElementById("now");

const connection = new Connection("events", {
  update(event) {
    const [, time] = /T(\d\d:\d\d:\d\d)/.exec(JSON.parse(event.data).data);
    now.textContent = time;
    now.classList.remove("idle");
  },
});

document.getElementById("command").textContent = `curl -N ${new URL("events", document.baseURI)}`;
showConnection(connection);
connection.open();
