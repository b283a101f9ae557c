// Finds nginx with the module nchan.
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";

const MODULE_FOLDERS = ["/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/usr/share/nginx/modules"];

/** Where Debian's packages nginx-light and libnginx-mod-nchan install them. */
export const NGINX = "/usr/sbin/nginx";
export const NCHAN_MODULE: string | undefined = MODULE_FOLDERS.map((folder) => `${folder}/ngx_nchan_module.so`).find(
  (path) => existsSync(path),
);
export const hasNchan: boolean = NCHAN_MODULE !== undefined && existsSync(NGINX);

/** Returns the versions. nginx reports its own; that of the module is known to Debian only. */
export function nchanVersions(): string {
  const [, nginx = "of unknown version"] = /nginx\/([\d.]+)/.exec(String(spawnSync(NGINX, ["-v"]).stderr)) ?? [];
  const query = spawnSync("dpkg-query", ["--show", "libnginx-mod-nchan"]);
  const [, nchan = "of unknown version"] = /:([\d.]+)/.exec(String(query.stdout)) ?? [];
  return `nginx ${nginx}, nchan ${nchan}`;
}
