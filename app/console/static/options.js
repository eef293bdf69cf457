// The options of a render, from the API's own description: a new one appears without a change here.

/** Where the video comes from is no option. */
const SOURCES = new Set(["file", "file_id", "file_url"]);

/** @typedef {{name: string, label: string, description: string, schema: import("./api.js").Row}} Option */

/** @param {import("./api.js").Row | null} description @param {string[]} engines  Those of this server and its workers.
 * @returns {Option[]} */
export function renderOptions(description, engines) {
  const body = description?.paths?.["/v1/upscale"]?.post?.requestBody?.content?.["application/json"]?.schema;
  const schema = resolve(body, description);
  return Object.entries(schema?.properties ?? {})
    .filter(([name]) => !SOURCES.has(name))
    .map(([name, one]) => {
      const found = name === "engine" ? { ...plain(one, description), enum: engines } : plain(one, description);
      return { name, label: label(name), description: found.description ?? "", schema: found };
    })
    .filter((option) => ["string", "number", "integer", "boolean"].includes(option.schema.type));
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

/** What is sent: values that differ from the default, in the type that the description names.
 * @param {Option[]} options @param {Record<string, string | boolean>} values @returns {Record<string, unknown>} */
export function chosen(options, values) {
  /** @type {Record<string, unknown>} */
  const sent = {};
  for (const { name, schema } of options) {
    const value = values[name];
    if (value === undefined || value === "" || value === schema.default || value === String(schema.default)) continue;
    sent[name] = schema.type === "integer" && /^-?\d+$/.test(String(value)) ? Number(value) : value;
  }
  return sent;
}

/** The request as a command or a program, ready to copy.
 * @param {string} base @param {string} file @param {Record<string, unknown>} sent
 * @returns {{name: string, text: string}[]} */
export function samples(base, file, sent) {
  const fields = Object.entries(sent);
  const quoted = (/** @type {unknown} */ text) => `'${String(text).replaceAll("'", "'\\''")}'`;
  const curl = [
    `curl ${base}/v1/upscale`,
    '-H "Authorization: Bearer $REGEN_KEY"',
    `-F ${quoted(`file=@${file}`)}`,
    ...fields.map(([name, value]) => `-F ${quoted(`${name}=${value}`)}`),
  ].join(" \\\n  ");
  const data = JSON.stringify(Object.fromEntries(fields.map(([name, value]) => [name, String(value)])));
  const python = `import os, time
import httpx

api = httpx.Client(base_url=${JSON.stringify(base)}, timeout=600,
                   headers={"Authorization": f"Bearer {os.environ['REGEN_KEY']}"})
with open(${JSON.stringify(file)}, "rb") as video:
    answer = api.post("/v1/upscale", files={"file": video}, data=${data})
render = answer.raise_for_status().json()["render"]
while render["status"] not in ("completed", "failed"):
    time.sleep(5)
    render = api.get(f"/v1/renders/{render['id']}").raise_for_status().json()["render"]
print(render.get("outputFileURL") or render["error"])`;
  const javascript = `import { readFile } from "node:fs/promises";

const headers = { Authorization: \`Bearer \${process.env.REGEN_KEY}\` };
const form = new FormData();
form.append("file", new Blob([await readFile(${JSON.stringify(file)})]), ${JSON.stringify(file)});
${fields.map(([name, value]) => `form.append(${JSON.stringify(name)}, ${JSON.stringify(String(value))});\n`).join("")}const answer = await fetch(${JSON.stringify(`${base}/v1/upscale`)}, { method: "POST", headers, body: form });
let { render } = await answer.json();
while (!["completed", "failed"].includes(render.status)) {
  await new Promise((resolve) => setTimeout(resolve, 5000));
  ({ render } = await (await fetch(\`${base}/v1/renders/\${render.id}\`, { headers })).json());
}
console.log(render.outputFileURL ?? render.error);`;
  return [{ name: "curl", text: curl }, { name: "Python", text: python }, { name: "JavaScript", text: javascript }];
}
