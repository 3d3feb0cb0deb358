// The icon of the tab, with the number of unread notifications.

const SIZE = 64;

/** Shows `count` on the icon, or the original icon for 0. */
export class Favicon {
  #link = document.querySelector('link[rel="icon"]');
  #plain = this.#link.href;

  show(count) {
    this.#link.href = count ? draw(count > 99 ? "99" : String(count)) : this.#plain;
  }
}

function draw(text) {
  const canvas = Object.assign(document.createElement("canvas"), { width: SIZE, height: SIZE });
  const context = canvas.getContext("2d");
  context.scale(SIZE / 32, SIZE / 32);
  context.fillStyle = "#0b6b53";
  fillPath(context, (path) => path.roundRect(0, 0, 32, 32, 8));
  context.strokeStyle = "#fff";
  context.lineWidth = 3;
  context.lineCap = context.lineJoin = "round";
  context.stroke(new Path2D("M4 20h5l3-9 5 12 4-8h7"));
  context.fillStyle = "#c62828";
  fillPath(context, (path) => path.arc(21, 11, 11, 0, 2 * Math.PI));
  context.fillStyle = "#fff";
  context.font = `700 ${text.length > 1 ? 14 : 17}px system-ui, sans-serif`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillText(text, 21, 12);
  return canvas.toDataURL("image/png");
}

function fillPath(context, make) {
  const path = new Path2D();
  make(path);
  context.fill(path);
}
