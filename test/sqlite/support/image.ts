// The disk after a power failure: what was synced, and some of the writes since then.
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Random } from "../../support/random.ts";

/** The bytes that a disk writes at once. */
const SECTOR = 512;
/** A record of the journal: whether it truncates, an offset, and a length; 8 bytes each. */
const HEAD = 24;

type Loss = "all" | "after some" | "any";

/** Writes the files of an image as a power failure leaves them. Returns which of the unsynced writes were lost. */
export function restoreImage(image: string, target: string, random: Random): Loss {
  const loss = random.pick<Loss>(["all", "after some", "any"]);
  rmSync(target, { recursive: true, force: true });
  mkdirSync(target);
  for (const name of readdirSync(image)) {
    if (name.endsWith(".journal")) {
      const base = name.slice(0, -".journal".length);
      // A file that was created and never synced may be missing.
      if (!existsSync(join(image, base)) && loss !== "all")
        writeFileSync(join(target, base), applyJournal(Buffer.alloc(0), readFileSync(join(image, name)), loss, random));
      continue;
    }
    const synced = readFileSync(join(image, name));
    const journal = join(image, `${name}.journal`);
    const isChanged = existsSync(journal) && loss !== "all";
    writeFileSync(join(target, name), isChanged ? applyJournal(synced, readFileSync(journal), loss, random) : synced);
  }
  return loss;
}

function applyJournal(synced: Buffer, journal: Buffer, loss: Loss, random: Random): Buffer {
  let content = synced;
  let keepsFollowing = true;
  for (let offset = 0; offset + HEAD <= journal.length; ) {
    const isTruncate = journal.readBigInt64LE(offset) === 1n;
    const at = Number(journal.readBigInt64LE(offset + 8));
    const length = Number(journal.readBigInt64LE(offset + 16));
    const data = journal.subarray(offset + HEAD, offset + HEAD + length);
    offset += HEAD + length;
    if (loss === "after some" && random.integer(0, 9) === 0) keepsFollowing = false;
    if (!keepsFollowing) break;
    if (loss === "any" && random.integer(0, 1) === 0) continue;
    if (isTruncate) {
      content = Buffer.concat([content.subarray(0, at), Buffer.alloc(Math.max(0, at - content.length))]);
      continue;
    }
    // A write of several sectors may be cut, too.
    const sectors = loss === "any" ? random.integer(0, Math.ceil(length / SECTOR)) : Math.ceil(length / SECTOR);
    const part = data.subarray(0, sectors * SECTOR);
    if (content.length < at + part.length)
      content = Buffer.concat([content, Buffer.alloc(at + part.length - content.length)]);
    part.copy(content, at);
  }
  return content;
}
