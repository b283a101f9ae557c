import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";

const MODULE_FOLDERS = ["/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/usr/share/nginx/modules"];

/** Where Debian's nginx-light and libnginx-mod-nchan put them. */
export const NGINX = "/usr/sbin/nginx";
export const NCHAN_MODULE: string | undefined = MODULE_FOLDERS.map((folder) => `${folder}/ngx_nchan_module.so`).find(
  (path) => existsSync(path),
);
export const hasNchan: boolean = NCHAN_MODULE !== undefined && existsSync(NGINX);

/** The versions, as Debian tells them of what it installed; nginx tells its own, the module none. */
export function nchanVersions(): string {
  const [, nginx = "of unknown version"] = /nginx\/([\d.]+)/.exec(String(spawnSync(NGINX, ["-v"]).stderr)) ?? [];
  const asked = spawnSync("dpkg-query", ["--show", "libnginx-mod-nchan"]);
  const [, nchan = "of unknown version"] = /:([\d.]+)/.exec(String(asked.stdout)) ?? [];
  return `nginx ${nginx}, nchan ${nchan}`;
}
