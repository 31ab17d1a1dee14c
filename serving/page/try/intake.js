// The ways an image gets in: dropped, pasted, picked, photographed.

import { byId } from "../dom.js";

/** Call `take(file, name)` with each image given, and `refuse(sentence)` for what is none. */
export function startIntake(take, refuse) {
  const offer = (files) => {
    // Some systems know no type for HEIC or TIFF; the server tells by the content.
    const file = [...files].find(({ type }) => type.startsWith("image/")) ?? [...files].find(({ type }) => !type);
    if (file) take(file, file.name);
    else refuse("That is not an image file.");
  };

  for (const id of ["pick", "photograph"]) {
    byId(id).addEventListener("change", ({ target }) => {
      if (target.files.length) offer(target.files);
      target.value = "";
    });
  }

  addEventListener("paste", (event) => {
    if (byId("try").hidden || !event.clipboardData?.files.length) return;
    event.preventDefault();
    offer(event.clipboardData.files);
  });

  // Anywhere on the page: a drop beside the box would make the browser leave the page.
  addEventListener("dragover", (event) => {
    event.preventDefault();
    byId("drop").dataset.over = "";
  });
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) delete byId("drop").dataset.over;
  });
  addEventListener("drop", (event) => {
    event.preventDefault();
    delete byId("drop").dataset.over;
    if (!byId("try").hidden) offer(event.dataTransfer.files);
  });
}
