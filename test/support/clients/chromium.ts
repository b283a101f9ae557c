// A Chromium without a window, for tests in a browser.
import { existsSync } from "node:fs";
import { type Browser, chromium } from "playwright-core";

const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
const QUIET = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"];

/**
 * Starts the machine's Chromium, with further arguments of its command.
 * @throws Error if the machine has no Chromium.
 */
export async function startChromium(more: readonly string[] = []): Promise<Browser> {
  if (!existsSync(CHROMIUM))
    throw new Error(`Starting Chromium: ${CHROMIUM} does not exist. Install it, or set CHROMIUM to its path.`);
  const browser = await chromium.launch({
    executablePath: CHROMIUM,
    args: ["--no-sandbox", "--disable-gpu", ...QUIET, ...more],
  });
  console.log(`browser on Chromium ${browser.version()}`);
  return browser;
}
