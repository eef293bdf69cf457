// The options of a render, from the API's own description: a new one appears without a change here.

/** Where the video comes from is no option. */
const SOURCES = new Set(["file", "file_id", "file_url"]);

/** @typedef {{name: string, label: string, description: string, schema: import("./api.js").Row, about?: Record<string, string>}} Option
 *  `about`: what each choice means, where that is known */

/** What a form holds, by the options' names. @typedef {Record<string, string | boolean>} Values */

/** @param {import("./api.js").Row | null} description
 * @param {import("./api.js").Row[]} engines  Those of this server and its workers.
 * @returns {Option[]} */
export function renderOptions(description, engines) {
  return bodyOptions(description, "/v1/upscale")
    .filter(({ name }) => !SOURCES.has(name))
    .map((option) => (option.name === "engine" ? engineOption(option, engines) : option))
    .filter((option) => ["string", "number", "integer", "boolean", "object"].includes(option.schema.type));
}

/** @param {Option} option @param {import("./api.js").Row[]} engines @returns {Option} */
const engineOption = (option, engines) => ({
  ...option, schema: { ...option.schema, enum: engines.map(({ id }) => id) }, about: Object.fromEntries(engines.map((one) => [one.id, one.description])),
});

/** What a `POST` to this path takes. @param {import("./api.js").Row | null} description @param {string} path
 * @returns {Option[]} */
export function bodyOptions(description, path) {
  const body = description?.paths?.[path]?.post?.requestBody?.content?.["application/json"]?.schema;
  return Object.entries(resolve(body, description)?.properties ?? {}).map(([name, one]) => {
    const schema = plain(one, description);
    return { name, label: label(name), description: schema.description ?? "", schema };
  });
}

/** @param {any} schema @param {any} description @returns {any} */
function resolve(schema, description) {
  const name = schema?.$ref?.split("/").at(-1);
  return name ? { ...description.components.schemas[name], ...without(schema, "$ref") } : schema;
}

/** One type, where the description allows it or null. @param {any} schema @param {any} description @returns {any} */
function plain(schema, description) {
  const found = resolve(schema, description);
  const choice = (found.anyOf ?? found.oneOf)?.find((/** @type {any} */ one) => one.type !== "null");
  const one = choice ? { ...resolve(choice, description), ...without(found, "anyOf", "oneOf") } : found;
  // What may be a number or a text is typed as a text.
  return Array.isArray(one.type) ? { ...one, type: one.type.includes("string") ? "string" : one.type[0] } : one;
}

/** @param {any} object @param {...string} names */
function without(object, ...names) {
  return Object.fromEntries(Object.entries(object).filter(([name]) => !names.includes(name)));
}

/** @param {string} name */
const label = (name) => (name[0].toUpperCase() + name.slice(1)).replaceAll("_", " ").replace("fps", "rate");

/** The options that make such a render again, as its own properties tell them.
 * @param {Option[]} options @param {import("./api.js").Row} render @returns {Record<string, unknown>} */
export function asked(options, render) {
  const given = options.map(({ name, schema }) => {
    const value = render[name.replace(/_(.)/g, (_, letter) => letter.toUpperCase())];
    // The server does not tell a destination in full, because it is a secret.
    if (schema.type === "string" && typeof value === "object") return [name, undefined];
    // What a boolean option asks for is shown as its result: `quality` as what was measured.
    return [name, schema.type === "boolean" ? Boolean(value) || undefined : value];
  });
  return Object.fromEntries(given.filter(([, value]) => value !== undefined));
}

/** The values of a form that asks for such a render again.
 * @param {Option[]} options @param {import("./api.js").Row} render @returns {Values} */
export function filled(options, render) {
  const text = (/** @type {any} */ value) => {
    if (typeof value === "boolean") return value;
    return typeof value === "object" ? Object.entries(value).map((pair) => pair.join(": ")).join("\n") : String(value);
  };
  return Object.fromEntries(Object.entries(asked(options, render)).map(([name, value]) => [name, text(value)]));
}

/** Names and texts, one `name: text` in a line. @param {string} text @returns {Record<string, string>} */
function lines(text) {
  const pairs = text.split("\n").map((line) => line.split(/:(.*)/s).map((part) => part.trim()));
  return Object.fromEntries(pairs.filter(([name]) => name).map(([name, value = ""]) => [name, value]));
}

const DECIMAL = /^-?\d+([.,]\d+)?$/;

/** As it is typed in most countries: "29.97" or "29,97"; undefined if the text is no number. @param {string} text */
export const typedNumber = (text) => (DECIMAL.test(text) ? Number(text.replace(",", ".")) : undefined);

/** What is sent: values that differ from the default, in the type that the description names.
 * @param {Option[]} options @param {Values} values @returns {Record<string, unknown>} */
export function chosen(options, values) {
  /** @type {Record<string, unknown>} */
  const sent = {};
  for (const { name, schema } of options) {
    const given = values[name];
    const value = typeof given === "string" ? given.trim() : given;
    if (value === undefined || value === "" || value === schema.default || value === String(schema.default)) continue;
    if (schema.type === "object") sent[name] = lines(String(value));
    else sent[name] = ["integer", "number"].includes(schema.type) ? typedNumber(String(value)) ?? value : value;
  }
  return sent;
}

/** The request as a command or a program, ready to copy. `file`: a name, or an address that the server fetches.
 * @param {string} base @param {string} file @param {Record<string, unknown>} sent
 * @returns {{name: string, text: string}[]} */
export function samples(base, file, sent) {
  const fields = Object.entries(sent).map(([name, value]) =>
    [name, typeof value === "object" ? JSON.stringify(value) : String(value)]);
  const isUrl = file.includes("://");
  const quoted = (/** @type {unknown} */ text) => `'${String(text).replaceAll("'", "'\\''")}'`;
  const curl = [
    `curl ${base}/v1/upscale`,
    '-H "Authorization: Bearer $REGEN_KEY"',
    `-F ${quoted(isUrl ? `file_url=${file}` : `file=@${file}`)}`,
    ...fields.map(([name, value]) => `-F ${quoted(`${name}=${value}`)}`),
  ].join(" \\\n  ");
  const data = JSON.stringify(Object.fromEntries(isUrl ? [["file_url", file], ...fields] : fields));
  const python = `import os, time
import httpx

api = httpx.Client(base_url=${JSON.stringify(base)}, timeout=600,
                   headers={"Authorization": f"Bearer {os.environ['REGEN_KEY']}"})
${isUrl ? `answer = api.post("/v1/upscale", data=${data})` : `with open(${JSON.stringify(file)}, "rb") as video:
    answer = api.post("/v1/upscale", files={"file": video}, data=${data})`}
render = answer.raise_for_status().json()["render"]
while render["status"] not in ("completed", "failed"):
    time.sleep(5)
    render = api.get(f"/v1/renders/{render['id']}").raise_for_status().json()["render"]
print(render.get("outputFileURL") or render["error"])`;
  const source = isUrl ? `form.append("file_url", ${JSON.stringify(file)});`
    : `form.append("file", new Blob([await readFile(${JSON.stringify(file)})]), ${JSON.stringify(file)});`;
  const javascript = `${isUrl ? "" : `import { readFile } from "node:fs/promises";\n\n`}const headers = { Authorization: \`Bearer \${process.env.REGEN_KEY}\` };
const form = new FormData();
${source}
${fields.map(([name, value]) => `form.append(${JSON.stringify(name)}, ${JSON.stringify(value)});\n`).join("")}const answer = await fetch(${JSON.stringify(`${base}/v1/upscale`)}, { method: "POST", headers, body: form });
let { render } = await answer.json();
while (!["completed", "failed"].includes(render.status)) {
  await new Promise((resolve) => setTimeout(resolve, 5000));
  ({ render } = await (await fetch(\`${base}/v1/renders/\${render.id}\`, { headers })).json());
}
console.log(render.outputFileURL ?? render.error);`;
  return [{ name: "curl", text: curl }, { name: "Python", text: python }, { name: "JavaScript", text: javascript }];
}
