const HEAD = Buffer.from("3\r\n$7\r\nmessage\r\n");

/** Whether a piece of what Redis says is nothing but whole messages of subscribed channels. */
export function isMessages(data: Buffer): boolean {
  let at = 0;
  while (at < data.length) {
    const kind = data[at];
    // An array in the older version of the protocol, a push in the newer one.
    if (kind !== 0x2a && kind !== 0x3e) return false;
    at++;
    if (!data.subarray(at, at + HEAD.length).equals(HEAD)) return false;
    at += HEAD.length;
    for (let part = 0; part < 2; part++) {
      const end = data.indexOf("\r\n", at);
      if (end < 0 || data[at] !== 0x24) return false;
      at = end + 2 + Number(data.toString("latin1", at + 1, end)) + 2;
    }
  }
  return at === data.length;
}
