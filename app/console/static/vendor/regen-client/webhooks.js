// Events that the server sends, signed by Standard Webhooks.
import { InvalidWebhook } from "./errors.js";
const PREFIX = "whsec_";
/** The event in a request's raw `body`. `secrets`: one or more `whsec_...` of `GET /v1/webhooks/secret`; one that fits is
 * enough. Throws InvalidWebhook unless a signature is valid and at most `toleranceSeconds` old, or TypeError for a
 * secret that is none. */
export async function verifyWebhook(body, headers, secrets, { toleranceSeconds = 300 } = {}) {
    const content = typeof body === "string" ? new TextEncoder().encode(body) : body;
    const lower = new Map();
    for (const [name, value] of headers instanceof Headers ? headers : Object.entries(headers)) {
        lower.set(name.toLowerCase(), String(value));
    }
    const [id, timestamp, given] = ["id", "timestamp", "signature"].map((name) => lower.get(`webhook-${name}`));
    if (id === undefined || given === undefined || !/^\d+$/.test(timestamp ?? "")) {
        throw new InvalidWebhook("The headers of a webhook are missing or malformed.");
    }
    if (Math.abs(Date.now() / 1000 - Number(timestamp)) > toleranceSeconds) {
        throw new InvalidWebhook("The webhook is too old, or its date is in the future.");
    }
    const signatures = given.split(/\s+/).filter((text) => text.startsWith("v1,"));
    const start = new TextEncoder().encode(`${id}.${timestamp}.`);
    const signed = new Uint8Array(start.length + content.length);
    signed.set(start);
    signed.set(content, start.length);
    let valid = false;
    for (const secret of typeof secrets === "string" ? [secrets] : secrets) {
        const key = await keyOf(secret);
        for (const signature of signatures) {
            const bytes = fromBase64(signature.slice(3));
            // WebCrypto compares in constant time.
            if (bytes && (await crypto.subtle.verify("HMAC", key, bytes, signed)))
                valid = true;
        }
    }
    if (!valid)
        throw new InvalidWebhook("The webhook's signature is not valid.");
    let event;
    try {
        event = JSON.parse(new TextDecoder().decode(content));
    }
    catch {
        event = null;
    }
    if (typeof event !== "object" || event === null || Array.isArray(event)) {
        throw new InvalidWebhook("The webhook's body is not a JSON object.");
    }
    return event;
}
async function keyOf(secret) {
    const bytes = fromBase64(secret.startsWith(PREFIX) ? secret.slice(PREFIX.length) : secret);
    if (!bytes?.length)
        throw new TypeError("A webhook secret is whsec_ and base64.");
    return crypto.subtle.importKey("raw", bytes, { name: "HMAC", hash: "SHA-256" }, false, ["verify"]);
}
function fromBase64(text) {
    try {
        return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
    }
    catch {
        return undefined;
    }
}
