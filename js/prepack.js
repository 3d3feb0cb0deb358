// Copies the module and the license into the package: their places are elsewhere in the repository.

import { copyFileSync } from "node:fs";

for (const path of ["../src/tickertape/browser/tickertape.js", "../LICENSE"]) {
  const source = new URL(path, import.meta.url);
  copyFileSync(source, new URL(path.split("/").at(-1), import.meta.url));
}
