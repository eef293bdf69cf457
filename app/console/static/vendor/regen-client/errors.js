// What goes wrong, as exceptions: all are RegenError.
const REPEATABLE = [408, 429, 502, 503, 504];
export class RegenError extends Error {
    /** Whether the same request may succeed later. */
    get repeatable() {
        return false;
    }
    /** Seconds that the server asks to wait. */
    retryAfter = undefined;
    constructor(message, options) {
        super(message, options);
        this.name = new.target.name;
    }
}
/** The connection could not be made, or broke before the answer was complete, or was silent for too long. */
export class NoAnswer extends RegenError {
    get repeatable() {
        return true;
    }
}
/** The server refused the request. */
export class ApiError extends RegenError {
    /** A sentence for each fault. */
    messages;
    status;
    /** Finds the request in the server's log. */
    requestId;
    retryAfter;
    constructor(status, messages, requestId, retryAfter) {
        super(`${status}: ${messages.join(" ")}${requestId ? ` (request ${requestId})` : ""}`);
        this.status = status;
        this.messages = messages;
        this.requestId = requestId;
        this.retryAfter = retryAfter;
    }
    /** The error of an answer with this body; also of one that a proxy made, without messages. */
    static of(status, statusText, headers, body) {
        let messages = [];
        try {
            messages = JSON.parse(body).errors.map((error) => String(error.message));
        }
        catch {
            // A proxy's page.
        }
        if (!messages.length)
            messages = [`The server answered ${`${status} ${statusText}`.trim()}.`];
        const retryAfter = retryAfterSeconds(headers.get("Retry-After"));
        return new ApiError(status, messages, headers.get("X-Request-ID") ?? undefined, retryAfter);
    }
    get repeatable() {
        return REPEATABLE.includes(this.status);
    }
}
/** The render has ended as `failed`: also one that was canceled. `render.error` says why. */
export class RenderFailed extends RegenError {
    render;
    constructor(render) {
        super(`The render ${render.id} failed: ${render.error ?? "no reason was given."}`);
        this.render = render;
    }
}
/** The time given to a wait was over first. The render goes on: wait for it again, or cancel it. */
export class WaitTimeout extends RegenError {
}
/** An event without a valid signature, or with one that is too old. */
export class InvalidWebhook extends RegenError {
}
/** `Retry-After`: seconds, or a date; undefined if it is absent or neither. */
export function retryAfterSeconds(text) {
    if (!text?.trim())
        return undefined;
    const seconds = Number(text);
    const given = Number.isNaN(seconds) ? (Date.parse(text) - Date.now()) / 1000 : seconds;
    return Number.isFinite(given) ? Math.max(0, given) : undefined;
}
