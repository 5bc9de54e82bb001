/** What a page of your own imports: see avatar3d.d.ts. */

/** @param {string} folder @param {HTMLElement} element @returns {Promise<Player>} */
async function load(folder, element) {
  const content = await contentOfFolder(folder);
  const canvas = document.createElement("canvas");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `${content.header.name}, an animated, computer-generated head`);
  canvas.style.display = "block";
  const badge = document.createElement("small");
  badge.textContent = "Synthetic";
  badge.title = content.header.notice;
  badge.style.cssText = "position:absolute;left:8px;bottom:8px;padding:2px 8px;border-radius:9px;" +
    "background:#000a;color:#fff;pointer-events:none";
  if (getComputedStyle(element).position === "static") element.style.position = "relative";
  element.append(canvas, badge);
  try {
    return new Player(element, canvas, content);
  } catch (error) {
    canvas.remove();
    badge.remove();
    throw error;
  }
}

export { load, VERSION as version, ViewerError };
