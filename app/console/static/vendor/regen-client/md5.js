// MD5, which S3 servers make ETags of and WebCrypto lacks. It tells contents apart here and protects nothing.
const SHIFTS = Int32Array.of(7, 12, 17, 22, 5, 9, 14, 20, 4, 11, 16, 23, 6, 10, 15, 21);
const SINES = Int32Array.from({ length: 64 }, (_, step) => Math.floor(Math.abs(Math.sin(step + 1)) * 2 ** 32));
const WORDS = Int32Array.from({ length: 64 }, (_, step) => {
    return [step, 5 * step + 1, 3 * step + 5, 7 * step].map((word) => word & 15)[step >> 4];
});
export function md5(bytes) {
    const length = ((bytes.length + 72) >> 6) << 6;
    const padded = new Uint8Array(length);
    padded.set(bytes);
    padded[bytes.length] = 0x80;
    const view = new DataView(padded.buffer);
    view.setUint32(length - 8, bytes.length << 3, true);
    view.setUint32(length - 4, Math.floor(bytes.length / 2 ** 29), true);
    let [stateA, stateB, stateC, stateD] = [0x67452301, 0xefcdab89 | 0, 0x98badcfe | 0, 0x10325476];
    for (let block = 0; block < length; block += 64) {
        let a = stateA;
        let b = stateB;
        let c = stateC;
        let d = stateD;
        for (let step = 0; step < 64; step++) {
            let mixed;
            if (step < 16)
                mixed = (b & c) | (~b & d);
            else if (step < 32)
                mixed = (d & b) | (~d & c);
            else if (step < 48)
                mixed = b ^ c ^ d;
            else
                mixed = c ^ (b | ~d);
            const word = view.getInt32(block + WORDS[step] * 4, true);
            const sum = (a + mixed + SINES[step] + word) | 0;
            const shift = SHIFTS[(step >> 4) * 4 + (step & 3)];
            a = d;
            d = c;
            c = b;
            b = (b + ((sum << shift) | (sum >>> (32 - shift)))) | 0;
        }
        stateA = (stateA + a) | 0;
        stateB = (stateB + b) | 0;
        stateC = (stateC + c) | 0;
        stateD = (stateD + d) | 0;
    }
    return hex(new Uint8Array(Int32Array.of(stateA, stateB, stateC, stateD).buffer));
}
export function hex(bytes) {
    return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
