/** Reading what avatar3d/export/payload.py wrote, from within a page or from a folder. */

const FORMAT = "avatar3d.web";
const VERSION = 2;

const ARRAY_TYPES = {
  float32: Float32Array, int32: Int32Array, uint32: Uint32Array, int16: Int16Array,
  uint16: Uint16Array, int8: Int8Array, uint8: Uint8Array,
};

/** An explanation meant for the person who opened the page. */
class ViewerError extends Error {}

/** The avatar embedded in the page. @returns {Promise<Content>} */
async function contentOfPage() {
  const header = JSON.parse(document.getElementById("avatar-header").textContent);
  const element = document.getElementById("avatar-data");
  const compressed = bytesFromBase64(element.textContent);
  element.remove(); // megabytes of text that nobody needs any more
  const arrays = await unpacked(header, compressed);
  return { header, arrays, plate: await bitmap(embeddedBlob("avatar-plate")),
           sound: embeddedBlob("avatar-sound") };
}

/**
 * The avatar in a folder that `avatar3d export AVATAR --format web` wrote.
 * @param {string} folder its address.
 * @returns {Promise<Content>}
 */
async function contentOfFolder(folder) {
  const file = async (name) => {
    let answer;
    try {
      answer = await fetch(new URL(name, new URL(folder.replace(/\/?$/, "/"), document.baseURI)));
    } catch {
      throw new ViewerError(`${folder}/${name} cannot be loaded; serve the folder over http.`);
    }
    if (!answer.ok) throw new ViewerError(`${folder}/${name} cannot be loaded: ${answer.status}.`);
    return answer;
  };
  const header = await (await file("avatar.json")).json();
  checkVersion(header);
  const arrays = await unpacked(header, await (await file("avatar.bin")).arrayBuffer());
  const blob = async (name) => name ? (await file(name)).blob() : null;
  return { header, arrays, plate: await bitmap(await blob(header.files?.plate)),
           sound: await blob(header.files?.sound) };
}

function checkVersion(header) {
  if (header.format !== FORMAT || header.version !== VERSION) {
    throw new ViewerError("This viewer is of another version than its avatar; export it again.");
  }
}

/** @param {Header} header @param {BufferSource} compressed @returns {Promise<Arrays>} */
async function unpacked(header, compressed) {
  checkVersion(header);
  if (typeof DecompressionStream === "undefined") {
    throw new ViewerError("This browser is too old to unpack the avatar; please update it.");
  }
  let data;
  try {
    const stream = new Blob([compressed]).stream().pipeThrough(new DecompressionStream("gzip"));
    data = await new Response(stream).arrayBuffer();
  } catch {
    throw new ViewerError("The avatar in this page is damaged; copy or export it again.");
  }
  const arrays = {};
  for (const [name, entry] of Object.entries(header.arrays)) {
    arrays[name] = readArray(entry, data);
  }
  return arrays;
}

function readArray(entry, data) {
  const type = ARRAY_TYPES[entry.dtype];
  const count = entry.shape.reduce((product, size) => product * size, 1);
  if (!type || entry.start + count * type.BYTES_PER_ELEMENT > data.byteLength) {
    throw new ViewerError("The avatar in this page is damaged; copy or export it again.");
  }
  const stored = new type(data, entry.start, count);
  if (!entry.scale) return stored;
  const columns = entry.scale.length;
  const values = new Float32Array(count);
  for (let i = 0, column = 0; i < count; i++) {
    values[i] = stored[i] * entry.scale[column] + entry.zero[column];
    if (++column === columns) column = 0;
  }
  return values;
}

/** @param {Blob | null} picture */
async function bitmap(picture) {
  return picture && createImageBitmap(picture, { colorSpaceConversion: "none" });
}

function bytesFromBase64(text) {
  const binary = atob(text.trim());
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

/** The picture or sound in the element with this id as a Blob, or null when there is none. */
function embeddedBlob(id) {
  const element = document.getElementById(id);
  if (!element) return null;
  return new Blob([bytesFromBase64(element.textContent)], { type: element.dataset.type });
}
