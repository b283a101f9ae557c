// Recognizes messages in what Redis sends over a feed.
const MESSAGE_START = Buffer.from("3\r\n$7\r\nmessage\r\n");

/** Whether a chunk consists of whole messages of subscribed channels, and of nothing else. */
export function isOnlyMessages(chunk: Buffer): boolean {
  let offset = 0;
  while (offset < chunk.length) {
    const type = chunk[offset];
    // "*", an array, in RESP2; ">", a push, in RESP3.
    if (type !== 0x2a && type !== 0x3e) return false;
    offset++;
    if (!chunk.subarray(offset, offset + MESSAGE_START.length).equals(MESSAGE_START)) return false;
    offset += MESSAGE_START.length;
    for (let part = 0; part < 2; part++) {
      const end = chunk.indexOf("\r\n", offset);
      if (end < 0 || chunk[offset] !== 0x24) return false;
      offset = end + 2 + Number(chunk.toString("latin1", offset + 1, end)) + 2;
    }
  }
  return offset === chunk.length;
}
